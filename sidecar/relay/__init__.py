"""One request on its way to the engine, and its answer on the way back.

    ids            ids that nobody can guess
    trace_context  the traceparent header: in which trace we were called, what we tell the engine
    identity       who and what a request is: its ids, and what the engine is told of them
    answer         one answer as the client gets it: head, framing, what is added, what is hidden
    jobs           what is computed after its request was answered: until when, and how it ended
    sending        one request on its way to the engine
    exchange       its answer on the way back
    tunnel         a client and the engine joined byte for byte
    handshake      a request for a WebSocket, to the engine's consent and into a tunnel
    handler        the handler: every request becomes an exchange
"""
