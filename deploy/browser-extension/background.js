// Keeps the scripts where the user has let them in, and nowhere else: the granted origins are the only setting there is.

const HEADERS = "X-Energy-Joules, X-Energy-Active-Joules, X-Energy-Uncertainty-Joules, X-Energy-Method, X-Energy-Status, X-Energy-Record";
const EXPOSE = 1; // the number of the rule

async function follow() {
  const { origins = [] } = await chrome.permissions.getAll();
  await chrome.scripting.unregisterContentScripts();
  if (origins.length > 0) {
    const everywhere = { matches: origins, runAt: "document_start", allFrames: true };
    await chrome.scripting.registerContentScripts([
      { id: "badge", js: ["badge.js"], world: "ISOLATED", ...everywhere },
      { id: "watch", js: ["watch.js"], world: "MAIN", ...everywhere },
    ]);
  }
  await chrome.declarativeNetRequest.updateDynamicRules({ removeRuleIds: [EXPOSE], addRules: origins.length > 0 ? [exposing(origins)] : [] });
}

// A page on another origin than its endpoint may read only the headers that the answer exposes; engines do not know ours.
function exposing(origins) {
  const hosts = origins.map((origin) => origin.split("/")[2].replace(/:\d+$/, ""));
  return {
    id: EXPOSE,
    action: { type: "modifyHeaders", responseHeaders: [{ header: "Access-Control-Expose-Headers", operation: "append", value: HEADERS }] },
    condition: { resourceTypes: ["xmlhttprequest"], ...(hosts.some((host) => host.includes("*")) ? {} : { requestDomains: hosts }) },
  };
}

let last = Promise.resolve();
function inTurn() {
  last = last.then(follow, follow);
}

for (const change of [chrome.runtime.onInstalled, chrome.runtime.onStartup, chrome.permissions.onAdded, chrome.permissions.onRemoved]) {
  change.addListener(inTurn);
}
