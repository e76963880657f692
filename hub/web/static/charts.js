// The charts of a board's page: one plot per unit, one time axis for all, drawn by uPlot.
//
// The table below the plots is their legend: it names each line, and while the pointer is over a
// plot it says the values at that time. Where nothing came the plot is hatched, and says why where
// that is known and there is room; the sentences below the table say it in any case.

import { value as words } from "./words.js";
import { notify } from "./notice.js";
import { localTime, now } from "./times.js";

const HEIGHT = 168;
const POINTS = 400;
const MISSED = 3;
const REFRESH_MS = 30_000;
const SLIDE_MS = 5_000;
const LEAST_MS = 300_000; // as in hub/web/pages/span.py
const FONT = "12px system-ui, sans-serif";
const LOST = { "outbox-full": "lost: the board's outbox was full", lost: "lost: the board no longer has them" }; // as in hub/web/pages/facts.py

export async function startCharts(section) {
  try {
    await script(section.dataset.plotter);
    const charts = new Charts(section);
    await charts.load();
    charts.follow();
  } catch {
    section.querySelector("[data-plots]").textContent = "The charts could not be loaded. Reload the page to try again.";
  }
}

// The plotter is the largest file of all, so it comes after the first paint.
export async function script(address) {
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  await new Promise((done, fail) => {
    const element = document.createElement("script");
    element.src = address;
    element.addEventListener("load", done);
    element.addEventListener("error", fail);
    document.head.append(element);
  });
}

class Charts {
  constructor(section) {
    this.section = section;
    this.holder = section.querySelector("[data-plots]");
    this.board = section.dataset.board;
    this.fromMs = Number(section.dataset.fromMs);
    this.toMs = Number(section.dataset.toMs);
    this.following = section.dataset.following === "yes";
    this.joinedMs = Number(section.closest("[data-joined-ms]").dataset.joinedMs);
    this.rows = [...section.querySelectorAll("[data-series]")];
    this.sync = uPlot.sync("board");
    this.plots = [];
    this.series = new Map();
    this.gaps = [];
    document.addEventListener("lichen:theme", () => this.draw());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    new ResizeObserver(() => this.resize()).observe(this.holder);
  }

  async load() {
    if (!this.rows.length) return;
    const query = new URLSearchParams({ from_ms: this.fromMs, to_ms: this.toMs, points: POINTS });
    for (const row of this.rows) query.append("sensor", row.dataset.series);
    const answer = await fetch(`/api/v1/boards/${this.board}/readings?${query}`);
    if (!answer.ok) throw new Error(`the hub answered ${answer.status}`);
    const { series, gaps } = await answer.json();
    this.gaps = gaps.filter((gap) => gap.from_ms !== null && gap.to_ms !== null);
    this.series = new Map(series.map((each) => [each.sensor, { ...each, points: each.points.slice() }]));
    this.draw();
    if (!this.hovered) this.say(null);
  }

  // What is drawn stays when the hub cannot be reached; the notice at the top says so.
  async reload() {
    try {
      await this.load();
    } catch {
      notify("charts", "The charts could not be brought up to date.");
      return;
    }
    notify("charts", "");
  }

  follow() {
    if (!this.following) return;
    const lengthMs = Number(this.section.dataset.lengthMs);
    document.addEventListener("lichen:values", ({ detail }) => {
      if (detail.board === this.board) this.append(detail.values);
    });
    const slide = () => {
      this.toMs = Math.round(now());
      this.fromMs = Math.min(Math.max(this.toMs - lengthMs, this.joinedMs), this.toMs - LEAST_MS);
    };
    setInterval(() => {
      if (document.hidden || this.zoomed || this.hovered) return;
      slide();
      for (const plot of this.plots) plot.setData(this.table(plot.sensors));
    }, SLIDE_MS);
    // Points that stand for several readings cannot be appended to: ask again now and then.
    setInterval(() => {
      if (document.hidden || this.zoomed || this.hovered) return;
      if (![...this.series.values()].some((each) => each.step_ms)) return;
      slide();
      this.reload();
    }, REFRESH_MS);
  }

