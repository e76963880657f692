// Goes on with a log where the page ends, for as long as the board was asked to, in bounded room.

import { localTime, now } from "./times.js";

const MOST_LINES = 4000;

export function startLogs(button) {
  const lines = document.querySelector(".lines");
  const state = document.querySelector("[data-follow-state]");
  const word = button.textContent;
  let source = null;
  lines.scrollTop = lines.scrollHeight;
  button.hidden = false;

  function end(words) {
    source?.close();
    source = null;
    button.textContent = word;
    state.textContent = words;
  }

  button.addEventListener("click", () => {
    if (source) return end("Not followed any more.");
    button.textContent = "Stop following";
    state.textContent = "Following what is written next.";
    source = new EventSource(button.dataset.follow);
    source.addEventListener("lines", ({ data }) => add(lines, JSON.parse(data)));
    source.addEventListener("end", () => end(`Followed until ${localTime(now(), "clock")}.`));
    source.addEventListener("error", ({ data }) => {
      // Without data it is the connection; the browser would begin a second log by itself.
      const problem = data ? JSON.parse(data) : { detail: "The connection is lost" };
      end([problem.detail, problem.hint].filter(Boolean).join("; ") + ".");
    });
  });
}

function add(list, { lines, dropped }) {
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  document.querySelector("[data-no-lines]")?.remove();
  for (const each of lines) list.append(lineOf(each.stream, each.at_ms, each.container, each.text));
  if (dropped) list.append(lineOf("stderr", null, "", `${dropped} lines were too many to send`));
  while (list.children.length > MOST_LINES) list.firstElementChild.remove();
  if (atEnd) list.scrollTop = list.scrollHeight;
}

function lineOf(stream, atMs, container, text) {
  const line = document.createElement("li");
  line.className = stream;
  const head = document.createElement("span");
  head.className = "soft";
  head.textContent = [atMs === null ? "" : localTime(atMs, "clock"), container].filter(Boolean).join(" ");
  line.append(head, ` ${text}`);
  return line;
}
