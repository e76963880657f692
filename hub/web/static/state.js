// What a board's state is: the twin of hub/web/state.py, for pages that stay open.
// tests/vectors/state.json holds the two against each other.

import { age, every } from "./words.js";

export const MISSED = 3;
export const GRACE_MS = 5_000;
export const FIRST_MS = 180_000;
export const STALE_AFTER = 2;
export const WORDS = { fine: "fine", attention: "needs you", silent: "silent" };

function stateOf(seen, nowMs) {
  if (seen.heard_ms === null) return nowMs - seen.joined_ms > FIRST_MS ? "silent" : "fine";
  if (seen.presence !== "online" || nowMs - seen.heard_ms > MISSED * seen.every_ms + GRACE_MS) return "silent";
  return seen.problem ? "attention" : "fine";
}

export function judge(seen, nowMs) {
  const state = stateOf(seen, nowMs);
  if (seen.heard_ms === null) return { state, sentence: `Joined ${age(nowMs - seen.joined_ms)}, not heard yet` };
  if (state === "silent") {
    const last = seen.presence !== "online" ? "Offline, last" : "Last";
    return { state, sentence: `${last} heard ${age(nowMs - seen.heard_ms)}, expected every ${every(seen.every_ms)}` };
  }
  return { state, sentence: seen.problem || `Reports every ${every(seen.every_ms)}` };
}

export function isStale(atMs, intervalMs, nowMs) {
  return nowMs - atMs > STALE_AFTER * intervalMs + GRACE_MS;
}
