// Ages that tick. A value without its age is a lie, and a page that stays open would tell many:
// every second each board's state and the age of each figure are judged again, from attributes.

import { age, duration } from "./words.js";
import { WORDS, isStale, judge } from "./state.js";
import { now } from "./times.js";

const TICK_MS = 1000;

export function startAges() {
  refreshAges();
  setInterval(refreshAges, TICK_MS);
}

export function refreshAges() {
  const nowMs = now();
  for (const board of document.querySelectorAll("[data-board][data-every-ms]")) refreshBoard(board, nowMs);
  for (const figure of document.querySelectorAll(".figure[data-at-ms]")) refreshFigure(figure, nowMs);
  for (const time of document.querySelectorAll("time[data-age-ms]")) setText(time, age(nowMs - time.dataset.ageMs));
}

export function seenOf(board) {
  const { heardMs, joinedMs, everyMs, presence, problem } = board.dataset;
  return {
    heard_ms: heardMs === undefined ? null : Number(heardMs),
    joined_ms: Number(joinedMs),
    every_ms: Number(everyMs),
    presence,
    problem,
  };
}

function refreshBoard(board, nowMs) {
  const seen = seenOf(board);
  const { state, sentence } = judge(seen, nowMs);
  for (const mark of board.querySelectorAll("[data-state]")) {
    if (!mark.classList.contains(state)) {
      mark.className = `state ${state}`;
      mark.querySelector("use").setAttribute("href", `#i-${state}`);
    }
    setText(mark.querySelector("[data-word]"), WORDS[state]);
  }
  board.classList.toggle("silent", state === "silent");
  for (const element of board.querySelectorAll("[data-sentence]")) {
    setText(element, element.dataset.sentence.includes(state) ? sentence : "");
  }
  for (const element of board.querySelectorAll("[data-unless-silent]")) element.hidden = state === "silent";
  if (seen.heard_ms === null) return;
  const silence = nowMs - seen.heard_ms;
  for (const time of board.querySelectorAll("[data-board-age]")) {
    setText(time, time.dataset.boardAge === "ago" ? age(silence) : duration(silence));
  }
}

function refreshFigure(figure, nowMs) {
  const atMs = Number(figure.dataset.atMs);
  const stale = isStale(atMs, intervalOf(figure), nowMs);
  figure.classList.toggle("stale", stale);
  figure.title = stale ? age(nowMs - atMs) : "";
  const shown = figure.closest("li, td")?.querySelector("[data-value-age]");
  if (!shown) return;
  shown.hidden = !stale;
  setText(shown, age(nowMs - atMs));
}

// A board's figures come with its reports, unless one says that it is measured less often.
function intervalOf(figure) {
  return Number(figure.dataset.intervalMs ?? figure.closest("[data-every-ms]").dataset.everyMs);
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
