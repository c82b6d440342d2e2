// In the page's corner: what its answers cost, one by one and together. Nothing is stored, and nothing leaves the page.
(() => {
  const KEPT = 100;
  // Joules of different kinds are never added.
  const KINDS = { measured: "measured", mixed: "measured", provisional: "measured", estimated: "estimated", simulated: "simulated" };
  const STYLE = `
    :host { all: initial; position: fixed; right: 12px; bottom: 12px; z-index: 2147483647; font: 13px/1.4 system-ui, sans-serif;
            --ink: #1b1f24; --paper: #ffffff; --line: #d0d7de; --quiet: #57606a; }
    @media (prefers-color-scheme: dark) { :host { --ink: #e6edf3; --paper: #161b22; --line: #3d444d; --quiet: #9198a1; } }
    @media print { :host { display: none; } }
    section { display: flex; flex-direction: column; align-items: flex-end; gap: 6px; color: var(--ink); }
    button, ol { background: var(--paper); border: 1px solid var(--line); border-radius: 8px; color: inherit; font: inherit; }
    button { cursor: pointer; padding: 4px 10px; font-variant-numeric: tabular-nums; }
    button:focus-visible { outline: 2px solid #2f81f7; }
    ol { list-style: none; margin: 0; padding: 6px 10px; max-height: 40vh; overflow-y: auto; font-variant-numeric: tabular-nums; }
    li { display: flex; justify-content: space-between; gap: 16px; }
    li:first-child { border-bottom: 1px solid var(--line); font-weight: 600; margin-bottom: 4px; padding-bottom: 4px; }
    .quiet { color: var(--quiet); }
    [hidden] { display: none; }`;
  const answers = [];
  let count = 0;
  const sums = new Map();
  let unknown = 0;
  let list, button;

  const number = (joules) => (joules < 0.1 && joules > 0 ? joules.toPrecision(2) : joules.toFixed(joules < 10 ? 2 : 1));

  function text({ energy_joules: joules, status }) {
    if (typeof joules !== "number" || !Number.isFinite(joules)) return "not measured";
    return `${number(joules)} J ${status}`;
  }

  function total() {
    const parts = [...sums].map(([kind, joules]) => `${number(joules)} J ${kind}`);
    if (unknown > 0) parts.push(`${unknown} not measured`);
    return parts.join(" + ");
  }

  function add(energy) {
    const known = typeof energy.energy_joules === "number" && Number.isFinite(energy.energy_joules);
    const kind = KINDS[energy.status];
    if (known && kind === undefined) return; // a number of no kind that we know
    if (known) sums.set(kind, (sums.get(kind) ?? 0) + energy.energy_joules);
    else unknown += 1;
    count += 1;
    answers.unshift({ at: new Date(), said: text(energy) });
    answers.length = Math.min(answers.length, KEPT);
    draw();
  }

  function draw() {
    if (button === undefined) build();
    button.textContent = `⚡ ${answers[0].said}`;
    const rows = answers.map(({ at, said }) => row(at.toLocaleTimeString(), said));
    list.replaceChildren(row(count === 1 ? "1 answer" : `${count} answers`, total()), ...rows);
  }

  function row(left, right) {
    const item = document.createElement("li");
    const label = document.createElement("span");
    const value = document.createElement("span");
    label.className = "quiet";
    label.textContent = left;
    value.textContent = right;
    item.append(label, value);
    return item;
  }

  function build() {
    const host = document.createElement("perjoule-badge");
    const root = host.attachShadow({ mode: "open" });
    const style = new CSSStyleSheet();
    style.replaceSync(STYLE);
    root.adoptedStyleSheets = [style];
    const section = document.createElement("section");
    section.setAttribute("aria-label", "Energy of the answers on this page");
    list = document.createElement("ol");
    list.hidden = true;
    button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-expanded", "false");
    button.title = "What the last answer cost. Click for all of them.";
    button.addEventListener("click", () => {
      list.hidden = !list.hidden;
      button.setAttribute("aria-expanded", String(!list.hidden));
    });
    section.append(list, button);
    root.append(section);
    document.documentElement.append(host);
  }

  document.addEventListener("perjoule-energy", ({ detail }) => {
    try {
      const energy = JSON.parse(detail);
      if (energy !== null && typeof energy === "object") add(energy);
    } catch {
      // not ours
    }
  });
})();
