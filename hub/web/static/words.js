// Numbers, units, durations and ages as plain words: the twin of agent/wire/words.py.
// tests/vectors/words.json holds the two against each other.

export const NONE = "–";
export const SPACE = "\u00a0";
// How a UCUM code is written where it is not written as itself.
const UNITS = {
  1: "",
  "{count}": "",
  "[ppm]": "ppm",
  "[ppb]": "ppb",
  "[pH]": "pH",
  Cel: "°C",
  "[degF]": "°F",
  "[psi]": "psi",
  "g/m3": "g/m³",
  "mg/m3": "mg/m³",
  "ug/m3": "µg/m³",
  uV: "µV",
  uA: "µA",
  "V.A": "VA",
  "W.h": "Wh",
  "kW.h": "kWh",
  "A.h": "Ah",
  "mA.h": "mAh",
  Ohm: "Ω",
  kOhm: "kΩ",
  uF: "µF",
  "uS/cm": "µS/cm",
  uT: "µT",
  "W/m2": "W/m²",
  "Bq/m3": "Bq/m³",
  "uSv/h": "µSv/h",
  um: "µm",
  "[in_i]": "in",
  "[ft_i]": "ft",
  "[lb_av]": "lb",
  m3: "m³",
  "[gal_us]": "gal",
  "m3/h": "m³/h",
  "m3/s": "m³/s",
  "[kn_i]": "kn",
  "[mi_i]/h": "mph",
  "m/s2": "m/s²",
  deg: "°",
  "deg/s": "°/s",
  us: "µs",
  By: "B",
  "By/s": "B/s",
};
const HUGE = 1e15;
const PREFIXES = ["", "k", "M", "G", "T", "P"];
const SECOND = 1000;
const MINUTE = 60_000;
const HOUR = 3_600_000;
const DAY = 86_400_000;

export function fixed(number, digits) {
  if (Math.abs(number) >= HUGE) return number.toExponential(2);
  const text = number.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text;
}

export function number(value) {
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 100_000) return String(value + 0);
  return fixed(value, size < 10 ? 2 : size < 100 ? 1 : 0);
}

export function value(value, unit) {
  if (value === null || value === undefined) return NONE;
  if (unit === "%") return joined(fixed(value, Math.abs(value) >= 10 || Number.isInteger(value) ? 0 : 1), "%");
  if (unit === "By" || unit === "By/s") return scaled(value, unit.replace("By", "B"));
  if (unit === "s") return duration(Math.round(value * 1000));
  if (unit === "Cel") return joined(fixed(value, 1), "°C");
  return joined(number(value), UNITS[unit] ?? unit);
}

function scaled(amount, unit) {
  let size = Math.abs(amount);
  let prefix = 0;
  while (size >= 999.5 && prefix < PREFIXES.length - 1) {
    size /= 1000;
    prefix += 1;
  }
  const digits = prefix === 0 || size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2;
  return joined(fixed(amount < 0 ? -size : size, digits), PREFIXES[prefix] + unit);
}

function joined(text, unit) {
  return unit ? text + SPACE + unit : text;
}

export function duration(lengthMs) {
  const length = Math.max(0, lengthMs);
  if (length < MINUTE) return `${Math.floor(length / SECOND)}${SPACE}s`;
  if (length < HOUR) return `${Math.floor(length / MINUTE)}${SPACE}min`;
  if (length < DAY) return pair(length, HOUR, "h", MINUTE, "min");
  return pair(length, DAY, "d", length < 14 * DAY ? HOUR : DAY, "h");
}

function pair(length, largeMs, large, smallMs, small) {
  const text = `${Math.floor(length / largeMs)}${SPACE}${large}`;
  const rest = length % largeMs;
  return rest >= smallMs ? `${text} ${Math.floor(rest / smallMs)}${SPACE}${small}` : text;
}

export function age(lengthMs) {
  return lengthMs < SECOND ? "now" : `${duration(lengthMs)} ago`;
}

export function every(intervalMs) {
  if (intervalMs % SECOND) return `${number(intervalMs / 1000)}${SPACE}s`;
  if (intervalMs % MINUTE) return `${intervalMs / SECOND}${SPACE}s`;
  return duration(intervalMs);
}
