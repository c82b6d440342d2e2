"""The meter: requests and counter readings in, one settled record for each request out. Pure; conserved to the microjoule.

    timeline      a cumulative counter read now and then: windows, resets, gaps, interpolation
    attribution   a window's microjoules divided exactly
    terms         the four amounts of computing that an engine's energy depends on, and their costs
    steps         the engine's steps, counted from frames
    work          one request's prompt and tokens, and what of them has been charged
    taut_string   the straightest path through gates
    pace          what traffic has taught so far: bytes a token, tokens a frame, how long a step takes
    told          what the engine itself has told of its steps
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
    history       the last minutes in slots of half a second: drawn by whom, in which phase
    division      one pool's windows divided among the requests that run on it
    pooled        all pools of an engine asked as one: what they drew, what they draw
    open_request  a request without a record yet, and where it runs
    meter         the state machine: requests and readings in, EnergyRecords out
"""
