// Two results side by side: first what differs between their settings, then their numbers with the difference and its interval.
function compareView(a, b) {
  const options = (chosen) =>
    [...ROWS.values()].map((row) =>
      h("option", { value: row.run_id, selected: row.run_id === chosen }, `${title(row)} · ${row.run_id.slice(-6)}`),
    );
  const select = (name, chosen) =>
    h(
      "label",
      { class: `side ${name}` },
      h("b", null, name.toUpperCase()),
      h("select", { "data-side": name, onchange: (event) => go({ [name]: event.target.value, view: "compare" }) }, options(chosen)),
    );
  return [
    h(
      "section",
      { class: "hero" },
      h("h1", null, "A beside B"),
      h("div", { class: "sides" }, select("a", a.run_id), select("b", b.run_id)),
      differenceSentence(a, b),
    ),
    panel("What differs", "Of the setting and the load. The rest is equal.", differencesTable(a, b), "wide"),
    panel(
      "Energy and throughput",
      "B against A, as a share of A. Bars are 95 % intervals of the difference: both intervals as of independent runs (MOVER), and " +
        `±${percent(DATA.run_to_run)} for what differs from run to run. perjoule compare pairs requests and repeats, and is surer.`,
      [forest(a, b), metricsCompared(a, b)],
      "wide",
    ),
    panel("Latency and lengths", "", distributionsCompared(a, b), "wide"),
  ];
}

// Newcombe's interval of a difference, from the intervals of two independent estimates; and by how much runs of one thing differ, as a share.
function differenceOf(a, b, between = DATA.run_to_run) {
  if (!known(a?.value) || !known(b?.value)) return null;
  const difference = b.value - a.value;
  if (![a.low, a.high, b.low, b.high].every(known)) return { difference, low: null, high: null };
  return {
    difference,
    low: difference - Math.hypot(b.value - b.low, a.high - a.value, between * a.value),
    high: difference + Math.hypot(b.high - b.value, a.value - a.low, between * a.value),
  };
}

function differenceSentence(a, b) {
  const one = a.metrics.energy_per_output_token,
    other = b.metrics.energy_per_output_token,
    found = differenceOf(one, other);
  if (!found) return null;
  const bounded = known(found.low),
    sure = bounded && (found.low > 0 || found.high < 0);
  const share = found.difference / one.value;
  const within = bounded ? ` (95 %: ${signed(found.low / one.value)} to ${signed(found.high / one.value)})` : "";
  return h(
    "p",
    { class: "lead" },
    bounded && !sure
      ? `No difference in joules per output token can be told${within}.`
      : `B takes ${percent(Math.abs(share))} ${share > 0 ? "more" : "less"} energy per output token than A${within}.`,
  );
}

function differing(a, b) {
  const both = (one) => ({
    ...one.setting,
    ...Object.fromEntries(Object.entries(one.load).map(([key, value]) => [`load: ${key}`, value])),
  });
  const [left, right] = [both(a), both(b)];
  const keys = [...new Set([...Object.keys(left), ...Object.keys(right)])];
  const different = keys.filter((key) => JSON.stringify(left[key] ?? null) !== JSON.stringify(right[key] ?? null));
  return { left, right, different, equal: keys.filter((key) => !different.includes(key) && said(left[key]) !== NONE) };
}

function differencesTable(a, b) {
  const { left, right, different, equal } = differing(a, b);
  const rest = h(
    "details",
    null,
    h("summary", null, `${plural(equal.length, "setting is", "settings are")} equal`),
    settingTable(Object.fromEntries(equal.map((key) => [key, left[key]]))),
  );
  if (!different.length) return [h("p", { class: "good" }, "Nothing: these two ran under the same setting and load."), rest];
  return [
    h(
      "div",
      { class: "scroll" },
      h(
        "table",
        { class: "plain differs" },
        h(
          "thead",
          null,
          h(
            "tr",
            null,
            h("th", { scope: "col", class: "text" }, "Setting"),
            h("th", { scope: "col", class: "text" }, "A"),
            h("th", { scope: "col", class: "text" }, "B"),
          ),
        ),
        h(
          "tbody",
          null,
          different.map((key) =>
            h(
              "tr",
              null,
              h("th", { scope: "row" }, readable(key)),
              h("td", { class: "text" }, said(left[key])),
              h("td", { class: "text" }, said(right[key])),
            ),
          ),
        ),
      ),
    ),
    rest,
  ];
}

