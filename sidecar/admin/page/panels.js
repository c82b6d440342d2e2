// The numbers: what is drawn now, where every joule went, how long requests take, what stands behind it all.
function tile(name, joules = false) {
  const value = h("dd", { class: "value" }),
    small = h("dd", { class: "sub" }),
    place = h("div", { class: "tile" }, h("dt", null, name, joules && h("em", { class: "unreal" })), value, small);
  return { place, tell: (text, about) => (say(value, text), say(small, about)) };
}

function tiles(place) {
  const power = tile("Power now", true),
    token = tile("J per output token", true),
    flight = tile("In flight"),
    speed = tile("Output tokens a second"),
    first = tile("Time to first token");
  place.append(...[power, token, flight, speed, first].map((one) => one.place));
  return () => {
    const { news, state } = live;
    const minute = since(60),
      breath = since(10),
      tokens = sum(minute.map((slot) => slot[4]));
    power.tell(withUnit(news.power_w, "W"), news.power_w === null ? "not known now" : plural(state?.boards.length || 1, "board"));
    token.tell(
      tokens > 0 ? withUnit(sum(minute.map(requestsJ)) / tokens, "J") : NONE,
      `last minute${known(state?.steady_j_per_token) ? `; steady ${withUnit(state.steady_j_per_token, "J")}` : ""}`,
    );
    flight.tell(count(news.in_flight), !state ? "" : isWhole(state) ? `${plural(state.records, "request")} ended in 5 min` : "");
    speed.tell(breath.length ? num(sum(breath.map((slot) => slot[4])) / (breath.length * live.slotS)) : NONE, "last ten seconds");
    first.tell(state?.ttft ? withUnit(state.ttft[0], "ms") : NONE, state?.ttft ? `median; 99 % within ${withUnit(state.ttft[2], "ms")}` : "median of five minutes");
  };
}

// measured = requests + idle + unattributed, in whole microjoules.
const ACCOUNTS = [
  ["requests", "requests"],
  ["idle", "idle"],
  ["unattributed", "unattributed"],
];
function ledger(place) {
  const bar = h("div", { class: "closure", role: "img" }, ACCOUNTS.map(([name]) => h("span", { class: name })));
  const cells = new Map([...ACCOUNTS.map(([name]) => name), "measured"].map((name) => [name, { uj: h("td", { "data-account": name }), j: h("td") }]));
  const verdict = h("p", { class: "verdict" });
  const row = (name, text, mark) => {
    const { uj, j } = cells.get(name);
    return h("tr", { class: name }, h("th", { scope: "row" }, mark, text), uj, j);
  };
  const table = h(
    "table",
    { class: "bill" },
    h("thead", null, h("tr", null, h("th", { scope: "col" }, "since the start"), h("th", { scope: "col" }, "µJ"), h("th", { scope: "col" }, "share"))),
    h("tbody", null, ACCOUNTS.map(([name, text]) => row(name, text, h("i", { class: `swatch ${name}` })))),
    h("tfoot", null, row("measured", "measured")),
  );
  place.append(bar, h("div", { class: "scroll" }, table), verdict);
  return () => {
    const { balance } = live.news;
    bar.hidden = table.hidden = !balance;
    if (!balance) {
      verdict.className = "verdict";
      return say(verdict, "No energy source, so no joules: perjoule probe says why.");
    }
    const all = Number(balance.measured_uj);
    const shares = ACCOUNTS.map(([name]) => (all ? Number(balance[`${name}_uj`]) / all : 0));
    ACCOUNTS.forEach(([name], at) => {
      bar.children[at].style.width = `${shares[at] * 100}%`;
      say(cells.get(name).uj, exact(balance[`${name}_uj`]));
      say(cells.get(name).j, percent(shares[at]));
    });
    say(cells.get("measured").uj, exact(balance.measured_uj));
    say(cells.get("measured").j, withUnit(joulesOf(balance.measured_uj), "J", 4));
    bar.setAttribute("aria-label", ACCOUNTS.map(([, text], at) => `${percent(shares[at])} ${text}`).join(", "));
    verdict.className = `verdict ${balance.conserved ? "good" : "bad"}`;
    return say(verdict, balance.conserved ? "It adds up, to the microjoule." : "It does not add up: please report this.");
  };
}

