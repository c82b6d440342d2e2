// The settings: which sites may be read. They are the browser's own permissions, so there is nothing else to keep.

const sites = document.getElementById("sites");
const site = document.getElementById("site");
const said = document.getElementById("said");

// The permission for a site; its ports are not told apart. Throws for what is no address of a site.
function pattern(address) {
  const url = new URL(address);
  if (url.protocol !== "http:" && url.protocol !== "https:") throw new TypeError(`got ${url.protocol}, expected http: or https:`);
  return `${url.protocol}//${url.hostname}/*`;
}

async function draw() {
  const { origins = [] } = await chrome.permissions.getAll();
  sites.replaceChildren(...origins.map((origin) => {
    const item = document.createElement("li");
    const remove = document.createElement("button");
    remove.textContent = "Remove";
    remove.setAttribute("aria-label", `Remove ${origin}`);
    remove.addEventListener("click", () => chrome.permissions.remove({ origins: [origin] }).then(draw, (error) => (said.textContent = error.message)));
    item.append(origin.replace(/\/\*$/, ""), remove);
    return item;
  }));
}

document.getElementById("add").addEventListener("submit", (event) => {
  event.preventDefault();
  let origin;
  try {
    origin = pattern(site.value);
  } catch (error) {
    said.textContent = error.message;
    return;
  }
  chrome.permissions.request({ origins: [origin] }).then((granted) => {
    said.textContent = granted ? "Reload the page to see it." : "Not allowed.";
    return draw();
  }, (error) => (said.textContent = error.message));
});

chrome.tabs.query({ active: true, currentWindow: true }).then(([tab]) => {
  if (tab?.url?.startsWith("http")) site.value = new URL(tab.url).origin;
});
draw();
