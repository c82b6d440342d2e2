// The events: read with fetch, so that a token can go in a header and never into a URL; asked for again when they end.
const SILENT_MS = 5000, // an event comes four times a second
  FIRST_MS = 500,
  MOST_MS = 5000;
const TOKEN = "perjoule-token";
const link = { said: "connecting", bad: false, lostAt: null };

const token = () => {
  try {
    return sessionStorage.getItem(TOKEN);
  } catch {
    return token.kept ?? null;
  }
};
const keepToken = (value) => {
  token.kept = value;
  try {
    if (value === null) sessionStorage.removeItem(TOKEN);
    else sessionStorage.setItem(TOKEN, value);
  } catch {
    /* it is kept until the page is closed */
  }
};

class Refused extends Error {}

async function listen(onevent, signal, abort) {
  const headers = token() ? { Authorization: `Bearer ${token()}` } : {};
  let silence = setTimeout(abort, SILENT_MS);
  try {
    const response = await fetch("energy/live", { headers, signal, cache: "no-store" });
    if (response.status === 401) throw new Refused();
    if (!response.ok) throw new Error((await response.json()).error?.message ?? `status ${response.status}`);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let text = ""; ; ) {
      const { value, done } = await reader.read();
      if (done) throw new Error("the sidecar has said goodbye");
      clearTimeout(silence);
      silence = setTimeout(abort, SILENT_MS);
      const events = (text + value).split("\n\n");
      text = events.pop();
      for (const event of events) {
        const [, name, data] = event.match(/^event: (\w+)\ndata: (.*)$/s) ?? [];
        if (name) onevent(name, JSON.parse(data));
      }
    }
  } finally {
    clearTimeout(silence);
  }
}

// Whether somebody wants to be told. Who pauses is told nothing meanwhile, and the last minutes afterwards.
const isWatched = () => !document.hidden && !frame.paused;

// For ever; while nobody looks, nobody is asked.
async function keepListening(onevent, onlink, onrefused) {
  let wait = FIRST_MS;
  const tell = (said, bad) => {
    link.lostAt = bad ? (link.lostAt ?? Date.now()) : null;
    Object.assign(link, { said, bad });
    onlink();
  };
  for (;;) {
    while (!isWatched()) await new Promise((on) => document.addEventListener("visibilitychange", on, { once: true }));
    const controller = new AbortController();
    const abort = () => controller.abort();
    const hide = () => isWatched() || abort();
    document.addEventListener("visibilitychange", hide);
    try {
      await listen(
        (name, said) => {
          wait = FIRST_MS;
          onevent(name, said);
          if (link.said !== "live") tell("live", false);
        },
        controller.signal,
        abort,
      );
    } catch (error) {
      if (error instanceof Refused) {
        tell("locked", true);
        await onrefused();
        wait = 0;
      } else if (isWatched()) tell(error.name === "TypeError" || error.name === "AbortError" ? "no answer" : error.message, true);
    } finally {
      document.removeEventListener("visibilitychange", hide);
    }
    if (isWatched()) await new Promise((on) => setTimeout(on, wait));
    wait = Math.min(Math.max(wait * 2, FIRST_MS), MOST_MS);
  }
}
