// Puts the views together: all results, one, or two beside each other, as the address says.
function show() {
  readState();
  hideTip();
  const single = DATA.rows.length === 1;
  const run = RESULTS.get(state.run) ?? (single ? RESULTS.get(DATA.rows[0].run_id) : null);
  const [a, b] = [RESULTS.get(state.a), RESULTS.get(state.b)];
  const comparing = state.view === "compare" && a && b;
  const crumb = (...parts) => $("crumbs").replaceChildren(...parts.filter(Boolean));
  const back = !single && h("a", { href: hashOf({ run: "", view: "" }) }, "← All results");
  if (comparing) {
    crumb(back);
    render("compare", compareView(a, b), "A beside B");
  } else if (run) {
    crumb(
      back,
      back && h("a", { class: "aside", href: hashOf({ a: run.run_id, b: nearest(run), view: "compare" }) }, "Compare with another"),
    );
    render("detail", detailView(run), title(ROWS.get(run.run_id)));
  } else {
    crumb();
    render("all", boardView(), "What a token costs in joules");
  }
}

// What a run is best compared with first: another load of the same model, else whatever comes.
function nearest(run) {
  const others = DATA.rows.filter((row) => row.run_id !== run.run_id);
  return (others.find((row) => row.model_id === run.setting.model_id) ?? others[0])?.run_id ?? "";
}

function render(view, content, name) {
  const main = $("main");
  main.className = view;
  main.replaceChildren(...content.flat(Infinity).filter(Boolean));
  document.title = `${name} – perjoule`;
  if (render.before && render.before !== location.hash) {
    scrollTo(0, 0);
    main.focus({ preventScroll: true });
  }
  render.before = location.hash || "#";
}

function themeButton() {
  const root = document.documentElement,
    button = $("theme");
  const names = { auto: "Auto", light: "Light", dark: "Dark" };
  const saved = () => {
    try {
      return localStorage.getItem("perjoule-theme");
    } catch {
      return null;
    }
  };
  const apply = (theme) => {
    if (theme === "auto") delete root.dataset.theme;
    else root.dataset.theme = theme;
    button.textContent = `Theme: ${names[theme].toLowerCase()}`;
    button.setAttribute("aria-label", `Theme: ${names[theme]}. Change it.`);
    button.dataset.theme = theme;
  };
  apply(saved() in names ? saved() : "auto");
  button.addEventListener("click", () => {
    const next = { auto: "dark", dark: "light", light: "auto" }[button.dataset.theme];
    apply(next);
    try {
      localStorage.setItem("perjoule-theme", next);
    } catch {
      /* a page without storage forgets */
    }
  });
}

$("foot").append(
  h(
    "p",
    null,
    "Made by perjoule. This page is one file and loads nothing. J: joules; ITL: time between output tokens; TTFT: time to its first content; n counts what a number is made of.",
  ),
);
addEventListener("hashchange", show);
addEventListener("beforeprint", () =>
  document.querySelectorAll("details:not([open])").forEach((one) => {
    one.open = true;
    one.dataset.print = "";
  }),
);
addEventListener("afterprint", () =>
  document.querySelectorAll("details[data-print]").forEach((one) => {
    one.open = false;
    delete one.dataset.print;
  }),
);
addEventListener("keydown", (event) => {
  if (event.key === "Escape") hideTip();
});
themeButton();
show();
globalThis.perjoule = { paretoFront, dominates, recommend, differenceOf, num, withUnit, interval };