  append(values) {
    if (this.zoomed) return;
    for (const [sensor, [value, atMs]] of Object.entries(values)) {
      const series = this.series.get(sensor);
      if (!series || series.step_ms || value === null) continue;
      const last = series.points.at(-1);
      if (!last || atMs > last[0]) series.points.push([atMs, value, value, value, 1, 0]);
    }
    if (!this.hovered) this.say(null);
  }

  // Columns for uPlot: time, then of each sensor mean, least, most, and the mean where the time is
  // uncertain, up to the points beside it that are sure; null where a line must break.
  table(sensors) {
    const tables = sensors.map((sensor) => {
      const { points, step_ms: stepMs, every_ms: everyMs } = this.series.get(sensor);
      const limit = MISSED * Math.max(stepMs, everyMs);
      const columns = [[], [], [], [], []];
      points.forEach(([atMs, low, mean, high, , uncertain], index) => {
        const before = index ? points[index - 1][0] : atMs;
        if (atMs - before > limit || (!stepMs && this.isLost(before, atMs))) push(columns, (before + 1) / 1000, null, null, null, null);
        const besides = points[index - 1]?.[5] || points[index + 1]?.[5];
        push(columns, atMs / 1000, uncertain ? null : mean, low, high, uncertain || besides ? mean : null);
      });
      return columns;
    });
    return uPlot.join(
      tables,
      tables.map(() => [1, 1, 1, 1, 1]),
    );
  }

  // Whether the board had readings between two times, and lost them.
  isLost(fromMs, toMs) {
    return this.gaps.some((gap) => gap.from_ms >= fromMs && gap.to_ms <= toMs && toMs > fromMs);
  }

  // Why nothing came, in words; empty when the hub does not know.
  reason(fromMs, toMs) {
    const found = this.gaps.filter((gap) => gap.from_ms < toMs && gap.to_ms > fromMs);
    const count = found.reduce((sum, gap) => sum + gap.count, 0);
    return count ? `${count.toLocaleString()} ${LOST[found[0].reason] ?? found[0].reason}` : "";
  }

  // From when to when nothing came of any of these sensors, in seconds.
  holes(sensors) {
    const times = sensors
      .flatMap((sensor) => this.series.get(sensor).points.map((point) => point[0]))
      .sort((one, other) => one - other);
    const limit = MISSED * Math.max(...sensors.map((sensor) => Math.max(this.series.get(sensor).step_ms, this.series.get(sensor).every_ms)));
    // Before a sensor was there nothing is missing.
    const since = Math.min(...sensors.map((sensor) => this.series.get(sensor).since_ms ?? times[0] ?? this.fromMs));
    const edges = [Math.max(this.fromMs, this.joinedMs, since), ...times, Math.min(this.toMs, now())];
    const holes = [];
    const isSingle = sensors.every((sensor) => !this.series.get(sensor).step_ms);
    edges.forEach((atMs, index) => {
      const before = index ? edges[index - 1] : atMs;
      if (atMs - before > limit || (isSingle && this.isLost(before, atMs))) holes.push([before / 1000, atMs / 1000]);
    });
    return holes;
  }

  draw() {
    for (const plot of this.plots) plot.destroy();
    this.holder.replaceChildren();
    const units = new Map();
    for (const row of this.rows) {
      if (!this.series.has(row.dataset.series)) continue;
      units.set(row.dataset.unit, [...(units.get(row.dataset.unit) ?? []), row]);
    }
    const last = [...units.keys()].at(-1);
    const points = [...this.series.values()].flatMap((each) => each.points);
    this.section.querySelector("[data-uncertain]").hidden = !points.some((point) => point[5]);
    this.plots = [...units].map(([unit, rows]) => this.plot(unit, rows, unit === last));
  }

