"""What requests and answers say, in the dialect of each API: read while they pass, never changed. Pure.

    endpoints  which paths are inference, and in which dialect
    forms      multipart bodies: their short fields, and where a file begins
    works      what is made that is not tokens, and how much work that is
    comfyui    how much work a ComfyUI graph is
    requests   what a request body asks for, and asking for usage by splicing bytes
    usage      the engine's own token counts, in every dialect's shape
    sse        server-sent events cut out of a byte stream, bytes kept
    payload    what one JSON object of a response says, in every dialect
    longtext   images in base64 taken out of JSON while it passes
    observer   what a response tells while it passes: tokens, usage, errors
    inband     the few bytes that are added or hidden: comment, usage, headers, trailers
    websocket  messages cut out of a WebSocket's byte stream, to look at them
    realtime   what a realtime session tells: its responses, each watched as a request
    watch      what is noted of one request while it passes
    jobs       what is computed after its request was answered: what names it, what is said of it
    jobwatch   what is noted of a job while its creation and the questions about it pass
"""
