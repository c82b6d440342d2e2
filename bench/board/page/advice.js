// Which configuration to run: two limits on sliders, and per model the least energy that keeps both.
const STEPS = 200;

function limitsSet() {
  return { deadline: state.deadline ? Number(state.deadline) : null, budget: state.budget ? Number(state.budget) : null };
}

function advice(rows, onlimit) {
  const usable = rows.filter((row) => row.stands && !hidden().has(row.model_id));
  const key = `${state.p}_itl_ms`;
  const place = h("div", { class: "advice-table" });
  const again = () => {
    place.replaceChildren(recommendations(usable, key));
    onlimit();
  };
  return h(
    "div",
    { class: "advice" },
    slider(
      "deadline",
      `Deadline: ${ordinal(state.p)} inter-token latency`,
      "ms",
      usable.map((row) => row[key]),
      again,
    ),
    slider(
      "budget",
      "Budget: energy per output token",
      "J",
      usable.map((row) => row.energy_per_output_token_j),
      again,
    ),
    (place.replaceChildren(recommendations(usable, key)), place),
  );
}

// A slider over the range of what there is, in equal ratios; its right end is no limit.
function slider(name, label, unit, values, onchange) {
  const there = values.filter((value) => known(value) && value > 0);
  const low = there.length ? Math.min(...there) * 0.98 : 0.1,
    high = there.length ? Math.max(...there) * 1.02 : 1;
  const at = (value) => Math.round(Math.max(0, Math.min(1, Math.log(value / low) / Math.log(high / low))) * STEPS);
  const said = () => (state[name] ? `at most ${num(Number(state[name]))} ${unit}` : "no limit");
  const output = h("output", { for: `slide-${name}` }, said());
  const input = h("input", {
    id: `slide-${name}`,
    type: "range",
    min: 0,
    max: STEPS,
    step: 1,
    value: state[name] ? at(Number(state[name])) : STEPS,
    "aria-valuetext": said(),
    oninput: () => {
      const step = Number(input.value);
      set({ [name]: step >= STEPS ? "" : String(Number((low * (high / low) ** (step / STEPS)).toPrecision(3))) });
      output.textContent = said();
      input.setAttribute("aria-valuetext", said());
      onchange();
    },
  });
  input.value = state[name] ? at(Number(state[name])) : STEPS; // once min and max are known to it
  return h("div", { class: "slider" }, h("label", { for: `slide-${name}` }, label), output, input);
}

function recommendations(rows, key) {
  const { deadline, budget } = limitsSet();
  const found = recommend(rows, key, deadline ?? Infinity, budget ?? Infinity);
  if (!found.length) return h("p", { class: "empty" }, "No valid result to choose from.");
  const none = found.filter((one) => !one.best).map((one) => shortModel(one.model));
  const saves = (share) =>
    !known(share) ? NONE : share > 0.0005 ? h("span", { class: "saves" }, percent(share)) : h("span", { class: "muted" }, "same");
  return [
    h(
      "table",
      { class: "plain recommended" },
      h(
        "thead",
        null,
        h(
          "tr",
          null,
          h("th", { scope: "col", class: "text" }, "Run it like this"),
          h("th", { scope: "col" }, "J / token"),
          h("th", { scope: "col" }, "ITL ms"),
          h("th", { scope: "col", title: "Energy saved against this model's configuration with the lowest latency" }, "vs fastest"),
          h(
            "th",
            { scope: "col", title: "Energy saved against this model's configuration with the largest energy per token" },
            "vs dearest",
          ),
        ),
      ),
      h(
        "tbody",
        null,
        found
          .filter((one) => one.best)
          .map((one) =>
            h(
              "tr",
              { "data-model": one.model },
              h(
                "td",
                { class: "text model" },
                glyph(one.model),
                h("a", { href: hashOf({ run: one.best.run_id }) }, shortModel(one.model)),
                h("small", null, `${machine(one.best)} · ${one.best.load}`),
              ),
              h("td", { class: "strong", "data-label": "J / token" }, num(one.best.energy_per_output_token_j)),
              h("td", { "data-label": "ITL ms" }, num(one.best[key])),
              h("td", { "data-label": "vs fastest" }, saves(one.againstFastest)),
              h("td", { "data-label": "vs dearest" }, saves(one.againstDearest)),
            ),
          ),
      ),
    ),
    none.length
      ? h("p", { class: "none" }, `${listed(none)} ${none.length === 1 ? "has" : "have"} no configuration that meets both.`)
      : null,
  ].reduce((whole, part) => {
    if (part) whole.append(part);
    return whole;
  }, document.createDocumentFragment());
}
