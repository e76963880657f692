// Times in the reader's own language and zone, and the hub's clock beside the reader's.

const STYLES = {
  short: { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" },
  full: { dateStyle: "full", timeStyle: "long" },
  clock: { hour: "2-digit", minute: "2-digit", second: "2-digit" },
};
const YEAR_MS = 300 * 86_400_000;

// What the reader's clock has to be moved by to show the hub's; learnt from the page, then from the stream.
let offsetMs = Number(document.documentElement.dataset.nowMs) - Date.now();

export function now() {
  return Date.now() + offsetMs;
}

export function learnNow(hubMs) {
  offsetMs = hubMs - Date.now();
}

export function localTime(atMs, style) {
  const options = { ...STYLES[style] };
  if (style === "short" && Math.abs(now() - atMs) > YEAR_MS) options.year = "numeric";
  return new Intl.DateTimeFormat(undefined, options).format(atMs);
}

export function localTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const atMs = Date.parse(time.dateTime);
    time.title = localTime(atMs, "full");
    if (time.dataset.style) time.textContent = localTime(atMs, time.dataset.style);
  }
}

export function setTime(time, atMs) {
  time.dateTime = new Date(atMs).toISOString();
  time.title = localTime(atMs, "full");
}
