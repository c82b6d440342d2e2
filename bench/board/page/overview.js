// All results: what they are, the filters, the picture, what to run, the table, the references.
function boardView() {
  const chart = h("div"),
    side = h("div"),
    list = h("div"),
    keys = h("div"),
    many = h("p", { class: "about", "aria-live": "polite" });
  let rows = shownRows();
  const drawChart = () => chart.replaceChildren(scatter(rows));
  const drawSide = () => side.replaceChildren(advice(rows, drawChart));
  const drawList = () => {
    const key = document.activeElement?.dataset?.key;
    list.replaceChildren(board(rows, drawList));
    if (key) list.querySelector(`button[data-key="${key}"]`)?.focus();
    sorter.value = state.sort;
  };
  const drawKeys = () =>
    keys.replaceChildren(
      legend(() => {
        drawKeys();
        drawChart();
        drawSide();
      }),
    );
  const all = () => {
    rows = shownRows();
    const faulty = rows.filter((row) => !row.valid).length;
    many.textContent =
      `${rows.length === DATA.rows.length ? plural(rows.length, "result") : `${count(rows.length)} of ${plural(DATA.rows.length, "result")}`}` +
      (faulty ? `, ${faulty} not valid` : "") +
      (new Set(rows.map((row) => row.workload)).size > 1 ? ". Several workloads are shown: choose one to compare like with like." : ".");
    drawKeys();
    drawChart();
    drawSide();
    drawList();
  };
  const percentiles = () =>
    choice(
      "Percentile of latency",
      PERCENTILES.map((p) => [p, ordinal(p)]),
      state.p,
      (p) => {
        const sort = state.sort.replace(/^p\d+_/, `${p}_`);
        set({ p, sort });
        place.replaceChildren(percentiles());
        all();
      },
    );
  const place = h("div", null, percentiles());
  const filter = (name, label, values) =>
    h(
      "label",
      { class: "filter" },
      h("span", null, label),
      h(
        "select",
        {
          "data-filter": name,
          onchange: (event) => {
            set({ [name]: event.target.value });
            all();
          },
        },
        h("option", { value: "" }, "All"),
        [...new Set(values.filter(Boolean))]
          .sort()
          .map((value) => h("option", { value, selected: value === state[name] }, name === "model" ? shortModel(value) : value)),
      ),
    );
  const sorter = h(
    "select",
    {
      class: "sorter",
      "aria-label": "Sort by",
      onchange: (event) => {
        set({ sort: event.target.value, dir: "asc" });
        drawList();
      },
    },
    columns(state.p).map((column) => h("option", { value: column.key }, `Sorted by ${column.label}`)),
  );
  const view = [
    introduction(),
    h(
      "section",
      { class: "tools", "aria-label": "Filters" },
      h(
        "label",
        { class: "filter search" },
        h("span", null, "Search"),
        h("input", {
          type: "search",
          value: state.q,
          placeholder: "model, GPU, workload …",
          oninput: (event) => {
            set({ q: event.target.value });
            all();
          },
        }),
      ),
      filter(
        "model",
        "Model",
        DATA.rows.map((row) => row.model_id),
      ),
      filter(
        "gpu",
        "GPU",
        DATA.rows.map((row) => row.gpu),
      ),
      filter(
        "workload",
        "Workload",
        DATA.rows.map((row) => row.workload),
      ),
      h(
        "label",
        { class: "tick-box" },
        h("input", {
          type: "checkbox",
          "data-filter": "valid",
          checked: state.valid === "1",
          onchange: (event) => {
            set({ valid: event.target.checked ? "1" : "" });
            all();
          },
        }),
        "valid only",
      ),
      place,
    ),
    h(
      "div",
      { class: "pair uneven" },
      h(
        "section",
        { class: "panel" },
        h(
          "div",
          { class: "row" },
          h("h2", null, "Energy and latency"),
          h(
            "label",
            { class: "tick-box" },
            h("input", {
              type: "checkbox",
              "data-filter": "log",
              checked: state.log === "1",
              onchange: (event) => {
                set({ log: event.target.checked ? "1" : "" });
                drawChart();
              },
            }),
            "log axes",
          ),
        ),
        h("p", { class: "about" }, "Down and left is better. On the line is what nothing else beats in both."),
        chart,
        keys,
        DATA.references?.rows?.length > 0 && referencesTable(),
      ),
      h(
        "section",
        { class: "panel" },
        h("h2", null, "What should I run?"),
        h(
          "p",
          { class: "about" },
          "The least energy of each model within your limits, and what that saves against its fastest configuration and its dearest one.",
        ),
        side,
      ),
    ),
    h(
      "section",
      { class: "panel wide", id: "list" },
      h(
        "div",
        { class: "row" },
        h("h2", null, "All results"),
        downloads(() => rows),
      ),
      many,
      sorter,
      list,
    ),
    h("div", { id: "tray", class: "tray", role: "status", hidden: true }),
  ];
  queueMicrotask(() => {
    all();
    showTray();
  });
  return view;
}

