// What every page does in the browser: ages that tick, times in the reader's zone, the colour
// switch, copying, and errors of htmx in words. The live stream and the charts are loaded by
// the pages that have them.

import { startAges } from "./ages.js";
import { startLive } from "./live.js";
import { localTimes } from "./times.js";
import { notify } from "./notice.js";

const THEMES = { auto: "as the system", light: "light", dark: "dark" };

function themeSwitch(button) {
  const root = document.documentElement;
  const label = () => button.setAttribute("aria-label", `Colours: ${THEMES[root.dataset.theme ?? "auto"]}`);
  button.hidden = false;
  label();
  button.addEventListener("click", () => {
    const names = Object.keys(THEMES);
    const next = names[(names.indexOf(root.dataset.theme ?? "auto") + 1) % names.length];
    if (next === "auto") delete root.dataset.theme;
    else root.dataset.theme = next;
    try {
      localStorage.setItem("lichen-theme", next);
    } catch {
      // The switch then holds for this page only.
    }
    label();
    document.dispatchEvent(new Event("lichen:theme"));
  });
}

function copying(root) {
  for (const button of root.querySelectorAll("[data-copy]")) {
    button.hidden = !navigator.clipboard;
    const word = button.textContent;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.previousElementSibling.textContent);
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = word), 1500);
    });
  }
  for (const button of root.querySelectorAll("[data-save]")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const text = button.closest("section").querySelector("pre").textContent;
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([text + "\n"], { type: "application/toml" }));
      link.download = button.dataset.save;
      link.click();
      URL.revokeObjectURL(link.href);
    });
  }
}

function searchKey(event) {
  const typing = event.target.closest("input, textarea, select, [contenteditable]");
  if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const search = document.getElementById("search");
  if (!search) return;
  event.preventDefault();
  search.focus();
  search.select();
}

// The session's cookie is not sent with a link that was followed from elsewhere (a chat, say), but
// with what this page asks for itself: so somebody who is logged in need not log in again.
async function alreadyLoggedIn(form) {
  const answer = await fetch("/api/v1/me").catch(() => null);
  if (answer?.ok) location.replace(form.dataset.loginNext);
}

async function failed(event) {
  const request = event.detail.xhr;
  let words = "The hub cannot be reached; nothing was changed. Try again.";
  if (request.status) {
    words = `The hub answered ${request.status}; nothing was changed.`;
    if (request.getResponseHeader("Content-Type")?.startsWith("application/problem+json")) {
      const problem = JSON.parse(request.responseText);
      words = [problem.detail, problem.hint].filter(Boolean).join("; ");
    }
  }
  notify("request", words);
}

// What htmx may put in anew: a part that is kept fresh, and the form with line numbers.
async function startParts() {
  if (document.querySelector("[data-fresh]")) {
    const { startFresh } = await import("./fresh.js");
    startFresh();
  }
  const form = document.querySelector("[data-lines]");
  if (form) {
    const { startLines } = await import("./lines.js");
    startLines(form);
  }
}

function prepare(root) {
  copying(root);
  localTimes(root);
}

prepare(document);
startAges();
startLive();
document.querySelectorAll("[data-theme-switch]").forEach(themeSwitch);
document.querySelectorAll("[data-login-next]").forEach(alreadyLoggedIn);
document.addEventListener("keydown", searchKey);
document.addEventListener("htmx:afterSwap", (event) => prepare(event.detail.target ?? document));
document.addEventListener("htmx:afterSettle", startLive);
document.addEventListener("htmx:afterSettle", startParts);
document.addEventListener("htmx:beforeRequest", () => notify("request", ""));
document.addEventListener("htmx:responseError", failed);
document.addEventListener("htmx:sendError", failed);
startParts();
if (document.querySelector("[data-charts]")) {
  const { startCharts } = await import("./charts.js");
  startCharts(document.querySelector("[data-charts]"));
}
if (document.querySelector("[data-usage]")) {
  const { startUsage } = await import("./usage.js");
  startUsage(document.querySelector("[data-usage]"));
}
const follow = document.querySelector("[data-follow]");
if (follow) {
  const { startLogs } = await import("./logs.js");
  startLogs(follow);
}
