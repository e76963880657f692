// The charts of what was used: processors, memory and network, one line for each of the first rows of
// the table below, which is their legend and has the sums. Drawn by uPlot from the API's sums.

import { faint, script, tick, yRange } from "./charts.js";
import { value as words } from "./words.js";
import { notify } from "./notice.js";

const HEIGHT = 168;
const POINTS = 240;
const FONT = "12px system-ui, sans-serif";
const CPU_US = 2;
const MEM_BYTE_MS = 3;
const NET_RX = 6;
const NET_TX = 7;

// Each takes a point and its width in ms; null where nothing was counted.
const MEASURES = [
  ["Processors in use", (point, stepMs) => over(point[CPU_US], stepMs * 1000), (value) => value.toLocaleString(undefined, { maximumSignificantDigits: 3 })],
  ["Memory in use", (point, stepMs) => over(point[MEM_BYTE_MS], stepMs), (value) => words(value, "By")],
  ["Network, in and out", (point, stepMs) => over(sum(point[NET_RX], point[NET_TX]), stepMs / 1000), (value) => words(value, "By/s")],
];

export async function startUsage(section) {
  const holder = section.querySelector("[data-plots]");
  if (!holder) return;
  const rows = [...section.querySelectorAll("[data-series]")];
  let answer;
  try {
    await script(section.dataset.plotter);
    const query = new URLSearchParams({ from_ms: section.dataset.fromMs, to_ms: section.dataset.toMs, points: POINTS });
    const response = await fetch(`${section.dataset.source}&${query}`);
    if (!response.ok) throw new Error(`the hub answered ${response.status}`);
    answer = await response.json();
  } catch {
    holder.textContent = "The charts could not be loaded. Reload the page to try again.";
    return;
  }
  notify("usage", "");
  let plots = [];
  const draw = () => {
    for (const plot of plots) plot.destroy();
    holder.replaceChildren();
    plots = MEASURES.map((measure, index) => plotOf(holder, rows, answer, measure, index === MEASURES.length - 1)).filter(Boolean);
  };
  draw();
  document.addEventListener("lichen:theme", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  new ResizeObserver(() => plots.forEach((plot) => plot.setSize({ width: holder.clientWidth, height: plot.height }))).observe(holder);
}

function plotOf(holder, rows, answer, [name, measure, say], last) {
  const { step_ms: stepMs, from_ms: fromMs, to_ms: toMs } = answer;
  const series = new Map(answer.series.map((each) => [each.key, each.points]));
  const tables = rows.map((row) => columnsOf(series.get(row.dataset.series) ?? [], measure, answer));
  if (!tables.some(([, values]) => values.some((value) => value !== null))) return null;
  const title = document.createElement("h3");
  title.textContent = name;
  holder.append(title);
  const ink = colour(holder, "--soft");
  const axis = { stroke: ink, grid: { stroke: colour(holder, "--line"), width: 1 }, ticks: { show: false }, font: FONT };
  const lines = rows.map((row) => {
    const stroke = getComputedStyle(row.querySelector(".swatch")).color;
    return { stroke, fill: rows.length === 1 ? faint(stroke) : undefined, width: 1.5, points: { show: stepMs * 40 > toMs - fromMs, size: 4 }, paths: uPlot.paths.stepped({ align: 1 }) };
  });
  const options = {
    width: holder.clientWidth,
    height: last ? HEIGHT + 22 : HEIGHT,
    legend: { show: false },
    padding: [8, 20, last ? 0 : 8, 0],
    cursor: { sync: { key: "usage", setSeries: false }, drag: { x: true, y: false, setScale: false }, y: false, points: { size: 7 } },
    scales: { x: { time: true, range: () => [fromMs / 1000, toMs / 1000] }, y: { range: (plot, low, high) => yRange(Math.min(0, low ?? 0), high) } },
    axes: [
      { ...axis, size: last ? 28 : 0, space: 72, values: (plot, splits, index, space, step) => splits.map((at) => (last ? tick(at * 1000, step) : "")) },
      { ...axis, size: 68, space: 36, values: (plot, splits) => splits.map(say) },
    ],
    series: [{}, ...lines],
    hooks: { setSelect: [zoom] },
  };
  const plot = new uPlot(options, uPlot.join(tables, tables.map(() => [1])), holder);
  plot.root.setAttribute("role", "img");
  plot.root.setAttribute("aria-label", `${name}: the table below has the sums`);
  return plot;
}

// Time and value of each point; a line ends where there is no record, and each reaches to the next.
// At the ends of the range a point is about less than its width, and about too little to say anything.
function columnsOf(points, measure, { step_ms: stepMs, from_ms: fromMs, to_ms: toMs }) {
  const columns = [[], []];
  points.forEach((point, index) => {
    columns[0].push(point[0] / 1000);
    const widthMs = Math.min(point[0] + stepMs, toMs) - Math.max(point[0], fromMs);
    columns[1].push(widthMs < stepMs / 4 ? null : measure(point, widthMs));
    const next = points[index + 1]?.[0];
    if (next !== point[0] + stepMs) {
      columns[0].push((point[0] + stepMs) / 1000);
      columns[1].push(null);
    }
  });
  return columns;
}

// A stretch that was chosen is a page of its own, whose sums are those of the stretch.
function zoom(plot) {
  const { left, width } = plot.select;
  if (width < 8) return;
  const address = new URL(location.href);
  address.searchParams.delete("range");
  address.searchParams.set("from_ms", Math.round(plot.posToVal(left, "x") * 1000));
  address.searchParams.set("to_ms", Math.round(plot.posToVal(left + width, "x") * 1000));
  location.assign(address);
}

function over(amount, length) {
  return amount === null ? null : amount / length;
}

function sum(one, other) {
  return one === null && other === null ? null : (one ?? 0) + (other ?? 0);
}

// A custom property as a colour that a canvas understands.
function colour(holder, name) {
  holder.style.setProperty("color", `var(${name})`);
  const { color } = getComputedStyle(holder);
  holder.style.removeProperty("color");
  return color;
}
