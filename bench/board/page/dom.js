// Elements from a tag, attributes and children. Text is always text: nothing of a result is ever read as HTML.
const DATA = JSON.parse(document.getElementById("data").textContent);
const ROWS = new Map(DATA.rows.map((row) => [row.run_id, row]));
const RESULTS = new Map(DATA.results.map((result) => [result.run_id, result]));
const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
const $ = (id) => document.getElementById(id);

// A drawing that is made anew when its place gets another width, at real pixels: text keeps its size on a phone.
function drawing(label, height, draw) {
  const place = h("div", { class: "drawing" });
  let before = 0;
  const again = () => {
    const width = Math.round(place.clientWidth);
    if (!width || width === before) return;
    before = width;
    const tall = typeof height === "function" ? height(width) : height;
    const svg = s("svg", { viewBox: `0 0 ${width} ${tall}`, role: "img", "aria-label": label });
    draw(svg, width, tall);
    place.replaceChildren(svg);
  };
  queueMicrotask(again); // as soon as it has been put into the page
  new ResizeObserver(again).observe(place);
  return place;
}

// Buttons of which one is pressed.
function choice(label, options, chosen, onchoose) {
  return h(
    "div",
    { class: "choice", role: "group", "aria-label": label },
    options.map(([value, text]) =>
      h("button", { type: "button", "data-value": value, "aria-pressed": String(value === chosen), onclick: () => onchoose(value) }, text),
    ),
  );
}

function showTip(children, x, y) {
  const tip = $("tip");
  tip.replaceChildren(...children.flat(Infinity).filter(Boolean));
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const left = x + 14 + width > innerWidth - 8 ? x - 14 - width : x + 14;
  tip.style.left = `${Math.max(8, Math.min(left, innerWidth - width - 8))}px`;
  tip.style.top = `${Math.max(8, y - height - 12 < 8 ? y + 16 : y - height - 12)}px`;
}

const hideTip = () => {
  $("tip").hidden = true;
};
