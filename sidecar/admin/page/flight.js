// Requests as they run, the oldest first, each with the joules of the windows that have been divided so far.
function flight(place) {
  const body = h("tbody");
  const table = h(
    "table",
    { class: "flight" },
    h("thead", null, h("tr", null, ["Who", "tokens", "for", "joules"].map((name) => h("th", { scope: "col" }, name)))),
    body,
  );
  const more = h("p", { class: "about" });
  place.append(table, more);
  const line = () => {
    const name = h("span"),
      tenant = h("small"),
      cells = [h("td"), h("td"), h("td")];
    const row = h("tr", null, h("th", { scope: "row" }, name, tenant), cells);
    row.tell = (request) => {
      row.dataset.id = request.id;
      say(name, request.model === null ? "no model named" : shortName(request.model));
      name.title = request.model ?? "";
      say(tenant, request.tenant ?? "no key");
      say(cells[0], request.begun ? count(request.frames) : "waiting");
      cells[0].className = request.begun ? "" : "aside";
      say(cells[1], `${request.age_s.toFixed(1)} s`);
      say(cells[2], request.j === null ? NONE : request.j < 100 ? request.j.toFixed(request.j < 10 ? 2 : 1) : num(request.j));
    };
    return row;
  };
  return () => {
    const { requests, in_flight: many } = live.news;
    rows(body, requests, line);
    table.hidden = !requests.length;
    say($("flight-count"), count(many));
    const beyond = many - requests.length;
    say(more, !many ? "Nothing runs." : beyond > 0 ? `and ${count(beyond)} more, younger than these` : "");
  };
}