const LATENCIES = [
  ["ttft", "first token", "from arrival"],
  ["tpot", "per output token", "after the first"],
  ["e2e", "whole request", "from arrival"],
];
function latency(place) {
  const cells = Object.fromEntries(LATENCIES.map(([key]) => [key, [h("td"), h("td"), h("td")]]));
  const about = h("p", { class: "about" });
  place.append(
    h(
      "table",
      null,
      h("thead", null, h("tr", null, ["time to", "median", "90 %", "99 %"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", null, LATENCIES.map(([key, name, what]) => h("tr", null, h("th", { scope: "row" }, name, h("small", null, what)), cells[key]))),
    ),
    about,
  );
  return () => {
    const { state } = live;
    if (!state) return;
    for (const [key] of LATENCIES) cells[key].forEach((cell, at) => say(cell, withUnit(state[key]?.[at], "ms")));
    const { completed = 0, errored = 0, cancelled = 0 } = state.outcomes;
    say(
      about,
      `${isWhole(state) ? "Five minutes" : "The latest"}: ${count(completed)} completed, ${count(errored)} errored, ${count(cancelled)} cancelled. Times are of completed ones` +
        `${known(state.j_per_token) ? `; all together took ${withUnit(state.j_per_token, "J")} per output token` : ""}` +
        `${Object.entries(state.j_per_unit).map(([unit, j]) => `; ${withUnit(j, "J")} per ${UNITS[unit] ?? unit}`).join("")}.`,
    );
  };
}

const UNITS = { image: "image", video_second: "second of video", audio_second: "second of sound" };

// Whether no request of the five minutes had to be forgotten.
function isWhole(state) {
  return state.records < state.records_most;
}

// Each line: how it is (good, bad or neither), and what there is to say.
function behind(place) {
  const line = () => {
    const name = h("dt"),
      text = h("dd"),
      row = h("div", null, name, text);
    row.tell = ([how, title, said]) => {
      row.className = how;
      say(name, title);
      say(text, said);
    };
    return row;
  };
  return () => {
    const { state } = live;
    if (!state) return;
    const { setting, why } = state;
    const lines = [];
    const energy = setting.energy_source === null ? "none: no joules are shown" : [...new Set([setting.energy_source, setting.energy_status, setting.boundary])].join(", ");
    lines.push([why.energy_failing ? "bad" : setting.energy_source === null ? "" : "good", "Energy", why.energy_failing ? `${energy}: it cannot be read now` : energy]);
    for (const board of state.boards) {
      const parts = [withUnit(board.power_w, "W") + (known(board.power_limit_w) ? ` of ${withUnit(board.power_limit_w, "W")}` : "")];
      if (known(board.temperature_c)) parts.push(`${board.temperature_c} °C`);
      if (board.held_back_by?.length) parts.push(`held back by ${board.held_back_by.join(", ")}`);
      if (why.shared_boards?.[board.uuid]) parts.push(`${why.shared_boards[board.uuid]} processes compute on it`);
      lines.push([board.held_back_by?.length || why.shared_boards?.[board.uuid] ? "warn" : "good", board.name, parts.join(", ")]);
    }
    for (const one of setting.energy_source === null ? [] : state.calibration) {
      const learned = one.state === "prior" ? "physics, until traffic has taught more" : `fitted, id ${one.id}`;
      const error = known(one.window_error) ? `, a second is predicted within ${percent(one.window_error)}` : "";
      lines.push([one.state === "fitted" ? "good" : "", state.calibration.length > 1 ? `Calibration ${one.pool + 1}` : "Calibration", `${setting.energy_method}, ${learned}${error}`]);
    }
    lines.push([why.upstream_answers ? "good" : "bad", "Engine", [setting.engine, setting.engine_version, why.upstream_answers ? "" : "does not answer"].filter(Boolean).join(" ")]);
    for (const sink of state.sinks) {
      const counts = `${count(sink.stored)} stored, ${count(sink.pending)} pending${sink.dropped ? `, ${count(sink.dropped)} lost` : ""}`;
      lines.push([sink.failing || sink.dropped ? "bad" : "good", `Records to ${sink.name}`, counts + (sink.failing ? `; failing: ${sink.failing}` : "")]);
    }
    if (!state.sinks.length) lines.push(["", "Records", "kept in memory only (--ledger off)"]);
    rows(place, lines, line);
  };
}