const metricPairs = (a, b) =>
  Object.keys(a.metrics)
    .filter((key) => b.metrics[key])
    .map((key) => ({ key, one: a.metrics[key], other: b.metrics[key], found: differenceOf(a.metrics[key], b.metrics[key]) }));

function metricsCompared(a, b) {
  return h(
    "div",
    { class: "scroll" },
    h(
      "table",
      { class: "plain compared" },
      h(
        "thead",
        null,
        h(
          "tr",
          null,
          ["Metric", "A", "B", "B − A", "95 % interval", ""].map((name, at) => h("th", { scope: "col", class: at ? "" : "text" }, name)),
        ),
      ),
      h(
        "tbody",
        null,
        metricPairs(a, b).map(({ key, one, other, found }) =>
          h(
            "tr",
            { "data-metric": key },
            h("td", { class: "text" }, formulaName(key, one.formula)),
            h("td", null, valueText(one.value, one.unit)),
            h("td", null, valueText(other.value, other.unit)),
            h("td", { class: "strong" }, found && known(one.value) && one.value ? signed(found.difference / Math.abs(one.value)) : NONE),
            h(
              "td",
              null,
              found && known(found.low) && one.value
                ? `${signed(found.low / Math.abs(one.value))} to ${signed(found.high / Math.abs(one.value))}`
                : NONE,
            ),
            h(
              "td",
              { class: "text muted" },
              found && known(found.low) ? (found.low > 0 || found.high < 0 ? "differs" : "no difference told") : "",
            ),
          ),
        ),
      ),
    ),
  );
}

// The relative differences that have an interval, around zero.
function forest(a, b) {
  const pairs = metricPairs(a, b).filter(({ one, found }) => found && known(found.low) && one.value > 0);
  if (!pairs.length) return null;
  return drawing("Relative differences with 95 % intervals", pairs.length * 30 + 46, (svg, width, height) => {
    const left = Math.min(190, width * 0.42),
      right = width - 24,
      bottom = height - 36;
    const shares = pairs.flatMap(({ one, found }) => [found.low / one.value, found.high / one.value, 0]);
    const x = scaleOf(
      shares.map((share) => share * 100),
      false,
      left,
      right,
      { zero: false, air: 0.05 },
    );
    bottomAxis(svg, x, { left, right, y: bottom, top: 6, label: "B against A (%)", many: Math.max(2, (right - left) / 90) });
    svg.append(s("line", { class: "zero", x1: x(0), x2: x(0), y1: 6, y2: bottom }));
    pairs.forEach(({ key, one, found }, at) => {
      const y = 22 + at * 30,
        place = (value) => x((value / one.value) * 100),
        sure = found.low > 0 || found.high < 0;
      svg.append(
        s("text", { class: "forest-name", x: left - 12, y: y + 4, "text-anchor": "end" }, readable(key, true)),
        s("line", { class: `forest ${sure ? "sure" : ""}`, x1: place(found.low), x2: place(found.high), y1: y, y2: y }),
        s("circle", { class: `forest-dot ${sure ? "sure" : ""}`, cx: place(found.difference), cy: y, r: 4.5 }),
      );
    });
  });
}

function distributionsCompared(a, b) {
  const there = Object.keys(a.distributions ?? {}).filter((key) => b.distributions?.[key]);
  const shown = ["p50", "p95", "p99"];
  return h(
    "div",
    { class: "scroll" },
    h(
      "table",
      { class: "plain compared" },
      h(
        "thead",
        null,
        h(
          "tr",
          null,
          h("th", { scope: "col", class: "text" }, "What"),
          shown.map((p) => ["A", "B", "B − A"].map((side) => h("th", { scope: "col" }, `${ordinal(p)} ${side}`))),
        ),
      ),
      h(
        "tbody",
        null,
        there.map((key) =>
          h(
            "tr",
            null,
            h("td", { class: "text" }, formulaName(key, a.distributions[key].formula), h("small", null, a.distributions[key].unit ?? "")),
            shown.map((p) => {
              const [one, other] = [a.distributions[key][p], b.distributions[key][p]];
              return [
                h("td", null, num(one)),
                h("td", null, num(other)),
                h("td", { class: "strong" }, known(one) && known(other) && one ? signed((other - one) / Math.abs(one)) : NONE),
              ];
            }),
          ),
        ),
      ),
    ),
  );
}
