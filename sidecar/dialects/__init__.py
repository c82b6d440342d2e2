"""What requests and answers say, in the dialect of each API: read while they pass, never changed. Pure.

    endpoints  which paths are inference, and in which dialect
    requests   what a request body asks for, and asking for usage by splicing bytes
    usage      the engine's own token counts, in every dialect's shape
    sse        server-sent events cut out of a byte stream, bytes kept
    payload    what one JSON object of a response says, in every dialect
    observer   what a response tells while it passes: tokens, usage, errors
    inband     the few bytes that are added or hidden: comment, usage, headers, trailers
    websocket  messages cut out of a WebSocket's byte stream, to look at them
    realtime   what a realtime session tells: its responses, each watched as a request
    watch      what is noted of one request while it passes
"""
