// How the requests differ: joules per response as they were measured, and lengths and times, on linear or logarithmic axes.
const HISTOGRAMS = {
  energy_per_response_j: ["Joules per response", "J", "J / response"],
  output_tokens: ["Output tokens", "tokens", "Lengths"],
  ttft_ms: ["Time to first token", "ms", "TTFT"],
  icl_ms: ["Time between chunks", "ms", "Gaps"],
};
const DISTRIBUTION = { energy_per_response_j: "energy_per_response", output_tokens: "output_tokens", ttft_ms: "ttft", icl_ms: "icl" };

function histogramSection(result) {
  const there = Object.keys(HISTOGRAMS).filter((key) => result.histograms?.[key]?.counts?.some((many) => many > 0));
  if (!there.length) return h("p", { class: "empty" }, "This result has no histograms.");
  const view = { key: there[0], logX: false, logY: false };
  const place = h("div");
  const again = () =>
    place.replaceChildren(
      h(
        "div",
        { class: "row" },
        choice(
          "What",
          there.map((key) => [key, HISTOGRAMS[key][2]]),
          view.key,
          (key) => {
            view.key = key;
            again();
          },
        ),
        h(
          "span",
          { class: "boxes" },
          h(
            "label",
            { class: "tick-box" },
            h("input", {
              type: "checkbox",
              "data-log": "x",
              checked: view.logX,
              onchange: (event) => {
                view.logX = event.target.checked;
                again();
              },
            }),
            `log ${HISTOGRAMS[view.key][1]}`,
          ),
          h(
            "label",
            { class: "tick-box" },
            h("input", {
              type: "checkbox",
              "data-log": "y",
              checked: view.logY,
              onchange: (event) => {
                view.logY = event.target.checked;
                again();
              },
            }),
            "log count",
          ),
        ),
      ),
      histogram(result.histograms[view.key], HISTOGRAMS[view.key], result.distributions?.[DISTRIBUTION[view.key]], view),
    );
  again();
  return place;
}

function histogram({ edges, counts }, [name, unit], distribution, { logX, logY }) {
  const total = counts.reduce((sum, many) => sum + many, 0);
  const tallest = Math.max(...counts);
  return drawing(
    `${name}: ${plural(total, "value")} between ${num(edges[0])} and ${num(edges.at(-1))} ${unit}`,
    250,
    (svg, width, height) => {
      const left = 46,
        right = width - 10,
        top = 34,
        bottom = height - 42;
      const above = edges.find((edge) => edge > 0) ?? 1;
      const low = logX ? (edges[0] > 0 ? edges[0] : above / 2) : edges[0];
      const x = (logX ? logScale : linearScale)(low, edges.at(-1), left, right);
      const y = logY ? logScale(0.7, tallest * 1.3, bottom, top) : linearScale(0, tallest * 1.05, bottom, top);
      leftAxis(svg, y, { left, right, label: "count", many: 4 });
      counts.forEach((many, at) => {
        if (!many) return;
        const from = x(Math.max(low, edges[at])),
          to = x(edges[at + 1]);
        const bar = s("rect", {
          class: "bar",
          x: from,
          y: y(many),
          width: Math.max(1, to - from - (to - from > 4 ? 1 : 0)),
          height: Math.max(1, bottom - y(many)),
        });
        bar.addEventListener("pointermove", (event) =>
          showTip(
            [
              h("strong", null, `${num(edges[at])} to ${num(edges[at + 1])} ${unit}`),
              h("div", { class: "sub" }, `${count(many)} of ${count(total)}, ${percent(many / total)}`),
            ],
            event.clientX,
            event.clientY,
          ),
        );
        bar.addEventListener("pointerleave", hideTip);
        svg.append(bar);
      });
      bottomAxis(svg, x, { left, right, y: bottom, label: `${name.toLowerCase()} (${unit})` });
      for (const [key, text] of [
        ["p50", "median"],
        ["p95", "p95"],
      ]) {
        const value = distribution?.[key];
        if (!known(value) || value < low || value > edges.at(-1)) continue;
        const at = x(value),
          near = at > right - 60;
        svg.append(
          s("line", { class: "mark-line", x1: at, x2: at, y1: top - 6, y2: bottom }),
          s(
            "text",
            {
              class: "mark-label",
              x: near ? at - 4 : at + 4,
              y: key === "p50" ? top - 14 : top - 2,
              "text-anchor": near ? "end" : "start",
            },
            `${text} ${num(value)}`,
          ),
        );
      }
    },
  );
}
