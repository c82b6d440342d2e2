// Scales with round ticks, linear and logarithmic, and the axes drawn for them.
function linearScale(low, high, from, to) {
  const span = high - low || 1;
  const at = (value) => from + ((value - low) / span) * (to - from);
  at.back = (place) => low + ((place - from) / (to - from)) * span;
  at.ticks = (many) => {
    const raw = span / Math.max(1, many),
      base = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((k) => k * base).find((k) => k >= raw * 0.999);
    const ticks = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high * (1 + 1e-9); k += 1) ticks.push(Number((k * step).toPrecision(12)));
    return ticks;
  };
  return at;
}

function logScale(low, high, from, to) {
  const at = (value) => from + (Math.log(value / low) / Math.log(high / low || 10)) * (to - from);
  at.back = (place) => low * (high / low) ** ((place - from) / (to - from));
  at.ticks = (many) => {
    const decades = Math.log10(high / low);
    const digits = decades > many ? [1] : decades * 3 > many ? [1, 3] : [1, 2, 5];
    const ticks = [];
    for (let k = Math.floor(Math.log10(low)); k <= Math.ceil(Math.log10(high)); k += 1) {
      for (const digit of digits) {
        const value = Number((digit * 10 ** k).toPrecision(3));
        if (value >= low * 0.999 && value <= high * 1.001) ticks.push(value);
      }
    }
    return ticks.length > 1 ? ticks : linearScale(low, high, from, to).ticks(many);
  };
  return at;
}

// A scale over values with some air; logarithmic ones leave out what is not above zero.
function scaleOf(values, log, from, to, { zero = true, air = 0.06 } = {}) {
  const usable = values.filter((value) => known(value) && (!log || value > 0));
  let low = Math.min(...usable),
    high = Math.max(...usable);
  if (!usable.length) [low, high] = [log ? 0.1 : 0, 1];
  if (log) {
    const spread = Math.max((high / low) ** air, 1.08);
    return logScale(low / spread, high * spread, from, to);
  }
  const margin = (high - (zero ? 0 : low)) * air || 1;
  return linearScale(zero ? Math.min(0, low) : low - margin, high + margin, from, to);
}

const tickText = (value) =>
  value !== 0 && (Math.abs(value) >= 1e6 || Math.abs(value) < 1e-4) ? value.toExponential(0) : plain(value).replace("-", "−");

function bottomAxis(svg, scale, { left, right, y, top, label, many }) {
  svg.append(
    s("line", { class: "axis", x1: left, x2: right, y1: y, y2: y }),
    ...scale
      .ticks(many ?? Math.min(10, Math.max(3, (right - left) / 70)))
      .map((tick) =>
        s(
          "g",
          { class: "tick" },
          top === undefined ? null : s("line", { class: "grid", x1: scale(tick), x2: scale(tick), y1: top, y2: y }),
          s("text", { x: scale(tick), y: y + 17, "text-anchor": "middle" }, tickText(tick)),
        ),
      ),
  );
  if (label) svg.append(s("text", { class: "axis-label", x: right, y: y + 36, "text-anchor": "end" }, label));
}

function leftAxis(svg, scale, { left, right, label, many = 5, labelY = 12 }) {
  svg.append(
    ...scale
      .ticks(many)
      .map((tick) =>
        s(
          "g",
          { class: "tick" },
          s("line", { class: "grid", x1: left, x2: right, y1: scale(tick), y2: scale(tick) }),
          s("text", { x: left - 8, y: scale(tick) + 4, "text-anchor": "end" }, tickText(tick)),
        ),
      ),
  );
  if (label) svg.append(s("text", { class: "axis-label", x: 0, y: labelY }, label));
}
