// Elements from a tag, attributes and children. Text is always text: no name of a model or a tenant is ever read as HTML.
function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const $ = (id) => document.getElementById(id);

// Puts a text where it is not already: the browser has nothing to do for what has not changed, nor has a screen reader.
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// As many rows as there are values, each made once and then told its value: a list that changes four times a second is not made anew.
function rows(place, values, make) {
  while (place.children.length > values.length) place.lastChild.remove();
  values.forEach((value, at) => {
    const row = place.children[at] ?? place.appendChild(make());
    row.tell(value);
  });
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
