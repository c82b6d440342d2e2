// What is around the numbers: whether they are live, what is wrong, themes, keys, the token.
const THEMES = { auto: "Auto", light: "Light", dark: "Dark" };

function linkLine() {
  const lost = link.bad && link.lostAt !== null ? (Date.now() - link.lostAt) / 1000 : 0;
  const text = link.bad ? (link.said === "locked" ? "locked" : `not live${lost >= 1 ? ` for ${ago(lost)}` : ""}: ${link.said}`) : frame.paused ? "paused" : link.said;
  const place = $("link");
  say(place, text);
  place.className = link.bad ? "bad" : link.said === "live" && !frame.paused ? "good" : "";
  document.body.classList.toggle("stale", link.bad);
}

function alarms() {
  const { news, state } = live,
    found = [];
  const unsure = unreal();
  $("unreal").hidden = !unsure;
  if (unsure) say($("unreal"), unsure === "simulated" ? "Every joule and watt here is simulated: no sensor stands behind them." : "Every joule and watt here is estimated by a model: no energy counter stands behind them.");
  for (const mark of document.querySelectorAll(".unreal")) say(mark, unsure || "");
  if (news.balance && !news.balance.conserved) found.push("The joules do not add up.");
  if (state?.why.draining) found.push("The sidecar is draining: it takes no new requests.");
  if (state && !state.why.upstream_answers) found.push("The engine does not answer.");
  if (state?.why.energy_failing) found.push("The energy counter cannot be read: requests are served, their joules will be missing.");
  for (const sink of state?.sinks ?? []) if (sink.failing) found.push(`Records cannot be stored in ${sink.name}: ${sink.failing}`);
  $("alarms").hidden = !found.length;
  rows($("alarms"), found, () => {
    const row = h("li");
    row.tell = (text) => say(row, text);
    return row;
  });
  if (state) say($("engine"), [state.setting.engine, state.setting.model_id && shortName(state.setting.model_id), state.boards.map((board) => board.name).filter((name, at, all) => all.indexOf(name) === at).join(", ")].filter(Boolean).join(" · "));
  document.title = `${withUnit(news.power_w, "W")}${unsure ? ` ${unsure}` : ""} – perjoule live`;
}

const frame = { paused: false };

function setTheme(theme) {
  want("theme", theme);
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  say($("theme"), `Theme: ${THEMES[theme].toLowerCase()}`);
}

function keysDialog(keys) {
  const dialog = $("keys");
  dialog.append(
    h("h2", { id: "keys-head" }, "Keys"),
    h("dl", null, keys.map(([key, what]) => h("div", null, h("dt", null, h("kbd", null, key)), h("dd", null, what)))),
    h("p", { class: "about" }, "On the chart, ← and → move the cursor, with shift by ten seconds."),
    h("button", { type: "button", class: "button", onclick: () => dialog.close() }, "Close"),
  );
  return dialog;
}

// Asks for the operator's token; answers once one has been given.
function askForToken() {
  const dialog = $("login");
  const again = token() !== null;
  return new Promise((on) => {
    const field = h("input", { type: "password", id: "token", name: "token", autocomplete: "current-password", required: true, "aria-describedby": "token-about" });
    dialog.replaceChildren(
      h(
        "form",
        {
          onsubmit: (event) => {
            event.preventDefault();
            keepToken(field.value.trim());
            dialog.close();
            on();
          },
        },
        h("h2", { id: "login-head" }, "This page is locked"),
        h("input", { autocomplete: "username", value: "operator", hidden: true }), // for who keeps passwords
        h("label", { for: "token" }, "The operator's token"),
        field,
        h(
          "p",
          { class: again ? "bad" : "about", id: "token-about", role: again ? "alert" : null },
          again ? "That token was refused." : "The one of --admin-token-file. It is kept until this tab is closed.",
        ),
        h("button", { type: "submit", class: "button" }, "Open"),
      ),
    );
    dialog.oncancel = (event) => event.preventDefault(); // there is nothing behind it to see
    if (!dialog.open) dialog.showModal();
    field.focus();
  });
}
