// Before the first paint: the colours that this reader chose here, if any.
// Classic and blocking on purpose; everything else waits for the page.
(() => {
  try {
    const theme = localStorage.getItem("lichen-theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // Storage may be forbidden; then the system's choice holds.
  }
})();
