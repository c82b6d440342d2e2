// What the sidecar has told, and how the one who looks wants to see it.
const live = { slots: [], news: null, state: null, slotS: 0.5, slotsMost: 600 };
const BY = { model: 5, tenant: 6 }; // where a slot has what each took
const COLOURS = 6;

const wanted = { by: "model", range: "300", theme: "auto" };
for (const key of Object.keys(wanted)) {
  try {
    wanted[key] = localStorage.getItem(`perjoule-${key}`) ?? wanted[key];
  } catch {
    /* a page without storage forgets */
  }
}
if (!(wanted.by in BY)) wanted.by = "model";
if (!["60", "300"].includes(wanted.range)) wanted.range = "300";

function want(key, value) {
  wanted[key] = value;
  try {
    localStorage.setItem(`perjoule-${key}`, value);
  } catch {
    /* as above */
  }
}

// Takes one event.
function take(name, said) {
  if (name === "past") {
    Object.assign(live, { slots: said.slots, slotS: said.slot_s, slotsMost: said.slots_most, news: said.news });
    live.state = said.state?.setting ? said.state : live.state;
  } else if (name === "news") {
    live.news = said;
    live.slots.push(...said.slots);
    const oldest = said.now - live.slotsMost;
    while (live.slots.length && live.slots[0][0] < oldest) live.slots.shift();
  } else if (name === "state") live.state = said;
}

// The slots of the last seconds.
function since(seconds) {
  const from = live.news.now - seconds / live.slotS;
  let at = live.slots.length;
  while (at > 0 && live.slots[at - 1][0] >= from) at -= 1;
  return live.slots.slice(at);
}

// So many neighbours as one: of five minutes, half a second is less than can be seen.
function merged(slots, many) {
  const found = [];
  for (const slot of many > 1 ? slots : []) {
    const number = Math.floor(slot[0] / many) * many;
    if (found.at(-1)?.[0] !== number) found.push([number, null, 0, 0, 0, [], [], 0, new Map()]);
    const one = found.at(-1);
    for (const at of [2, 3, 4]) one[at] += slot[at];
    for (const at of [5, 6]) one[at].push(...slot[at]);
    one[7] += 1;
    one[8].set(slot[1], (one[8].get(slot[1]) ?? 0) + 1);
    one[1] = [...one[8]].sort((a, b) => b[1] - a[1])[0][0];
  }
  return many > 1 ? found : slots.map((slot) => [...slot, 1]);
}

const sum = (values) => values.reduce((total, value) => total + value, 0);
const requestsJ = (slot) => sum(slot[5].map(([, joules]) => joules));

// Who took how much in the slots, the greatest first; the ones without a colour of their own together.
function users(slots) {
  const totals = new Map();
  for (const slot of slots) for (const [name, joules] of slot[BY[wanted.by]]) totals.set(name, (totals.get(name) ?? 0) + joules);
  const rest = totals.get("") ?? 0;
  totals.delete("");
  const ranked = [...totals].sort((a, b) => b[1] - a[1]);
  const named = ranked.slice(0, COLOURS);
  const others = rest + sum(ranked.slice(COLOURS).map(([, joules]) => joules));
  return { named, others, many: ranked.length - named.length };
}

// A name keeps its colour for as long as it is among the first.
const colours = new Map();
function colourOf(named) {
  const there = new Set(named.map(([name]) => name));
  for (const name of colours.keys()) if (!there.has(name)) colours.delete(name);
  for (const name of there) {
    if (colours.has(name)) continue;
    const taken = new Set(colours.values());
    colours.set(
      name,
      [...Array(COLOURS).keys()].find((number) => !taken.has(number)),
    );
  }
  return colours;
}

// What a name is called: a model without its owner, unless that would make two of them one.
function nameOf(name, among = []) {
  if (name === null) return wanted.by === "tenant" ? "no key" : "no model named";
  const short = wanted.by === "model" ? shortName(name) : name;
  return among.some(([other]) => other !== null && other !== name && shortName(other) === short) ? name : short;
}
const unreal = () => ["simulated", "estimated"].includes(live.state?.setting.energy_status) && live.state.setting.energy_status;
