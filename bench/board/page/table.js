// The leaderboard: sorted by any column, filtered by model, GPU, workload, validity and words.
const columns = (p) => [
  { key: "model", label: "Model", text: true, of: (row) => shortModel(row.model_id), cell: modelCell },
  { key: "weight_precision", label: "Precision", text: true },
  { key: "gpu", label: "GPU", text: true },
  { key: "num_gpus", label: "GPUs", cell: (row) => count(row.num_gpus) },
  { key: "load_size", label: "Load", cell: loadCell, text: true },
  {
    key: "energy_per_output_token_j",
    label: "J / token",
    hint: "Energy per output token, with its 95 % interval",
    strong: true,
    cell: energyCell,
  },
  { key: "energy_per_response_j", label: "J / response", hint: "Mean of what the requests cost, measured one by one" },
  {
    key: `${p}_itl_ms`,
    label: `ITL ${p === "p50" ? "median" : p}`,
    unit: "ms",
    hint: "Time between output tokens; the gap before a chunk is shared by its tokens, as ML.ENERGY does",
  },
  { key: `${p}_ttft_ms`, label: `TTFT ${p === "p50" ? "median" : p}`, unit: "ms", hint: "Time to the first chunk with content" },
  { key: "output_tokens_per_s", label: "Tokens / s", hint: "Output tokens a second, in the steady window where there is one" },
  { key: "avg_power_w", label: "Power", unit: "W", hint: "Average power, in the steady window where there is one" },
  { key: "steady_s", label: "Steady", unit: "s", hint: "How long the steady window lasted" },
  { key: "uncertainty", label: "±", hint: "Half the 95 % interval of J / token, relative", cell: (row) => percent(row.uncertainty) },
];
const valueOf = (column, row) => (column.of ? column.of(row) : row[column.key]);
const reasonsOf = (run) => (RESULTS.get(run).reasons ?? []).map((reason) => reason.text).join("; ") || "Not valid";

function shownRows() {
  const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
  return DATA.rows.filter(
    (row) =>
      (!state.model || row.model_id === state.model) &&
      (!state.gpu || row.gpu === state.gpu) &&
      (!state.workload || row.workload === state.workload) &&
      (!state.valid || row.valid) &&
      words.every((word) => searchText(row).includes(word)),
  );
}

const searchTexts = new Map();
function searchText(row) {
  if (!searchTexts.has(row)) {
    searchTexts.set(
      row,
      [row.model_id, row.weight_precision, row.gpu_model, row.gpu, row.workload, row.load, row.name, row.run_id].join(" ").toLowerCase(),
    );
  }
  return searchTexts.get(row);
}

// What is not known is last, whichever way the rest goes.
function sortedRows(rows) {
  const column = columns(state.p).find((one) => one.key === state.sort) ?? columns(state.p)[5];
  const turn = state.dir === "desc" ? -1 : 1;
  return [...rows].sort((left, right) => {
    const a = valueOf(column, left),
      b = valueOf(column, right);
    if (a === b) return 0;
    if (a === null || a === undefined) return 1;
    if (b === null || b === undefined) return -1;
    return turn * (typeof a === "string" ? a.localeCompare(b) : a - b);
  });
}

