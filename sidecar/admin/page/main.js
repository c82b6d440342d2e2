// Everything together: an event is taken, and what it changes is drawn.
const chart = powerChart($("power"));
const fast = [tiles($("tiles")), ledger($("ledger")), flight($("flight")), usersTable($("users")), chart.draw, alarms];
const slow = [latency($("latency")), behind($("behind")), chart.describe];

function draw() {
  if (!live.news) return;
  document.body.classList.remove("waiting");
  for (const part of [...fast, ...slow]) part();
}

const SWITCHES = {
  by: ["Stacked by", [["model", "Models"], ["tenant", "Tenants"]]],
  range: ["Span", [["60", "1 min"], ["300", "5 min"]]],
};
function choices() {
  const pressed = document.activeElement?.dataset?.value;
  $("choices").replaceChildren(
    ...Object.entries(SWITCHES).map(([key, [label, options]]) =>
      choice(label, options, wanted[key], (value) => {
        want(key, value);
        choices();
        draw();
      }),
    ),
  );
  if (pressed) $("choices").querySelector(`[data-value="${pressed}"]`)?.focus();
}
const flip = (key) => () => {
  const values = SWITCHES[key][1].map(([value]) => value);
  want(key, values[(values.indexOf(wanted[key]) + 1) % values.length]);
  choices();
  draw();
};

function pause() {
  frame.paused = !frame.paused;
  $("pause").setAttribute("aria-pressed", String(frame.paused));
  say($("pause"), frame.paused ? "Go on" : "Pause");
  document.dispatchEvent(new Event("visibilitychange"));
  linkLine();
}

function nextTheme() {
  const names = Object.keys(THEMES);
  setTheme(names[(names.indexOf(wanted.theme) + 1) % names.length]);
  chart.restyle();
}

const KEYS = [
  ["m", "stack by model or by tenant", flip("by")],
  ["r", "one minute or five", flip("range")],
  ["p", "pause, go on", pause],
  ["t", "theme: auto, light, dark", nextTheme],
  ["?", "these keys", () => dialog.showModal()],
];
const dialog = keysDialog(KEYS);
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]") || event.target.tagName === "INPUT") return;
  KEYS.find(([key]) => key === event.key)?.[2]();
});

$("phases").append(
  ...Object.entries(PHASES).map(([name, [colour, about]]) => h("li", { title: about }, swatch(`var(${colour})`), name)),
);
$("foot").append(
  h("p", null, "Joules of a request are those of the windows that have been divided so far; a window closes within a second. The same numbers: /energy/balance, /energy/in-flight, /metrics."),
);
$("pause").addEventListener("click", pause);
$("theme").addEventListener("click", nextTheme);
$("help").addEventListener("click", () => dialog.showModal());
setTheme(wanted.theme in THEMES ? wanted.theme : "auto");
choices();
setInterval(linkLine, 1000);
keepListening(
  (name, said) => {
    take(name, said);
    if (!frame.paused) draw();
  },
  linkLine,
  askForToken,
);
globalThis.perjoule = { live, users, since, wanted };