  plot(unit, rows, last) {
    const sensors = rows.map((row) => row.dataset.series);
    const ink = this.colour("--soft");
    const line = this.colour("--line");
    const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { show: false }, font: FONT };
    const title = document.createElement("h3");
    title.textContent = rows.map((row) => row.dataset.label).join(", ");
    this.holder.append(title);
    const options = {
      width: this.holder.clientWidth,
      height: last ? HEIGHT + 22 : HEIGHT,
      legend: { show: false },
      padding: [8, 20, last ? 0 : 8, 0],
      cursor: { sync: { key: this.sync.key, setSeries: false }, drag: { x: true, y: false, setScale: false }, y: false, points: { size: 7 } },
      scales: {
        x: { time: true, range: () => [this.fromMs / 1000, this.toMs / 1000] },
        y: { range: unit === "%" ? [0, 100] : (plot, low, high) => yRange(low, high) },
      },
      axes: [
        { ...axis, size: last ? 28 : 0, space: 72, values: (plot, splits, index, space, step) => splits.map((at) => (last ? tick(at * 1000, step) : "")) },
        { ...axis, size: 68, space: 36, values: (plot, splits) => splits.map((split) => words(split, unit)) },
      ],
      series: [{}],
      bands: [],
      hooks: {
        drawClear: [(plot) => this.hatch(plot, sensors)],
        setCursor: [(plot) => this.hover(plot)],
        setSelect: [(plot) => this.zoom(plot)],
      },
    };
    for (const row of rows) {
      const colour = getComputedStyle(row.querySelector(".swatch")).color;
      const at = options.series.length;
      const band = { stroke: "transparent", width: 0, points: { show: false } };
      const mean = { stroke: colour, width: 1.5, points: { show: false } };
      options.series.push(mean, { ...band }, { ...band }, { ...mean, dash: [2, 4] });
      options.bands.push({ series: [at + 2, at + 1], fill: faint(colour) });
    }
    const plot = new uPlot(options, this.table(sensors), this.holder);
    plot.sensors = sensors;
    plot.root.setAttribute("role", "img");
    plot.root.setAttribute("aria-label", `${title.textContent}: the table below has the figures`);
    return plot;
  }

  hatch(plot, sensors) {
    const { ctx } = plot;
    const { left, top, width, height } = plot.bbox;
    ctx.save();
    ctx.strokeStyle = this.colour("--hatch");
    ctx.lineWidth = 1;
    for (const [from, to] of this.holes(sensors)) {
      const begin = Math.max(left, plot.valToPos(from, "x", true));
      const end = Math.min(left + width, plot.valToPos(to, "x", true));
      if (end - begin < 1) continue;
      ctx.save();
      ctx.beginPath();
      ctx.rect(begin, top, end - begin, height);
      ctx.clip();
      ctx.beginPath();
      for (let x = begin - height; x < end; x += 9) {
        ctx.moveTo(x, top + height);
        ctx.lineTo(x + height, top);
      }
      ctx.stroke();
      ctx.restore();
      this.explain(ctx, this.reason(from * 1000, to * 1000), begin, end, top);
    }
    ctx.restore();
  }

  // A reason at the top of a hatched stretch, where it fits.
  explain(ctx, text, begin, end, top) {
    if (!text) return;
    const scale = devicePixelRatio;
    ctx.font = FONT.replace("12px", `${12 * scale}px`);
    const width = ctx.measureText(text).width + 8 * scale;
    if (width > end - begin) return;
    ctx.fillStyle = this.colour("--paper");
    ctx.fillRect(begin + 2, top + 2, width, 18 * scale);
    ctx.fillStyle = this.colour("--soft");
    ctx.textBaseline = "middle";
    ctx.fillText(text, begin + 2 + 4 * scale, top + 2 + 9 * scale);
  }

  hover(plot) {
    const { idx, left } = plot.cursor;
    this.hovered = left >= 0 && idx !== null && idx !== undefined;
    this.say(this.hovered ? plot.posToVal(left, "x") * 1000 : null);
  }

  // The values at a time, or the last ones, in the table.
  say(at) {
    const head = this.section.querySelector("[data-at]");
    head.textContent = at === null ? head.dataset.at : `At ${localTime(at, this.toMs - this.fromMs > 86_400_000 ? "short" : "clock")}`;
    for (const row of this.rows) {
      const cell = row.querySelector("[data-value-at]");
      const series = this.series.get(row.dataset.series);
      if (!series) continue;
      const point = at === null ? series.points.at(-1) : nearest(series, at);
      cell.textContent = words(point?.[2] ?? null, row.dataset.unit);
      if (at === null) this.summarise(row, series.points.filter((each) => each[0] >= this.fromMs));
    }
  }

  // Least, mean and most of what is drawn, as hub/web/pages/values.py has them.
  summarise(row, points) {
    const put = (name, value) => {
      row.querySelector(`[data-${name}]`).textContent = words(value, row.dataset.unit);
    };
    let [low, sum, count, high] = [Infinity, 0, 0, -Infinity];
    for (const [, least, mean, most, readings] of points) {
      low = Math.min(low, least);
      high = Math.max(high, most);
      sum += mean * readings;
      count += readings;
    }
    put("low", count ? low : null);
    put("mean", count ? sum / count : null);
    put("high", count ? high : null);
  }

  zoom(plot) {
    const { left, width } = plot.select;
    if (width < 8) return;
    this.fromMs = Math.round(plot.posToVal(left, "x") * 1000);
    this.toMs = Math.round(plot.posToVal(left + width, "x") * 1000);
    this.zoomed = true;
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    const address = new URL(location.href);
    address.searchParams.delete("range");
    address.searchParams.set("from_ms", this.fromMs);
    address.searchParams.set("to_ms", this.toMs);
    history.replaceState(null, "", address);
    for (const link of this.section.querySelectorAll(".ranges [aria-current]")) link.removeAttribute("aria-current");
    this.reload();
  }

  resize() {
    for (const plot of this.plots) plot.setSize({ width: this.holder.clientWidth, height: plot.height });
  }

  // A custom property as a colour that a canvas understands.
  colour(name) {
    this.holder.style.setProperty("color", `var(${name})`);
    const { color } = getComputedStyle(this.holder);
    this.holder.style.removeProperty("color");
    return color;
  }
}

