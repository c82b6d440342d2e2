"""The sidecar: relays every byte of an inference server unchanged and says what each request cost in joules.

    units       the only place that knows how many microjoules a joule has
    record      what comes out: one EnergyRecord a request, its facts and its charge
    ports       what the inside asks of the outside: an energy counter, a place to put records
    telemetry   every header, metric and attribute name, as data

    metering    requests and counter readings in, records out: the joules add up at every moment
    dialects    what requests and answers say, read while they pass
    footprint   what joules come to in money and carbon, by factors that somebody has named
    http        HTTP/1.1 over sockets, on both sides
    access      who may come in, and how much they may use
    settings    every setting, and where it comes from
    records     where a settled record goes, and how it is found again
    relay       one request on its way to the engine, its answer on the way back
    admin       the operator's port
    process     the processes and threads of a running sidecar

The inside is pure: bytes and monotonic nanoseconds in, values out; it reads no clock and opens nothing (which modules those are stands
in pyproject.toml, and is held). The outside is thin: it moves bytes and decides nothing.
"""

if __name__ == "sidecar":
    raise ImportError("import perjoule.sidecar; the folder is not the package")