function introduction() {
  const models = new Set(DATA.rows.map((row) => row.model_id)).size,
    gpus = [...new Set(DATA.rows.map((row) => row.gpu).filter(Boolean))],
    faulty = DATA.rows.filter((row) => !row.valid).length;
  return h(
    "section",
    { class: "hero" },
    h("h1", null, "What a token costs in joules"),
    h(
      "p",
      { class: "lead" },
      `${plural(DATA.rows.length, "run")} of ${plural(models, "model")}${gpus.length ? ` on ${listed(gpus)}` : ""}. `,
      faulty ? `${faulty === 1 ? "One is" : `${faulty} are`} not valid: grey, with the reason, and never recommended.` : "All are valid.",
    ),
    h("p", { class: "muted" }, measured()),
  );
}

// How the joules came to be, in a plain sentence or two, true of all results that are shown.
const SIMULATED = new Set(["simulated", "estimated", "unavailable"]);
function measured() {
  const results = [...RESULTS.values()];
  const of = (key) => [...new Set(results.map((result) => result.setting[key]).filter(Boolean))];
  const unreal = results.filter((result) => SIMULATED.has(result.setting.energy_status)),
    exact = results.filter((result) => result.closure?.exact).length;
  const sources = of("energy_source"),
    boundaries = of("boundary");
  return [
    unreal.length === results.length
      ? "No sensor stands behind these joules: they are simulated. "
      : unreal.length
        ? `No sensor stands behind the joules of ${plural(unreal.length, "run")}. `
        : "",
    `Joules are differences of the energy counter${sources.length ? ` (${listed(sources)}${boundaries.length ? `, ${listed(boundaries)}` : ""})` : ""}, divided among the requests that ran, as each was running. `,
    exact === results.length
      ? "In every run, requests, idle and the unattributed add up to the counter, to the microjoule."
      : exact
        ? `In ${count(exact)} of ${plural(results.length, "run")}, requests, idle and the unattributed add up to the counter, to the microjoule.`
        : "",
  ].join("");
}

function referencesTable() {
  const { source, url, rows } = DATA.references;
  return h(
    "details",
    { class: "references" },
    h("summary", null, `${plural(rows.length, "published row")} beside ours: ${source}`),
    h(
      "p",
      { class: "muted" },
      url ? `From ${url}. ` : "",
      "Others measured these, by their own definitions; those without a latency are arrows at the axis.",
    ),
    h(
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
            ["Model", "GPU", "GPUs", "Batch", "J / token", "J / response", `ITL ${ordinal(state.p)} ms`].map((name, at) =>
              h("th", { scope: "col", class: at < 2 ? "text" : "" }, name),
            ),
          ),
        ),
        h(
          "tbody",
          null,
          rows.map((row) =>
            h(
              "tr",
              null,
              h("td", { class: "text" }, row.nickname ?? shortModel(row.model_id), row.task && h("small", null, row.task)),
              h("td", { class: "text" }, row.gpu_model ?? NONE),
              h("td", null, count(row.num_gpus)),
              h("td", null, count(row.max_num_seqs)),
              h("td", { class: "strong" }, num(row.energy_per_token_joules)),
              h("td", null, num(row.energy_per_request_joules)),
              h("td", null, num(referenceLatency(row, state.p))),
            ),
          ),
        ),
      ),
    ),
  );
}
