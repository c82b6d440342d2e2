// Power over the last minutes, stacked by who used it; under the curve, in which phase the engine was.
const PHASES = {
  steady: ["--accent", "steady: the batch is full, or traffic has stopped changing"],
  ramp: ["--c4", "ramp: filling up"],
  drain: ["--c5", "drain: running dry"],
  idle: ["--grey", "idle: nothing runs"],
};
const PLOT = { left: 46, right: 6, top: 12, strip: 7, bottom: 26 };

function powerChart(place) {
  const canvas = h("canvas", { tabindex: "0", role: "img", "aria-label": "Power over the last minutes" });
  const pen = canvas.getContext("2d");
  let width = 0,
    height = 0,
    cursor = null, // seconds ago
    at = { x: 0, y: 0 },
    colour = () => "";
  place.append(canvas);

  const measure = () => {
    width = place.clientWidth;
    height = width < 520 ? 200 : 214;
    const ratio = devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.height = `${height}px`;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    restyle();
  };
  const restyle = () => {
    const style = getComputedStyle(document.documentElement);
    const kept = new Map();
    colour = (name) => {
      if (!kept.has(name)) kept.set(name, style.getPropertyValue(name).trim());
      return kept.get(name);
    };
    draw();
  };

  const range = () => Number(wanted.range);
  const many = () => (range() > 100 ? 4 : 1); // slots to a column
  const wide = () => many() * live.slotS;
  const x = (secondsAgo) => PLOT.left + (1 - secondsAgo / range()) * (width - PLOT.left - PLOT.right);
  const floor = () => height - PLOT.bottom - PLOT.strip - 3;
  const agoOf = (slot) => (live.news.now - slot[0]) * live.slotS; // of its beginning

  // The parts of a slot in watts, from the floor up: idle, each of the first, the others, what belongs to nobody.
  function parts(slot, named) {
    const places = new Map(named.map(([name], place) => [name, place + 1]));
    const stack = Array(named.length + 3).fill(0);
    stack[0] = slot[2];
    for (const [name, joules] of slot[BY[wanted.by]]) stack[places.get(name) ?? named.length + 1] += joules;
    stack[named.length + 2] = slot[3];
    return stack.map((joules) => joules / (slot[7] * live.slotS));
  }

  function draw() {
    if (!width || !live.news) return;
    pen.clearRect(0, 0, width, height);
    const { named } = users(since(range())),
      slots = merged(since(range()), many()),
      mine = colourOf(named);
    const most = Math.max(1, ...slots.map((slot) => (slot[2] + slot[3] + requestsJ(slot)) / (slot[7] * live.slotS)));
    const top = nice(most * 1.08);
    const y = (watts) => floor() - (watts / top) * (floor() - PLOT.top);
    axes(y, top);
    const fills = [
      colour("--idle"),
      ...named.map(([name]) => colour(`--c${mine.get(name)}`)),
      colour("--c7"),
      colour("--lost"),
    ];
    const stacks = slots.map((slot) => parts(slot, named));
    phases(slots);
    const low = stacks.map(() => 0);
    for (let layer = 0; layer < fills.length; layer += 1) {
      pen.fillStyle = fills[layer];
      pen.beginPath();
      stacks.forEach((stack, index) => {
        if (!stack[layer]) return;
        const from = x(agoOf(slots[index])),
          to = Math.min(x(agoOf(slots[index]) - wide()), width - PLOT.right);
        const high = low[index] + stack[layer];
        if (to > PLOT.left) pen.rect(Math.max(from, PLOT.left), y(high), to - Math.max(from, PLOT.left) + 0.35, y(low[index]) - y(high));
        low[index] = high;
      });
      pen.fill();
    }
    if (cursor !== null) mark(slots, stacks, named, mine, fills);
  }

  function phases(slots) {
    const y = height - PLOT.bottom - PLOT.strip;
    slots.forEach((slot, at) => {
      const before = slots[at - 1];
      if (before?.[1] === slot[1] && before[0] === slot[0] - many()) return; // it was drawn with the one before
      let last = at;
      while (slots[last + 1]?.[1] === slot[1] && slots[last + 1][0] === slots[last][0] + many()) last += 1;
      const from = Math.max(PLOT.left, x(agoOf(slot))),
        span = Math.min(x(agoOf(slots[last]) - wide()), width - PLOT.right) - from;
      if (!slot[1] || span <= 0) return;
      if (slot[1] === "steady") {
        pen.fillStyle = colour("--steady");
        pen.fillRect(from, PLOT.top, span, floor() - PLOT.top);
      }
      pen.fillStyle = colour(PHASES[slot[1]][0]);
      pen.fillRect(from, y, span, PLOT.strip);
    });
  }

  function axes(y, top) {
    pen.font = "12px system-ui, sans-serif";
    pen.lineWidth = 1;
    pen.strokeStyle = colour("--line");
    pen.fillStyle = colour("--muted");
    pen.textAlign = "right";
    for (let tick = 0; tick <= 4; tick += 1) {
      const watts = (top / 4) * tick,
        line = Math.round(y(watts)) + 0.5;
      pen.beginPath();
      pen.moveTo(PLOT.left, line);
      pen.lineTo(width - PLOT.right, line);
      pen.stroke();
      pen.fillText(`${Number(watts.toPrecision(3))}${tick === 4 ? " W" : ""}`, PLOT.left - 6, line + 4);
    }
    pen.textAlign = "center";
    const step = range() / 5;
    for (let seconds = range(); seconds > 0; seconds -= width < 520 ? 2 * step : step) {
      pen.textAlign = seconds === range() ? "left" : "center";
      pen.fillText(`−${seconds % 60 ? `${Math.round(seconds)} s` : `${seconds / 60} min`}`, x(seconds), height - 6);
    }
    pen.textAlign = "right";
    pen.fillText("now", width - PLOT.right, height - 6);
  }

  function mark(slots, stacks, named, mine, fills) {
    const index = slots.findIndex((slot) => agoOf(slot) >= cursor && agoOf(slot) - wide() < cursor);
    const line = Math.round(x(cursor)) + 0.5;
    pen.strokeStyle = colour("--ink");
    pen.setLineDash([3, 3]);
    pen.beginPath();
    pen.moveTo(line, PLOT.top);
    pen.lineTo(line, height - PLOT.bottom);
    pen.stroke();
    pen.setLineDash([]);
    if (index < 0) return hideTip();
    const stack = stacks[index],
      names = ["idle", ...named.map(([name]) => nameOf(name, named)), "others", "unattributed"];
    const lines = names.map((name, layer) => stack[layer] > 0 && tipLine(name, withUnit(stack[layer], "W"), fills[layer])).reverse();
    const head = tipLine(`${ago(cursor)} ago${slots[index][1] ? `, ${slots[index][1]}` : ""}`, withUnit(sum(stack), "W"));
    const frame = canvas.getBoundingClientRect();
    return showTip([head, ...lines], at.x ?? frame.left + line, at.y ?? frame.top + 40);
  }

  const point = (seconds, where) => {
    cursor = seconds === null ? null : Math.max(0, Math.min(range(), seconds));
    at = where;
    if (cursor === null) hideTip();
    draw();
  };
  canvas.addEventListener("pointermove", (event) => {
    const left = event.clientX - canvas.getBoundingClientRect().left;
    const seconds = (1 - (left - PLOT.left) / (width - PLOT.left - PLOT.right)) * range();
    point(seconds >= 0 && seconds <= range() ? seconds : null, { x: event.clientX, y: event.clientY });
  });
  canvas.addEventListener("pointerleave", () => point(null, {}));
  canvas.addEventListener("blur", () => point(null, {}));
  canvas.addEventListener("keydown", (event) => {
    const step = (event.shiftKey ? 10 : wide()) * (event.key === "ArrowLeft" ? 1 : -1);
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      point((cursor ?? 1) + step, {});
      event.preventDefault();
    } else if (event.key === "Escape") point(null, {});
  });
  new ResizeObserver(measure).observe(place);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", restyle);
  return {
    draw,
    restyle,
    describe: () => {
      const watts = since(range()).map((slot) => (slot[2] + slot[3] + requestsJ(slot)) / live.slotS);
      const said = watts.length ? `: from ${withUnit(Math.min(...watts), "W")} to ${withUnit(Math.max(...watts), "W")}` : "";
      canvas.setAttribute("aria-label", `Power over the last ${ago(range())}${said}. Arrow keys move a cursor; the table below has the sums.`);
    },
  };
}

