// In the page's own world: reads the energy of answers while the page reads them, and hands it to badge.js.
//
// The page gets what it would have got, as fast as it asks and no faster. A stream is not cloned: a clone would be read to its end
// behind the page's back, and a page that cancels would no longer stop the engine.
(() => {
  const COMMENT = ": energy ";
  const fetched = window.fetch;
  const sent = XMLHttpRequest.prototype.send;

  function tell(energy) {
    document.dispatchEvent(new CustomEvent("perjoule-energy", { detail: JSON.stringify(energy) }));
  }

  // What X-Energy-* headers say; null where there are none, or where this page may not read them.
  function ofHeaders(get) {
    const status = get("x-energy-status");
    if (status === null) return null;
    const number = (name) => (get(name) === null ? null : Number(get(name)));
    return { energy_joules: number("x-energy-joules"), uncertainty_joules: number("x-energy-uncertainty-joules"), status,
             record: get("x-energy-record") };
  }

  // Finds the comment in a stream, however it is cut. Only a server can begin a line with it: what a model writes is inside JSON.
  class Lines {
    constructor() {
      this.decoder = new TextDecoder();
      this.rest = "";
    }

    feed(bytes) {
      const lines = (this.rest + this.decoder.decode(bytes, { stream: true })).split(/\r\n|\r|\n/);
      const rest = lines.pop();
      const couldBe = rest.length < COMMENT.length ? COMMENT.startsWith(rest) : rest.startsWith(COMMENT) && rest.length < 1e6;
      this.rest = couldBe ? rest : "x"; // of any other line nothing need be kept
      for (const line of lines) Lines.read(line);
    }

    static read(line) {
      if (!line.startsWith(COMMENT)) return;
      try {
        tell(JSON.parse(line.slice(COMMENT.length)));
      } catch {
        // a comment of somebody else's
      }
    }
  }

  // The same bytes when they are asked for; who cancels this cancels the engine's stream. `failed` is told why it breaks off.
  function watched(body, failed) {
    const lines = new Lines();
    const reader = body.getReader();
    const read = () => reader.read().catch((error) => {
      failed(error);
      throw error;
    });
    return new ReadableStream({
      type: "bytes",
      async pull(controller) {
        let { done, value } = await read();
        while (!done && value.byteLength === 0) ({ done, value } = await read());
        if (done) {
          controller.close();
          controller.byobRequest?.respond(0);
          return;
        }
        lines.feed(value);
        controller.enqueue(value);
      },
      cancel: (reason) => reader.cancel(reason),
    });
  }

  // A response that says of itself what the original says, and fails as the original does.
  function dressed(made, original, why) {
    const set = (name, value) => Object.defineProperty(made, name, { value, configurable: true, writable: true });
    for (const name of ["url", "type", "redirected"]) set(name, original[name]);
    set("clone", () => dressed(Response.prototype.clone.call(made), original, why));
    for (const name of ["arrayBuffer", "blob", "bytes", "json", "text"]) {
      if (name in made) set(name, () => Response.prototype[name].call(made).catch((error) => Promise.reject(why.error ?? error)));
    }
    return made;
  }

  function seen(response) {
    try {
      const isStream = (response.headers.get("content-type") ?? "").startsWith("text/event-stream");
      if (isStream && response.status === 200 && response.body !== null && !response.bodyUsed) {
        const { status, statusText, headers } = response;
        const why = {};
        const body = watched(response.body, (error) => (why.error = error));
        return dressed(new Response(body, { status, statusText, headers }), response, why);
      }
      const energy = isStream ? null : ofHeaders((name) => response.headers.get(name));
      if (energy !== null) tell(energy);
    } catch {
      // whatever it is, the page gets it
    }
    return response;
  }

  window.fetch = function fetch(...asked) {
    return Reflect.apply(fetched, this, asked).then(seen);
  };

  XMLHttpRequest.prototype.send = function (...asked) {
    const look = () => loaded(this);
    this.addEventListener("loadend", look, { once: true });
    try {
      return Reflect.apply(sent, this, asked);
    } catch (error) {
      this.removeEventListener("loadend", look);
      throw error;
    }
  };

  function loaded(request) {
    const fields = new Map(request.getAllResponseHeaders().trim().split(/\r\n/).map((line) => {
      const colon = line.indexOf(":");
      return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
    }));
    if ((fields.get("content-type") ?? "").startsWith("text/event-stream")) {
      if (request.responseType === "" || request.responseType === "text") request.responseText.split(/\r\n|\r|\n/).forEach(Lines.read);
      return;
    }
    const energy = ofHeaders((name) => fields.get(name) ?? null);
    if (energy !== null) tell(energy);
  }
})();
