"""The sidecar: relays every byte of an inference server unchanged and says what each request cost in joules.

The inside is pure: it takes bytes and monotonic nanoseconds and returns values; it reads no clock and opens nothing.

    addresses     where to listen and where to connect, as people write it
    units         the only place that knows how many microjoules a joule has
    record        what comes out: one EnergyRecord a request, its facts and its charge
    ports         what the inside asks of the outside: an energy counter, a place to put records
    telemetry     every header, metric and attribute name, as data
    trace_context the traceparent header: in which trace we were called, what we tell the engine
    timeline      a cumulative counter read now and then: windows, resets, gaps, interpolation
    attribution   a window's microjoules divided exactly
    terms         the four amounts of computing that an engine's energy depends on, and their costs
    steps         the engine's steps, counted from frames
    work          one request's prompt and tokens, and what of them has been charged
    taut_string   the straightest path through gates
    pace          what traffic has taught so far: bytes a token, tokens a frame, how long a step takes
    prefill       when each prompt was computed
    schedule      what the engine did in a window, and for whom
    prior         the terms' costs by physics, from the GPU's name
    fit           those costs by regression, from blocks of windows
    calibration   the costs in use: prior, then fitted, each published version under its id
    weighing      how much each request weighs in a window, by each method
    steady_state  is this window steady, ramping, draining or idle
    pools         which boards serve which requests: one pool, data-parallel ranks, or prefill and decode apart
    group         the boards of one pool: their windows that wait, what they draw when nothing runs
    account       what one request has been charged so far, how surely, and the balance of all
    division      one pool's windows divided among the requests that run on it
    meter         the state machine: requests and readings in, EnergyRecords out

    keys          the keys file: names, hashes, budgets
    paths         which path a target names, where every server would read it alike
    doors         who may come in, what is open to them, what the engine is told of them
    limits        what each key has used of its budgets, and who must wait

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
    span          one request's OpenTelemetry span in OTLP's bytes
    websocket     messages cut out of a WebSocket's byte stream, to look at them
    realtime      what a realtime session tells: its responses, each watched as a request

    wire          what a worker process and the meter say to each other, as bytes
    in_order      events of several processes, in the order of their times

The outside is thin: it moves bytes and decides nothing.

    config        every setting there is, and what it may be
    setting       under what joules were measured, for who compares two runs
    settings      flags, environment and file, which mean the same things
    reload        what a reload changes, and what waits for a restart
    credentials   keys and tokens, read from where they are kept
    tls           certificates towards clients and towards the engine
    sockets       what is listened on: opened, served, closed
    sampler       a thread that reads the counter
    outbox        a thread for each place that records go to
    recent        the latest records, for those who ask by id
    archive       where settled records go, and how one is found again
    learned       which calibrations the meter goes by: loaded, switched, saved
    presence      whether the engine is there, and what it is
    lookout       what is asked beside the traffic: the engine's batch limit, other processes on the boards
    upstream      a lean connection to the engine
    downstream    one client's connection: requests cut out of it, each answered in its turn
    front         all clients: room for them, what is wrong in the API's shape, an end
    identity      who and what a request is: its ids, and what the engine is told of them
    ids           ids that nobody can guess
    interpreter   what the collector of garbage looks at, how soon threads make way, memory that goes back
    exchange      one request on its way through
    tunnel        a client and the engine joined byte for byte
    handshake     a request for a WebSocket, to the engine's consent and into a tunnel
    desk          where requests are metered: the meter, what it settles, who waits for it
    relay         the handler: every request becomes an exchange
    traffic       the traffic port of one process: front, relay, upstream
    remote_desk   the desk as a worker process has it
    link          the meter's end of the wire to a worker
    shared_desk   the desk of several processes
    worker        a process that relays, and meters by wire
    crew          the traffic port of several processes: started, replaced, drained
    admin         the operator's port
    service       starts all of it, reloads it, drains it, stops it
"""

if __name__ == "sidecar":
    raise ImportError("import perjoule.sidecar; the folder is not the package")
