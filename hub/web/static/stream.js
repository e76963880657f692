// A stream of server-sent events that a page follows while it can be seen, and what is said when it is cut.
//
// The stream is closed while the page is hidden: browsers allow six connections per hub, tabs share them.
// Whatever it tells begins with the full state, so nothing is remembered between two connections.

import { notify } from "./notice.js";
import { localTime, now } from "./times.js";

const SHOWN_AFTER_MS = 1500;
const AGAIN_AFTER_MS = 5000;

export class Stream {
  // `name` is that of its line in the bar at the top; `listeners` are by event, and get what it said.
  constructor(name, listeners) {
    this.name = name;
    this.listeners = listeners;
    this.address = "";
    this.source = null;
    this.lostAtMs = null;
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) this.close();
      else if (this.address && !this.source) this.open();
    });
  }

  // Follow what is at this address, empty: nothing.
  follow(address) {
    if (address === this.address && this.source) return;
    this.close();
    this.address = address;
    if (address && !document.hidden) this.open();
  }

  open() {
    this.source = new EventSource(this.address);
    this.source.addEventListener("open", () => this.found());
    this.source.addEventListener("error", () => this.lost());
    for (const [event, listener] of Object.entries(this.listeners)) {
      this.source.addEventListener(event, ({ data }) => listener(JSON.parse(data)));
    }
  }

  close() {
    this.source?.close();
    this.source = null;
    clearTimeout(this.again);
  }

  found() {
    clearTimeout(this.showing);
    this.lostAtMs = null;
    notify(this.name, "");
  }

  lost() {
    if (this.lostAtMs === null) {
      this.lostAtMs = now();
      // Leaving a page ends its stream too; that is nothing to speak of.
      this.showing = setTimeout(() => this.sayLost(), SHOWN_AFTER_MS);
    }
    // The browser tries again by itself, unless the hub answered with something else than a stream.
    if (this.source?.readyState === EventSource.CLOSED) {
      this.close();
      this.again = setTimeout(() => this.reopen(), AGAIN_AFTER_MS);
    }
  }

  sayLost() {
    const since = localTime(this.lostAtMs, "clock");
    notify(this.name, `Not connected to the hub since ${since}. Reconnecting; what you see is from then.`);
  }

  async reopen() {
    try {
      const answer = await fetch("/api/v1/me");
      if (answer.status === 401) {
        return notify(this.name, "You are logged out. Reload the page to log in again.");
      }
    } catch {
      // The hub cannot be reached: the stream will find out by itself when it can.
    }
    if (!document.hidden && !this.source) this.open();
  }
}