function board(rows, onchange) {
  const shown = columns(state.p);
  const sortBy = (key) => {
    set({ dir: state.sort === key && state.dir === "asc" ? "desc" : "asc", sort: key });
    onchange();
  };
  const chosen = new Set([state.a, state.b].filter(Boolean));
  const head = h(
    "tr",
    null,
    h("th", { scope: "col", class: "pick" }, h("span", { class: "aside" }, "Compare")),
    shown.map((column) => {
      const sorted = column.key === state.sort;
      return h(
        "th",
        {
          scope: "col",
          class: column.text ? "text" : "",
          "aria-sort": sorted ? (state.dir === "asc" ? "ascending" : "descending") : "none",
        },
        h(
          "button",
          { type: "button", "data-key": column.key, title: column.hint, onclick: () => sortBy(column.key) },
          column.label,
          column.unit && h("span", { class: "unit" }, ` ${column.unit}`),
          h("span", { class: "arrow", "aria-hidden": "true" }, sorted ? (state.dir === "asc" ? "↑" : "↓") : ""),
        ),
      );
    }),
  );
  const lines = sortedRows(rows).map((row) =>
    h(
      "tr",
      { role: "row", class: row.valid ? "" : "invalid", "data-run": row.run_id },
      h(
        "td",
        { class: "pick", role: "cell" },
        h("input", {
          type: "checkbox",
          "aria-label": `Compare ${shortModel(row.model_id)}, ${row.load}`,
          checked: chosen.has(row.run_id),
          onchange: (event) => pick(row.run_id, event.target.checked),
        }),
      ),
      shown.map((column) =>
        h(
          "td",
          {
            role: "cell",
            class: `${column.text ? "text" : ""}${column.strong ? " strong" : ""}${column.key === "model" ? " model" : ""}`,
            "data-label": column.label + (column.unit ? ` (${column.unit})` : ""),
          },
          column.cell ? column.cell(row) : column.text ? String(row[column.key] ?? NONE) : num(row[column.key]),
        ),
      ),
    ),
  );
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": "Leaderboard, scrolls sideways" },
    h(
      "table",
      { class: "board", role: "table" },
      h("thead", { role: "rowgroup" }, head),
      h(
        "tbody",
        { role: "rowgroup" },
        lines.length ? lines : h("tr", null, h("td", { colspan: shown.length + 1, class: "empty" }, "No result matches. Loosen a filter.")),
      ),
    ),
  );
}

function modelCell(row) {
  return [
    glyph(row.model_id),
    h("a", { href: hashOf({ run: row.run_id, a: "", b: "" }) }, shortModel(row.model_id)),
    row.partial && h("span", { class: "chip" }, "broken off"),
    !row.valid && h("span", { class: "chip bad", title: reasonsOf(row.run_id) }, "not valid"),
    !row.valid && h("small", { class: "why" }, reasonsOf(row.run_id)),
  ];
}
const loadCell = (row) => [
  row.load || NONE,
  row.workload && h("small", null, row.workload),
  row.valid && row.repeats > 1 && h("small", null, repeatOf(row)),
];
const repeatOf = (row) => (row.stands ? `the median of ${row.repeats} repeats` : `one of ${row.repeats} repeats`);
const energyCell = (row) => [
  num(row.energy_per_output_token_j),
  known(row.energy_per_output_token_low_j) &&
    h("small", null, interval(row.energy_per_output_token_low_j, row.energy_per_output_token_high_j)),
];

// Two boxes at most are ticked: a third takes the place of the second.
function pick(run, on) {
  const others = [state.a, state.b].filter((one) => one && one !== run);
  const [a = "", b = ""] = on ? [...others.slice(0, 1), run] : others;
  set({ a, b });
  for (const box of document.querySelectorAll(".board tbody tr[data-run]"))
    box.querySelector("input").checked = [a, b].includes(box.dataset.run);
  showTray();
}

function showTray() {
  const tray = $("tray");
  if (!tray) return;
  const names = [state.a, state.b].filter((run) => RESULTS.has(run)).map((run) => title(ROWS.get(run)));
  tray.hidden = !names.length;
  tray.replaceChildren(
    h("span", null, names.length < 2 ? `${names[0] ?? ""}. Tick one more to compare.` : names.join("  and  ")),
    names.length === 2 && h("a", { class: "button", href: hashOf({ view: "compare" }) }, "Compare"),
    h(
      "button",
      {
        type: "button",
        class: "quiet",
        onclick: () => {
          set({ a: "", b: "" });
          pick("", false);
        },
      },
      "Clear",
    ),
  );
}
const title = (row) => [shortModel(row.model_id), machine(row), row.load].filter(Boolean).join(" · ");
