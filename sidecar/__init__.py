"""The sidecar: relays every byte of an inference server unchanged and says what each request cost in joules.

The inside is pure: it takes bytes and monotonic nanoseconds and returns values; it reads no clock and opens nothing.

    units         the only place that knows how many microjoules a joule has
    record        what comes out: one EnergyRecord a request, its facts and its charge
    ports         what the inside asks of the outside: an energy counter, a place to put records
    telemetry     every header, metric and attribute name, as data
    work          one request's tokens as a curve over time
    pace          what traffic has taught so far: prefill rate, decode rate, bytes a token
    timeline      a cumulative counter read now and then: windows, resets, gaps, interpolation
    attribution   a window's microjoules divided exactly
    steady_state  is this window steady, ramping, draining or idle
    meter         the state machine: requests and samples in, EnergyRecords out

    endpoints     which paths are inference, and in which dialect
    requests      what a request body asks for, and asking for usage by splicing bytes
    usage         the engine's own token counts, in every dialect's shape
    sse           server-sent events cut out of a byte stream, bytes kept
    observer      what a response tells while it passes: tokens, usage, errors
    inband        the few bytes that are added or hidden: comment, usage, headers, trailers

The outside is thin: it moves bytes and decides nothing.

    config        flags, environment and file, which mean the same things
    sampler       a thread that reads the counter
    outbox        a thread for each place that records go to
    recent        the latest records, for those who ask by id
    upstream      a lean connection to the engine
    front         aiohttp's server, with hooks on its transport
    exchange      one request on its way through
    relay         the handler: every request becomes an exchange
    admin         the operator's port
    service       starts all of it, drains it, stops it
"""

if __name__ == "sidecar":
    raise ImportError("import perjoule.sidecar; the folder is not the package")
