// Where the counter's joules went: requests + others' + idle + unattributed, as a bar that adds up, and the sum in words.
function closureSection(result) {
  const closure = result.closure ?? {};
  const parts = [
    ["requests", closure.records_j],
    ...(closure.others_j || closure.others ? [["others", closure.others_j]] : []), // requests that were not this run's
    ["idle", closure.idle_j],
    ["unattributed", closure.unattributed_j],
  ];
  const total = closure.counter_j;
  if (!known(total) || total <= 0) return h("p", { class: "empty" }, "No counter was read, so there is nothing to add up.");
  const sum = parts.reduce((whole, [, joules]) => whole + Math.max(0, joules ?? 0), 0) || 1;
  const bar = h(
    "div",
    { class: "closure", role: "img", "aria-label": parts.map(([name, joules]) => `${name} ${percent((joules ?? 0) / total)}`).join(", ") },
    parts.map(([name, joules]) =>
      h("span", {
        class: name,
        style: { width: `${(Math.max(0, joules ?? 0) / sum) * 100}%` },
        title: `${name}: ${withUnit(joules, "J")}`,
      }),
    ),
  );
  const off = closure.difference_uj;
  return h(
    "div",
    null,
    bar,
    h(
      "dl",
      { class: "keys" },
      parts.map(([name, joules]) =>
        h(
          "div",
          null,
          h("dt", null, h("span", { class: `swatch ${name}` }), name),
          h("dd", null, withUnit(joules, "J"), h("small", null, ` ${percent((joules ?? 0) / total, 3)}`)),
        ),
      ),
    ),
    h(
      "p",
      { class: "sum" },
      `${parts.map(([, joules]) => joulesExact(joules)).join(" + ")} ${closure.exact ? "=" : "≠"} ${joulesExact(total)} J`,
    ),
    h(
      "p",
      { class: closure.exact ? "good" : "bad" },
      closure.exact ? "Adds up to the counter, to the microjoule." : `Does not add up: ${count(off)} µJ between the sum and the counter.`,
    ),
    h(
      "p",
      { class: "muted" },
      `${plural(closure.records ?? 0, "record")} for ${plural(closure.requests ?? 0, "request")}`,
      closure.missing ? `; ${count(closure.missing)} without one` : "",
      closure.unsettled ? `; ${count(closure.unsettled)} not settled` : "",
      closure.others ? `; ${plural(closure.others, "record")} of requests that were not this run's` : "",
      ".",
    ),
  );
}

const joulesExact = (joules) =>
  known(joules) ? joules.toLocaleString("en", { minimumFractionDigits: 3, maximumFractionDigits: 6 }) : NONE;

function outcomesSection(result) {
  const { errors = {}, ...counts } = result.outcomes ?? {};
  const metrics = result.metrics;
  return h(
    "div",
    null,
    h(
      "dl",
      { class: "keys" },
      Object.entries(counts)
        .filter(([, many]) => known(many))
        .map(([name, many]) =>
          h("div", { class: many && name !== "completed" ? "bad" : "" }, h("dt", null, name), h("dd", null, count(many))),
        ),
    ),
    known(metrics.wasted_j?.value) &&
      h("p", { class: "muted" }, `Joules spent on answers nobody got: ${withUnit(metrics.wasted_j.value, "J")}.`),
    Object.keys(errors).length > 0 &&
      h(
        "ul",
        { class: "errors" },
        Object.entries(errors).map(([what, many]) => h("li", null, `${count(many)} × ${what}`)),
      ),
  );
}
