// Energy per token against inter-token latency: a colour and a shape a model, the front of what is shown, others' points hollow.
const SHAPES = [
  (r) => `M${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0z`,
  (r) => `M${-r * 0.88} ${-r * 0.88}h${r * 1.76}v${r * 1.76}h${-r * 1.76}z`,
  (r) => `M0 ${-r * 1.2}L${r * 1.1} ${r * 0.75}H${-r * 1.1}z`,
  (r) => `M0 ${-r * 1.3}L${r * 1.3} 0L0 ${r * 1.3}L${-r * 1.3} 0z`,
  (r) => `M0 ${r * 1.2}L${r * 1.1} ${-r * 0.75}H${-r * 1.1}z`,
];
const COLOURS = 8;
const modelsShown = [...new Set(DATA.rows.map((row) => row.model_id))].sort((a, b) => shortModel(a).localeCompare(shortModel(b)));
const lookOf = (model) => {
  const at = modelsShown.indexOf(model);
  return at < 0 ? { colour: "var(--muted)", shape: SHAPES[0] } : { colour: `var(--c${at % COLOURS})`, shape: SHAPES[at % SHAPES.length] };
};
const glyph = (model, radius = 5) =>
  s(
    "svg",
    { class: "glyph", viewBox: "-8 -8 16 16", "aria-hidden": "true" },
    s("path", { d: lookOf(model).shape(radius), fill: lookOf(model).colour }),
  );

const referenceLatency = (row, p) => row[p === "p50" ? "median_itl_ms" : `${p}_itl_ms`];

const drawable = (value) => known(value) && (value > 0 || state.log !== "1"); // there is no zero on a logarithmic axis

function scatterPoints(rows, p) {
  const off = hidden();
  return rows
    .filter((row) => !off.has(row.model_id) && drawable(row[`${p}_itl_ms`]) && drawable(row.energy_per_output_token_j))
    .map((row) => ({ x: row[`${p}_itl_ms`], y: row.energy_per_output_token_j, row }));
}

function scatter(rows) {
  const p = state.p,
    log = state.log === "1";
  const points = scatterPoints(rows, p);
  const others = (DATA.references?.rows ?? [])
    .filter((row) => drawable(row.energy_per_token_joules))
    .map((row) => ({ x: referenceLatency(row, p), y: row.energy_per_token_joules, reference: row }));
  const front = paretoFront(points.filter((point) => point.row.stands)); // the best of many repeats would be the luckiest
  const best = new Set(front);
  const label =
    `Energy per output token against ${ordinal(p)} inter-token latency: ${points.length} runs, ${front.length} on the Pareto front. ` +
    "The table below has the same numbers.";
  return drawing(
    label,
    (width) => Math.max(330, Math.min(540, width)),
    (svg, width, height) => {
      const box = { left: 52, right: width - 14, top: 30, bottom: height - 44 };
      const all = [...points, ...others];
      const scale = scaleOf(
        all.map((point) => point.x),
        log,
        box.left,
        box.right,
      );
      const x = Object.assign((value) => (drawable(value) ? scale(value) : box.left), scale); // of unknown latency: at the axis
      const y = scaleOf(
        all.flatMap((point) => [point.y, point.row?.energy_per_output_token_low_j, point.row?.energy_per_output_token_high_j]),
        log,
        box.bottom,
        box.top,
      );
      leftAxis(svg, y, { left: box.left, right: box.right, label: "J per output token", many: 6 });
      bottomAxis(svg, x, {
        left: box.left,
        right: box.right,
        y: box.bottom,
        top: box.top,
        label: `inter-token latency, ${ordinal(p)} (ms)`,
      });
      if (!all.length) {
        svg.append(
          s("text", { x: width / 2, y: height / 2, "text-anchor": "middle", class: "empty" }, "Nothing to draw: no latency or energy."),
        );
        return;
      }
      limits(svg, x, y, box);
      sweeps(svg, points, x, y);
      if (front.length) svg.append(s("path", { class: "front", d: staircase(front, x, y, box) }));
      svg.append(
        ...others.map((point) =>
          s("path", {
            class: "reference",
            transform: `translate(${x(point.x).toFixed(1)} ${y(point.y).toFixed(1)})`,
            d: known(point.x) ? SHAPES[0](5) : "M0 0L9 -5V5z", // an arrow at the axis, where only the energy is known
          }),
        ),
      );
      svg.append(...points.map((point) => dot(point, x, y, best.has(point))));
      follow(svg, all, x, y, best);
    },
  );
}

// The front as steps: between two of its points no better configuration is known.
function staircase(front, x, y, box) {
  const [first] = front;
  return (
    `M${x(first.x)} ${box.top}V${y(first.y)}` +
    front
      .slice(1)
      .map((point) => `H${x(point.x)}V${y(point.y)}`)
      .join("") +
    `H${box.right}`
  );
}

function sweeps(svg, points, x, y) {
  const of = ({ row }) => [row.model_id, row.weight_precision, row.gpu_model, row.num_gpus, row.workload].join("|");
  for (const sweep of Map.groupBy(
    points.filter((point) => point.row.valid),
    of,
  ).values()) {
    if (sweep.length < 2) continue;
    sweep.sort((a, b) => (a.row.load_size ?? 0) - (b.row.load_size ?? 0));
    svg.append(
      s("path", {
        class: "sweep",
        stroke: lookOf(sweep[0].row.model_id).colour,
        d: sweep.map((point, at) => `${at ? "L" : "M"}${x(point.x).toFixed(1)} ${y(point.y).toFixed(1)}`).join(""),
      }),
    );
  }
}

