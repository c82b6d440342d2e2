// Power and requests in flight over the run, on one axis of time; steady time is shaded.
function timelineChart(result) {
  const { t_s: times = [], power_w: power = [], in_flight: inFlight = [], temperature_c: heat = [], steady = [] } = result.timeline ?? {};
  if (times.length < 2 || !power.some(known)) return h("p", { class: "empty" }, "This result has no timeline.");
  const label = `Power and requests in flight over ${num(times.at(-1) - times[0])} s; power between ${num(Math.min(...power.filter(known)))} and ${num(Math.max(...power.filter(known)))} W.`;
  return drawing(
    label,
    (width) => (width < 520 ? 300 : 320),
    (svg, width, height) => {
      const left = 52,
        right = width - 10,
        top = 24,
        split = Math.round(height * 0.6),
        bottom = height - 42;
      const x = linearScale(times[0], times.at(-1), left, right);
      const watts = scaleOf(power, false, split - 18, top, { air: 0.12 });
      const many = scaleOf(inFlight, false, bottom, split + 20);
      for (const [from, to] of steady) {
        const begin = Math.max(left, x(from)),
          end = Math.min(right, x(to));
        svg.append(
          s("rect", { class: "steady", x: begin, y: top, width: Math.max(0, end - begin), height: bottom - top }),
          end - begin > 50 ? s("text", { class: "steady-label", x: begin + 6, y: top - 6 }, "steady") : "",
        );
      }
      leftAxis(svg, watts, { left, right, label: "W", many: 4 });
      svg.append(
        s("path", { class: "area", d: areaOf(times, power, x, watts, split - 18) }),
        s("path", { class: "line power", d: lineOf(times, power, x, watts) }),
      );
      if (inFlight.some(known)) {
        leftAxis(svg, many, { left, right, label: "requests in flight", many: 2, labelY: split + 10 });
        svg.append(s("path", { class: "line flight", d: lineOf(times, inFlight, x, many) }));
      }
      bottomAxis(svg, x, { left, right, y: bottom, label: "s since the start" });
      const cursor = svg.appendChild(s("line", { class: "cursor", y1: top, y2: bottom, visibility: "hidden" }));
      svg.addEventListener("pointermove", (event) => {
        const at = x.back(event.clientX - svg.getBoundingClientRect().left);
        const index = times.reduce((best, time, i) => (Math.abs(time - at) < Math.abs(times[best] - at) ? i : best), 0);
        fill(cursor, { x1: x(times[index]), x2: x(times[index]), visibility: "visible" }, []);
        const line = (name, value) => h("div", { class: "tip-line" }, h("span", null, name), h("b", null, value));
        showTip(
          [
            line("at", `${num(times[index])} s`),
            line("power", withUnit(power[index], "W")),
            line("in flight", num(inFlight[index])),
            known(heat[index]) && line("temperature", `${num(heat[index])} °C`),
          ],
          event.clientX,
          event.clientY,
        );
      });
      svg.addEventListener("pointerleave", () => {
        cursor.setAttribute("visibility", "hidden");
        hideTip();
      });
    },
  );
}

// A line through what is known; where something is missing, it is broken.
function lineOf(times, values, x, y) {
  let pen = "M";
  return times
    .map((time, at) => {
      if (!known(values[at])) {
        pen = "M";
        return "";
      }
      const part = `${pen}${x(time).toFixed(1)} ${y(values[at]).toFixed(1)}`;
      pen = "L";
      return part;
    })
    .join("");
}

function areaOf(times, values, x, y, floor) {
  const there = times.map((time, at) => [time, values[at]]).filter(([, value]) => known(value));
  if (!there.length) return "";
  return (
    `M${x(there[0][0]).toFixed(1)} ${floor}` +
    there.map(([time, value]) => `L${x(time).toFixed(1)} ${y(value).toFixed(1)}`).join("") +
    `L${x(there.at(-1)[0]).toFixed(1)} ${floor}Z`
  );
}
