// What is shown, kept in the address: a link to the page is a link to the view.
const DEFAULTS = {
  run: "",
  a: "",
  b: "",
  model: "",
  gpu: "",
  workload: "",
  valid: "",
  q: "",
  p: "p50",
  log: "1",
  sort: "energy_per_output_token_j",
  dir: "asc",
  deadline: "",
  budget: "",
  hide: "",
  view: "",
};
const PERCENTILES = ["p50", "p90", "p95", "p99"];
const state = { ...DEFAULTS };

function readState() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const [key, value] of Object.entries(DEFAULTS)) state[key] = given.get(key) ?? value;
  if (!PERCENTILES.includes(state.p)) state.p = DEFAULTS.p;
  if (!["asc", "desc"].includes(state.dir)) state.dir = DEFAULTS.dir;
  for (const key of ["deadline", "budget"]) if (!(Number(state[key]) > 0)) state[key] = "";
}

function hashOf(changes) {
  const next = { ...state, ...changes };
  const said = new URLSearchParams(Object.entries(next).filter(([key, value]) => value !== DEFAULTS[key]));
  return `#${said}`;
}

// Another view is a step that Back undoes; a filter is not.
function go(changes) {
  location.hash = hashOf(changes);
}
function set(changes) {
  Object.assign(state, changes);
  history.replaceState(null, "", hashOf({}));
}

const hidden = () => new Set(state.hide ? state.hide.split("|") : []);
