// Keeps a part of a page true: when its bell rings, the page (or one with that part alone) is asked for
// again, and what is new is put in its place. The words come from the hub, so they are made in one place.

import { refreshAges } from "./ages.js";
import { morph } from "./morph.js";
import { Stream } from "./stream.js";
import { localTimes } from "./times.js";

let stream = null;
let asking = false;
let rung = false;

export function startFresh() {
  const part = document.querySelector("[data-fresh]");
  stream ??= new Stream("apps", { app: ring, changed: ring });
  stream.follow(part?.dataset.fresh ?? "");
}

async function ring() {
  rung = true;
  if (asking) return;
  asking = true;
  try {
    while (rung) {
      rung = false;
      await refresh();
    }
  } finally {
    asking = false;
  }
}

async function refresh() {
  const asked = location.href;
  const from = document.querySelector("[data-fresh]")?.dataset.freshFrom ?? asked;
  const answer = await fetch(from, { headers: { Accept: "text/html" } }).catch(() => null);
  // Away, or logged out: the stream says so.
  if (!answer?.ok || answer.redirected) return;
  const text = await answer.text();
  const part = document.querySelector("[data-fresh]");
  const fresh = new DOMParser().parseFromString(text, "text/html").querySelector("[data-fresh]");
  if (!part || !fresh || location.href !== asked) return;
  localTimes(fresh);
  morph(part, fresh);
  refreshAges();
}
