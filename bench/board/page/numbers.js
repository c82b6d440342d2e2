// Numbers as people read them: three significant digits, whole from a hundred on, thin spaces before units.
const NONE = "–";
const known = (value) => typeof value === "number" && Number.isFinite(value);

function num(value, digits = 3) {
  if (!known(value)) return NONE;
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-4) return value.toExponential(digits - 1);
  const whole = Math.floor(Math.log10(size * 1.0005)) + 1;
  if (whole >= digits) return value.toLocaleString("en", { maximumFractionDigits: 0 });
  return value.toLocaleString("en", { minimumSignificantDigits: digits, maximumSignificantDigits: digits });
}

const plain = (value) => (known(value) ? value.toLocaleString("en", { maximumSignificantDigits: 6 }) : NONE);
const count = (value) => (known(value) ? value.toLocaleString("en") : NONE);

const SCALES = {
  J: [
    [1e9, "GJ"],
    [1e6, "MJ"],
    [1e3, "kJ"],
    [1, "J"],
    [1e-3, "mJ"],
    [1e-6, "µJ"],
  ],
  W: [
    [1e6, "MW"],
    [1e3, "kW"],
    [1, "W"],
    [1e-3, "mW"],
  ],
  ms: [
    [60e3, "min"],
    [1e3, "s"],
    [1, "ms"],
    [1e-3, "µs"],
  ],
  s: [
    [3600, "h"],
    [1, "s"],
    [1e-3, "ms"],
  ],
};

// A value with a unit of its size; the scale may be another value's, so that both have the same unit.
function withUnit(value, unit, like = value, digits = 3) {
  if (!known(value)) return NONE;
  if (unit?.startsWith("1/")) return `${num(value, digits)} ${unit.slice(1)}`; // 1/s is said "a second"
  const scales = SCALES[unit];
  if (!scales || value === 0 || !known(like) || like === 0) return unit ? `${num(value, digits)} ${unit}` : num(value, digits);
  const [size, name] = scales.find(([size]) => Math.abs(like) >= size * 0.9995) ?? scales.at(-1);
  return `${num(value / size, digits)} ${name}`;
}

// With as many digits as it takes to tell its ends apart, six at most.
function interval(low, high, unit, like) {
  if (!known(low) || !known(high)) return "";
  const apart = Math.abs(high - low) / Math.max(Math.abs(high), Math.abs(low));
  const digits = apart > 0 ? Math.max(3, Math.min(6, Math.ceil(-Math.log10(apart)) + 1)) : 3;
  if (!unit) return `${num(low, digits)} to ${num(high, digits)}`;
  return `${withUnit(low, unit, like, digits).replace(/ \S+$/, "")} to ${withUnit(high, unit, like, digits)}`;
}

const percent = (share, digits = 2) =>
  !known(share)
    ? NONE
    : `${(share * 100).toLocaleString("en", { maximumSignificantDigits: Math.abs(share) >= 1 ? 3 : digits })} %`.replace("-", "−");
const signed = (share) => (!known(share) ? NONE : `${share > 0 ? "+" : ""}${percent(share)}`);

const ordinal = (p) => (p === "p50" ? "median" : p);

function dateText(date) {
  const when = new Date(date);
  return Number.isNaN(when.getTime()) ? String(date ?? NONE) : when.toISOString().replace("T", " ").slice(0, 16) + " UTC";
}

const plural = (many, one, more = `${one}s`) => `${count(many)} ${many === 1 ? one : more}`;
const listed = (words) => (words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`);
const shortModel = (id) =>
  String(id ?? "unknown model")
    .split("/")
    .at(-1);
const UNITS = { j: "J", w: "W", ms: "ms", s: "s", rps: "req/s" };
const NAMES = {
  ttfb: "time to first byte",
  ttft: "time to first token",
  icl: "time between chunks",
  tpot: "time per output token",
  e2e: "end to end",
  ntpot: "end to end per output token",
  ttft_intended: "time to first token, from when it was due",
  e2e_intended: "end to end, from when it was due",
  num_gpus: "GPUs",
};
// What a field is called in words, its unit in brackets; of a number that shows its unit, without.
const readable = (key, bare = false) =>
  NAMES[key] ??
  key
    .replace(/_(j|w|ms|s|rps)$/, (_, unit) => (bare ? "" : ` (${UNITS[unit]})`))
    .replace(/_/g, " ")
    .replace(/\bgpu\b/, "GPU")
    .replace(/\bid\b/, "ID");
