"""What a client saw of one request, and what was observed of the machine meanwhile: the raw data of a run, as lines of JSON."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Sample:
    """One request as its client saw it. Times are nanoseconds since the run's start, on one monotonic clock; None: it never came to that.

    `intended_ns` is when the schedule wanted it sent (a closed loop: when its place became free; a later turn of a session: the end of the
    one before, and its think time). `first_byte_ns` is the first byte of the answer's body, `first_token_ns` and `last_token_ns` the first
    and last chunk with content, `end_ns` the end of the answer or of waiting for it. `chunk_ns` are the arrivals of all chunks with
    content. Tokens are the engine's own count (usage), None where it gave none; `wanted_output_tokens` is what the workload wanted.
    `outcome` is completed, errored, cancelled (by us, as planned) or unfinished (the run was broken off)."""

    index: int
    intended_ns: int
    sent_ns: int
    first_byte_ns: int | None = None
    first_token_ns: int | None = None
    last_token_ns: int | None = None
    end_ns: int | None = None
    chunk_ns: list[int] = field(default_factory=list)
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    wanted_input_tokens: int | None = None
    wanted_output_tokens: int | None = None
    http_status: int | None = None
    outcome: str = "unfinished"
    error: str | None = None
    request_id: str = ""
    record_id: str | None = None  # of the sidecar's record, from X-Energy-Record
    session: str | None = None
    client: int = 0  # which of the client's processes sent it


@dataclass(slots=True)
class Observation:
    """One look at the sidecar's operator port and at the client itself. `balance` is /energy/balance as it was (None: no answer)."""

    t_ns: int
    unix_ns: int
    balance: dict[str, object] | None = None
    boards: list[dict[str, object]] = field(default_factory=list)  # /energy/boards: uuid, name, power_w, temperature_c, sm_clock_mhz, …
    in_flight: int | None = None
    loop_lag_ns: list[int] = field(default_factory=list)  # since the last look: how late each client process's event loop was, at most