const tipLine = (name, value, colour) =>
  h("div", { class: "tip-line" }, h("span", null, colour && swatch(colour), name), h("b", null, value));

const swatch = (colour) => h("i", { class: "swatch", style: { background: colour } });

// The next number that reads well in four steps.
function nice(value) {
  const size = 10 ** Math.floor(Math.log10(value));
  return [1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10].find((step) => step * size >= value) * size;
}

// Under the chart: who took how much of what was drawn.
function usersTable(place) {
  const body = h("tbody");
  place.append(
    h(
      "table",
      { class: "users" },
      h("thead", null, h("tr", null, ["", "now", "energy", "share"].map((name) => h("th", { scope: "col" }, name)))),
      body,
    ),
  );
  const head = place.querySelector("th");
  const line = () => {
    const mark = swatch(""),
      name = h("span"),
      cells = [h("td"), h("td"), h("td")];
    const row = h("tr", null, h("th", { scope: "row" }, mark, name), cells);
    row.tell = ([text, colour, watts, joules, share, whole]) => {
      mark.style.background = colour;
      say(name, text);
      name.title = whole ?? "";
      [withUnit(watts, "W"), withUnit(joules, "J"), percent(share)].forEach((value, at) => say(cells[at], value));
    };
    return row;
  };
  return () => {
    const slots = since(Number(wanted.range)),
      latest = slots.slice(-4), // two seconds
      { named, others, many } = users(slots),
      mine = colourOf(named);
    say(head, wanted.by === "model" ? "Model" : "Tenant");
    const watts = (of) => (latest.length ? sum(latest.map(of)) / latest.length / live.slotS : null);
    const byName = (wantedName) => (slot) => sum(slot[BY[wanted.by]].filter(([name]) => wantedName(name)).map(([, joules]) => joules));
    const first = new Set(named.map(([name]) => name));
    const idle = sum(slots.map((slot) => slot[2])),
      nobody = sum(slots.map((slot) => slot[3]));
    const all = sum(slots.map(requestsJ)) + idle + nobody || 1;
    const shown = named.map(([name, joules]) => [nameOf(name, named), `var(--c${mine.get(name)})`, watts(byName((one) => one === name)), joules, joules / all, name]);
    if (others > 0) shown.push([many ? `${many} others` : "others", "var(--c7)", watts(byName((one) => !first.has(one))), others, others / all]);
    shown.push(["idle", "var(--idle)", watts((slot) => slot[2]), idle, idle / all]);
    if (nobody > 0) shown.push(["unattributed", "var(--lost)", watts((slot) => slot[3]), nobody, nobody / all]);
    rows(body, slots.length ? shown : [], line);
  };
}
