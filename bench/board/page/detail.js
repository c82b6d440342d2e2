// One result, whole: the verdict, the numbers with their formulas, where the joules went, the run over time, the setting.
function detailView(result) {
  const row = ROWS.get(result.run_id);
  return [
    h(
      "section",
      { class: "hero" },
      h("h1", null, shortModel(row.model_id)),
      h("p", { class: "lead" }, [machine(row), row.load, row.workload].filter(Boolean).join(" · ")),
      h(
        "p",
        { class: "muted" },
        [row.name, dateText(row.date), result.perjoule && `perjoule ${result.perjoule}`, `run ${row.run_id.slice(0, 13)}`]
          .filter(Boolean)
          .join(" · "),
      ),
      verdict(result),
    ),
    h("section", { class: "tiles", "aria-label": "Key numbers" }, tiles(result, row)),
    panel("Over time", "Mean power of the whole group of GPUs, and how many requests were in flight.", timelineChart(result), "wide"),
    h(
      "div",
      { class: "pair" },
      panel("Requests", "What the answers really cost, one by one, and how long they were.", histogramSection(result)),
      panel("Where the joules went", "Of the whole run, from its first reading of the counter to its last.", [
        closureSection(result),
        h("h3", null, "Outcomes"),
        outcomesSection(result),
      ]),
    ),
    h(
      "div",
      { class: "pair" },
      panel("Metrics", "Open a name for its formula.", metricsTable(result)),
      panel("Latency and lengths", "Open a name for its formula.", distributionsTable(result)),
    ),
    h(
      "div",
      { class: "pair" },
      panel("Setting", "What must be equal for two runs to be comparable.", settingTable({ ...result.setting })),
      h(
        "div",
        { class: "stack" },
        panel("Load and client", "", settingTable({ ...result.load, objectives: result.objectives, ...result.client })),
        panel("Workload", "", workloadPart(result)),
        panel("Windows", "Energy and tokens between two moments.", windowsTable(result)),
      ),
    ),
  ];
}

const panel = (name, about, content, more = "") =>
  h("section", { class: `panel ${more}` }, h("h2", null, name), about && h("p", { class: "about" }, about), content);

function verdict(result) {
  const list = (found) =>
    h(
      "ul",
      null,
      found.map((reason) => h("li", null, reason.text ?? reason.code, reason.text && h("code", null, reason.code))),
    );
  const { reasons = [], warnings = [] } = result;
  return h(
    "div",
    { class: `verdict ${result.valid ? "good" : "bad"}` },
    h("b", null, result.valid ? "Valid" : "Not valid"),
    result.partial && h("span", { class: "chip" }, "broken off: the numbers are of what was done"),
    SIMULATED.has(result.setting.energy_status) && h("span", { class: "chip bad" }, `joules are ${result.setting.energy_status}`),
    reasons.length > 0 && list(reasons),
    warnings.length > 0 && [h("p", { class: "about" }, "Worth knowing:"), list(warnings)],
  );
}

function tiles(result, row) {
  const tile = (name, value, below, strong) =>
    h(
      "div",
      { class: strong ? "tile strong" : "tile" },
      h("span", { class: "name" }, name),
      h("b", null, value),
      h("small", null, below || " "),
    );
  const response = result.metrics.energy_per_response ?? {};
  return [
    tile(
      "per output token",
      withUnit(row.energy_per_output_token_j, "J"),
      known(row.energy_per_output_token_low_j) &&
        `95 %: ${interval(row.energy_per_output_token_low_j, row.energy_per_output_token_high_j, "J", row.energy_per_output_token_j)}`,
      true,
    ),
    tile(
      "per response",
      withUnit(row.energy_per_response_j, "J"),
      known(response.low) && `95 %: ${interval(response.low, response.high, "J", row.energy_per_response_j)}`,
      true,
    ),
    tile("inter-token latency", withUnit(row.p50_itl_ms, "ms"), `p99 ${withUnit(row.p99_itl_ms, "ms")}`),
    tile("time to first token", withUnit(row.p50_ttft_ms, "ms"), `p99 ${withUnit(row.p99_ttft_ms, "ms")}`),
    tile("output tokens a second", num(row.output_tokens_per_s), `${plural(result.outcomes?.completed ?? 0, "answer")} complete`),
    tile("average power", withUnit(row.avg_power_w, "W"), known(row.steady_s) ? `steady for ${num(row.steady_s)} s` : "no steady window"),
  ];
}

// A name that opens to its formula.
function formulaName(key, formula) {
  const text = DATA.formulas[formula];
  return formula
    ? h(
        "details",
        null,
        h("summary", { title: text ?? formula }, readable(key, true)),
        h("p", null, text ?? "", " ", h("code", null, formula)),
      )
    : readable(key, true);
}

