"""The sidecar: relays every byte of an inference server unchanged and says what each request cost in joules.

The inside is pure: it takes bytes and monotonic nanoseconds and returns values; it reads no clock and opens nothing.

    units         the only place that knows how many microjoules a joule has
    record        what comes out: one EnergyRecord a request, its facts and its charge
    ports         what the inside asks of the outside: an energy counter, a place to put records
    telemetry     every header, metric and attribute name, as data
    trace_context the traceparent header: in which trace we were called, what we tell the engine
    work          one request's tokens as a curve over time
    pace          what traffic has taught so far: prefill rate, decode rate, bytes a token
    timeline      a cumulative counter read now and then: windows, resets, gaps, interpolation
    attribution   a window's microjoules divided exactly
    weighing      how much each running request weighs in a window
    steady_state  is this window steady, ramping, draining or idle
    board         one device: its counter, its windows that wait, what it draws when nothing runs
    account       what one request has been charged so far, and the balance of all
    meter         the state machine: requests and samples in, EnergyRecords out

    endpoints     which paths are inference, and in which dialect
    requests      what a request body asks for, and asking for usage by splicing bytes
    usage         the engine's own token counts, in every dialect's shape
    sse           server-sent events cut out of a byte stream, bytes kept
    payload       what one JSON object of a response says, in every dialect
    observer      what a response tells while it passes: tokens, usage, errors
    inband        the few bytes that are added or hidden: comment, usage, headers, trailers
    heads         heads of requests and answers as they go on
    answer        one answer as the client gets it: head, framing, what is added, what is hidden
    watch         what is noted of one request while it passes

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
