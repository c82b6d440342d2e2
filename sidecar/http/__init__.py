"""HTTP/1.1 over sockets, as strict as a door has to be: who connects, what they send, and how it goes on to the engine.

    addresses   where to listen and where to connect, as people write it
    paths       which path a target names, where every server would read it alike
    remembered  what was worked out from what clients send, in a memory that they cannot fill
    heads       heads of requests and answers as they go on
    tls         certificates towards clients and towards the engine
    sockets     what is listened on: opened, served, closed
    connection  a lean connection to the engine
    upstream    where the engine is, and the connections that are kept warm
    fetch       one short answer of the engine, whole
    inbound     what a client sends, read as requests
    downstream  one client's connection: its requests, each answered in its turn
    front       all clients: room for them, what is wrong in the API's shape, an end
"""