function dot(point, x, y, onFront) {
  const { row } = point,
    look = lookOf(row.model_id),
    cx = x(point.x),
    cy = y(point.y);
  const whisker =
    row.valid &&
    known(row.energy_per_output_token_low_j) &&
    row.energy_per_output_token_low_j > 0 &&
    s("line", {
      class: "whisker",
      x1: cx,
      x2: cx,
      y1: y(row.energy_per_output_token_low_j),
      y2: y(row.energy_per_output_token_high_j),
      stroke: look.colour,
    });
  const mark = s("path", {
    class: `dot${row.valid ? (row.stands ? "" : " repeat") : " invalid"}${onFront ? " best" : ""}`,
    d: look.shape(5),
    transform: `translate(${cx.toFixed(1)} ${cy.toFixed(1)})`,
    fill: row.valid ? look.colour : "none",
    "data-run": row.run_id,
  });
  if (!onFront) return s("g", null, whisker, mark);
  const link = s(
    "a",
    {
      href: hashOf({ run: row.run_id }),
      "aria-label": `${shortModel(row.model_id)}, ${row.load}: ${num(point.y)} J per token, ${num(point.x)} ms`,
    },
    whisker,
    mark,
  );
  link.addEventListener("focus", () => {
    const at = mark.getBoundingClientRect();
    showTip(tipOf(point, true), at.x, at.y);
  });
  link.addEventListener("blur", hideTip);
  return link;
}

// What lies outside the deadline and the budget, shaded.
function limits(svg, x, y, box) {
  const { deadline, budget } = limitsSet();
  const place = (at, low, high) => Math.max(low, Math.min(high, at));
  if (known(deadline)) {
    const at = place(x(deadline), box.left, box.right);
    svg.append(s("rect", { class: "beyond", x: at, y: box.top, width: box.right - at, height: box.bottom - box.top }));
  }
  if (known(budget)) {
    const at = place(y(budget), box.top, box.bottom);
    svg.append(s("rect", { class: "beyond", x: box.left, y: box.top, width: box.right - box.left, height: at - box.top }));
  }
}

// The nearest point to the pointer tells itself; a click opens it.
function follow(svg, points, x, y, best) {
  const halo = svg.appendChild(s("circle", { class: "halo", r: 10, visibility: "hidden" }));
  const nearest = (event) => {
    const frame = svg.getBoundingClientRect(),
      px = event.clientX - frame.left,
      py = event.clientY - frame.top;
    const distance = (point) => Math.hypot(x(point.x) - px, y(point.y) - py);
    const found = points.reduce((one, other) => (!one || distance(other) < distance(one) ? other : one), null);
    return found && distance(found) < 28 ? found : null;
  };
  const leave = () => {
    halo.setAttribute("visibility", "hidden");
    svg.classList.remove("over");
    hideTip();
  };
  svg.addEventListener("pointermove", (event) => {
    const point = nearest(event);
    if (!point) return leave();
    fill(halo, { cx: x(point.x), cy: y(point.y), visibility: "visible" }, []);
    svg.classList.toggle("over", Boolean(point.row));
    return showTip(tipOf(point, best.has(point)), event.clientX, event.clientY);
  });
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("click", (event) => {
    const point = nearest(event);
    if (point?.row) {
      event.preventDefault();
      hideTip();
      go({ run: point.row.run_id });
    }
  });
}

function tipOf(point, onFront) {
  const line = (name, value) => h("div", { class: "tip-line" }, h("span", null, name), h("b", null, value));
  if (point.reference) {
    const row = point.reference;
    return [
      h("strong", null, row.nickname ?? shortModel(row.model_id)),
      h("div", { class: "sub" }, [row.gpu_model, row.task].filter(Boolean).join(" · ")),
      line("J per token", num(point.y)),
      line(`${ordinal(state.p)} ITL`, withUnit(point.x, "ms")),
      h("div", { class: "sub" }, `Published: ${DATA.references.source}`),
    ];
  }
  const { row } = point;
  return [
    h("strong", null, shortModel(row.model_id)),
    h("div", { class: "sub" }, machine(row), " · ", row.load),
    line("J per token", num(row.energy_per_output_token_j)),
    known(row.energy_per_output_token_low_j) &&
      line("95 %", interval(row.energy_per_output_token_low_j, row.energy_per_output_token_high_j)),
    line("J per response", num(row.energy_per_response_j)),
    line(`${ordinal(state.p)} ITL`, withUnit(point.x, "ms")),
    row.valid && row.repeats > 1 && h("div", { class: "sub" }, repeatOf(row)),
    onFront && h("div", { class: "sub good" }, "On the Pareto front"),
    !row.valid && h("div", { class: "sub bad" }, reasonsOf(row.run_id)),
  ];
}

const machine = (row) =>
  [row.num_gpus > 1 ? `${row.num_gpus} × ${row.gpu ?? "GPU"}` : (row.gpu ?? "no GPU"), row.weight_precision].filter(Boolean).join(" · ");

function legend(onchange) {
  const off = hidden();
  const rest =
    DATA.references &&
    h(
      "li",
      null,
      h(
        "span",
        { class: "key" },
        s("svg", { class: "glyph", viewBox: "-8 -8 16 16", "aria-hidden": "true" }, s("path", { class: "reference", d: SHAPES[0](5) })),
        DATA.references.source,
      ),
    );
  return h(
    "ul",
    { class: "legend", "aria-label": "Models drawn" },
    modelsShown.map((model) =>
      h(
        "li",
        null,
        h(
          "button",
          {
            type: "button",
            "aria-pressed": String(!off.has(model)),
            "data-model": model,
            title: "Show or hide",
            onclick: () => {
              const next = hidden();
              if (!next.delete(model)) next.add(model);
              set({ hide: [...next].join("|") });
              onchange();
            },
          },
          glyph(model),
          shortModel(model),
        ),
      ),
    ),
    rest,
  );
}
