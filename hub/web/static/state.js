// What a board's state is: the twin of hub/web/state.py, for pages that stay open.
// tests/vectors/state.json holds the two against each other.

import { age, every } from "./format.js";

export const MISSED = 3;
export const GRACE_MS = 5_000;
export const FIRST_MS = 180_000;
export const STALE_AFTER = 2;
export const WORDS = { fine: "fine", attention: "needs you", silent: "silent" };

export function judge(seen, nowMs) {
  if (seen.heard_ms === null) {
    const waited = nowMs - seen.joined_ms;
    return { state: waited > FIRST_MS ? "silent" : "fine", sentence: `Joined ${age(waited)}, not heard yet` };
  }
  const silence = nowMs - seen.heard_ms;
  if (seen.presence !== "online" || silence > MISSED * seen.every_ms + GRACE_MS) {
    const gone = seen.presence !== "online" ? "Offline, last" : "Last";
    return { state: "silent", sentence: `${gone} heard ${age(silence)}, expected every ${every(seen.every_ms)}` };
  }
  if (seen.problem) return { state: "attention", sentence: seen.problem };
  return { state: "fine", sentence: `Reports every ${every(seen.every_ms)}` };
}

export function isStale(atMs, intervalMs, nowMs) {
  return nowMs - atMs > STALE_AFTER * intervalMs + GRACE_MS;
}