function metricsTable(result) {
  return h(
    "div",
    { class: "scroll" },
    h(
      "table",
      { class: "plain metrics" },
      h(
        "thead",
        null,
        h(
          "tr",
          null,
          h("th", { scope: "col", class: "text" }, "Metric"),
          h("th", { scope: "col" }, "Value"),
          h("th", { scope: "col" }, "95 % interval"),
          h("th", { scope: "col" }, "n"),
        ),
      ),
      h(
        "tbody",
        null,
        Object.entries(result.metrics).map(([key, metric]) =>
          h(
            "tr",
            { "data-metric": key },
            h("td", { class: "text" }, formulaName(key, metric.formula), metric.window === "whole" && h("small", null, "of the whole run")),
            h("td", { class: "strong" }, valueText(metric.value, metric.unit)),
            h("td", null, interval(metric.low, metric.high, metric.unit, metric.value) || NONE),
            h("td", null, count(metric.n)),
          ),
        ),
      ),
    ),
  );
}

const WHOLE = new Set(["tokens", "requests"]);
const valueText = (value, unit) =>
  WHOLE.has(unit) && Number.isInteger(value) ? count(value) : withUnit(value, WHOLE.has(unit) ? "" : unit);

function distributionsTable(result) {
  const shown = ["p50", "p90", "p95", "p99", "max"];
  return h(
    "div",
    { class: "scroll" },
    h(
      "table",
      { class: "plain" },
      h(
        "thead",
        null,
        h(
          "tr",
          null,
          h("th", { scope: "col", class: "text" }, "What"),
          ["mean", "median", ...shown.slice(1)].map((name) => h("th", { scope: "col" }, name)),
        ),
      ),
      h(
        "tbody",
        null,
        Object.entries(result.distributions ?? {}).map(([key, found]) =>
          h(
            "tr",
            null,
            h("td", { class: "text" }, formulaName(key, found.formula), h("small", null, `${found.unit ?? ""}, n ${count(found.n)}`)),
            ["mean", ...shown].map((name) => h("td", null, num(found[name]))),
          ),
        ),
      ),
    ),
  );
}

function settingTable(setting) {
  return h(
    "table",
    { class: "plain setting" },
    h(
      "tbody",
      null,
      Object.entries(setting)
        .filter(([, value]) => said(value) !== NONE)
        .map(([key, value]) =>
          h(
            "tr",
            null,
            h("th", { scope: "row" }, readable(key)),
            h("td", { class: "text" }, /sha256$/.test(key) ? h("code", null, said(value)) : said(value)),
          ),
        ),
    ),
  );
}

function said(value) {
  if (value === null || value === undefined || value === "") return NONE;
  if (Array.isArray(value)) return value.length ? value.map(said).join(", ") : NONE;
  if (typeof value === "object")
    return (
      Object.entries(value)
        .map(([key, one]) => `${key} ${said(one)}`)
        .join(", ") || NONE
    );
  return typeof value === "number" ? plain(value).replace(/,/g, "") : String(value);
}

function workloadPart(result) {
  const { notes = [], dropped = {}, ...rest } = result.workload ?? {};
  const left = Object.entries(dropped);
  return [
    settingTable(rest),
    left.length > 0 && h("p", null, `Left out: ${listed(left.map(([why, many]) => `${count(many)} (${why})`))}.`),
    notes.length > 0 &&
      h(
        "ul",
        { class: "notes" },
        notes.map((note) => h("li", null, note)),
      ),
  ];
}

function windowsTable(result) {
  const there = Object.entries(result.windows ?? {}).filter(([, window]) => window);
  const lines = [
    ["duration_s", "duration", "s"],
    ["energy_j", "energy", "J"],
    ["attributed_j", "of requests", "J"],
    ["idle_j", "idle", "J"],
    ["unattributed_j", "unattributed", "J"],
    ["output_tokens", "output tokens", ""],
    ["input_tokens", "input tokens", ""],
    ["avg_power_w", "average power", "W"],
    ["avg_batch_size", "average batch", ""],
  ];
  if (!there.length) return h("p", { class: "empty" }, "None.");
  return h(
    "div",
    { class: "scroll" },
    h(
      "table",
      { class: "plain" },
      h(
        "thead",
        null,
        h(
          "tr",
          null,
          h("th", { scope: "col", class: "text" }, ""),
          there.map(([name, window]) =>
            h("th", { scope: "col", title: DATA.formulas[window.rule] ?? window.rule }, name === "mlenergy" ? "ML.ENERGY's" : name),
          ),
        ),
      ),
      h(
        "tbody",
        null,
        lines.map(([key, name, unit]) =>
          h(
            "tr",
            null,
            h("th", { scope: "row" }, name),
            there.map(([, window]) => h("td", null, withUnit(window[key], unit))),
          ),
        ),
      ),
    ),
  );
}
