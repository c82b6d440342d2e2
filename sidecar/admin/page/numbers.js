// Numbers as people read them: three significant digits, whole from a hundred on. What is not known is a dash, never a nought.
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

const count = (value) => (known(value) ? value.toLocaleString("en") : NONE);
const plural = (many, one, more = `${one}s`) => `${count(many)} ${many === 1 ? one : more}`;
const percent = (share) => (known(share) ? `${share > 0 && share < 0.01 ? "<1" : share > 0.99 && share < 1 ? ">99" : Math.round(share * 100)} %` : NONE);

const SCALES = {
  J: [
    [1e9, "GJ"],
    [1e6, "MJ"],
    [1e3, "kJ"],
    [1e-2, "J", 1],
    [1e-3, "mJ"],
  ],
  W: [
    [1e6, "MW"],
    [1e4, "kW", 1e3],
    [1, "W"],
    [1e-3, "mW"],
  ],
  ms: [
    [60e3, "min"],
    [1e3, "s"],
    [1, "ms"],
    [1e-3, "µs"],
  ],
};

function withUnit(value, unit, digits = 3) {
  if (!known(value)) return NONE;
  const found = value === 0 ? null : (SCALES[unit].find(([size]) => Math.abs(value) >= size * 0.9995) ?? SCALES[unit].at(-1));
  return found ? `${num(value / (found[2] ?? found[0]), digits)} ${found[1]}` : `0 ${unit}`;
}

// Whole microjoules come as text, since they may be more than a number holds.
const exact = (text) => BigInt(text).toLocaleString("en");
const joulesOf = (text) => Number(text) / 1e6;

function ago(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

const shortName = (name) => name.split("/").at(-1) || name;