function push(columns, ...cells) {
  columns.forEach((column, index) => column.push(cells[index]));
}

export function yRange(low, high) {
  if (low === null || high === null) return [0, 1];
  if (low === high) return [low - Math.max(1, Math.abs(low) * 0.05), high + Math.max(1, Math.abs(high) * 0.05)];
  return [low >= 0 && low - (high - low) * 0.1 < 0 ? 0 : low - (high - low) * 0.1, high + (high - low) * 0.1];
}

function nearest({ points, step_ms: stepMs, every_ms: everyMs }, atMs) {
  let best = null;
  for (const point of points) {
    if (!best || Math.abs(point[0] - atMs) < Math.abs(best[0] - atMs)) best = point;
  }
  return best && Math.abs(best[0] - atMs) <= MISSED * Math.max(stepMs, everyMs) ? best : null;
}

export function tick(atMs, stepS) {
  const options = stepS >= 28 * 86_400 ? { month: "short", year: "numeric" } : stepS >= 86_400 ? { day: "numeric", month: "short" } : stepS >= 60 ? { hour: "2-digit", minute: "2-digit" } : { hour: "2-digit", minute: "2-digit", second: "2-digit" };
  return new Intl.DateTimeFormat(undefined, options).format(atMs);
}

export function faint(colour) {
  return `color-mix(in srgb, ${colour} 18%, transparent)`;
}
