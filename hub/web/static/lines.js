// Line numbers beside the files of a recipe, marked where a verdict has something to say, the way from a
// verdict to its line, and what was filled in while a look was on its way.

import { localTimes } from "./times.js";

const MOST = 5000;

const started = new WeakSet();

// Called again whenever htmx has put something new in.
export function startLines(form) {
  localTimes(form);
  form.querySelectorAll(".code textarea").forEach(number);
  if (started.has(form)) return;
  started.add(form);
  form.addEventListener("input", ({ target }) => target.matches(".code textarea") && number(target));
  form.addEventListener("scroll", ({ target }) => target.matches?.(".code textarea") && follow(target), true);
  form.addEventListener("toggle", ({ target }) => target.querySelectorAll(".code textarea").forEach(follow), true);
  form.addEventListener("click", (event) => {
    const link = event.target.closest("[data-goto]");
    if (link) goTo(event, form, link.closest("[data-line]"));
  });
  dropOldLooks(form);
}

// A look at what the form was before the last input is not put in: it would take back a tick or a word.
// The look at the form as it is now follows that input anyway.
function dropOldLooks(form) {
  let isOld = false;
  form.addEventListener("htmx:beforeRequest", () => (isOld = false));
  form.addEventListener("input", () => (isOld = true));
  form.addEventListener("htmx:beforeSwap", ({ detail }) => {
    if (isOld && detail.target.id === "verdicts") detail.shouldSwap = false;
  });
}

function number(text) {
  const gutter = text.previousElementSibling;
  const count = Math.min(text.value.split("\n").length, MOST);
  while (gutter.children.length > count) gutter.lastChild.remove();
  while (gutter.children.length < count) {
    const line = document.createElement("li");
    line.textContent = gutter.children.length + 1;
    gutter.append(line);
  }
  for (const line of gutter.querySelectorAll("[class]")) line.removeAttribute("class");
  const verdicts = `[data-verdict][data-file="${CSS.escape(text.dataset.file)}"]`;
  for (const { dataset } of text.form.querySelectorAll(verdicts)) {
    const line = gutter.children[dataset.line - 1];
    if (line && dataset.verdict !== "supported" && !line.className) line.className = dataset.verdict;
  }
  follow(text);
}

function follow(text) {
  text.previousElementSibling.scrollTop = text.scrollTop;
}

function goTo(event, form, { dataset }) {
  const text = form.querySelector(`textarea[data-file="${CSS.escape(dataset.file)}"]`);
  if (!text) return;
  event.preventDefault();
  text.closest("details").open = true;
  const lines = text.value.split("\n");
  const start = lines.slice(0, dataset.line - 1).join("\n").length + (dataset.line > 1 ? 1 : 0);
  text.focus();
  text.setSelectionRange(start, start + (lines[dataset.line - 1]?.length ?? 0));
  text.scrollTop = (text.scrollHeight / lines.length) * Math.max(0, dataset.line - 4);
  text.scrollIntoView({ block: "nearest" });
}
