// The live stream (server-sent events): text changes in place, nothing moves.

import { refreshAges } from "./ages.js";
import { Stream } from "./stream.js";
import { SPACE, value as words } from "./words.js";
import { learnNow, setTime } from "./times.js";

const stream = new Stream("stream", { hub: hubChanged, board: boardChanged });

export function startLive() {
  stream.follow(addressOf(document.querySelector("[data-live]")));
}

function addressOf(page) {
  if (!page) return "";
  const query = new URLSearchParams();
  const boards = new Set([page, ...page.querySelectorAll("[data-board]")].map((each) => each.dataset.board));
  for (const board of boards) if (board) query.append("board", board);
  if (page.dataset.live === "fleet") {
    const sensors = new Set([...page.querySelectorAll(".figure")].map((each) => each.dataset.sensor));
    for (const sensor of sensors) query.append("sensor", sensor);
    query.append("counts", "1");
  }
  return `/api/v1/live?${query}`;
}

function hubChanged({ now_ms: nowMs, counts }) {
  learnNow(nowMs);
  const page = document.querySelector('[data-live="fleet"]');
  if (!page || !counts) return;
  const before = Number(page.dataset.boards);
  if (before === 0 && counts.boards > 0) return location.reload();
  for (const [key, count] of Object.entries(counts)) {
    const shown = page.querySelector(`[data-count="${key}"]`);
    if (!shown) continue;
    if (shown.textContent !== String(count)) shown.textContent = count;
    shown.parentElement.classList.toggle("some", count > 0);
  }
  // New boards wait behind a link: a row that appears would push away what somebody is about to press.
  const fresh = page.querySelector("[data-fresh]");
  if (!fresh) return;
  fresh.hidden = counts.boards <= before;
  fresh.firstElementChild.textContent = `${counts.boards - before} new`;
}

function boardChanged(change) {
  for (const board of document.querySelectorAll(`[data-board="${CSS.escape(change.board)}"][data-every-ms]`)) {
    if (change.heard_ms !== null) board.dataset.heardMs = change.heard_ms;
    board.dataset.presence = change.presence;
    board.dataset.everyMs = change.every_ms;
    board.dataset.problem = change.problem;
    for (const time of board.querySelectorAll("[data-board-age]")) {
      if (change.heard_ms !== null) setTime(time, change.heard_ms);
    }
    const waiting = board.querySelector("[data-waiting]");
    if (waiting) {
      waiting.hidden = !change.waiting;
      waiting.querySelector("[data-waiting-count]").textContent = change.waiting ?? 0;
    }
    for (const figure of board.querySelectorAll(".figure")) {
      const found = change.values[figure.dataset.sensor];
      if (found) setFigure(figure, ...found);
    }
  }
  refreshAges();
  document.dispatchEvent(new CustomEvent("lichen:values", { detail: change }));
}

function setFigure(figure, value, atMs) {
  figure.dataset.atMs = atMs;
  const text = words(value, figure.dataset.unit);
  const [number, ...unit] = text.split(SPACE);
  const shown = figure.querySelector("[data-number]");
  if (shown && unit.length <= 1) {
    shown.textContent = number;
    figure.querySelector("[data-unit-text]").textContent = unit[0] ?? "";
  } else if (shown) {
    shown.textContent = text;
    figure.querySelector("[data-unit-text]").textContent = "";
  } else if (figure.textContent !== text) {
    figure.textContent = text;
  }
  const meter = figure.nextElementSibling;
  if (meter instanceof HTMLMeterElement) meter.value = value ?? 0;
}
