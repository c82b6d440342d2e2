"""What must hold of any stream on its way through an exchange: the client's bytes and the record's facts are those of the whole stream."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

import orjson

from perjoule.sidecar.dialects.inband import energy_object
from perjoule.sidecar.dialects.requests import Asked
from perjoule.sidecar.dialects.watch import Identity, Watch
from perjoule.sidecar.http.connection import UpstreamError
from perjoule.sidecar.http.downstream import Downstream
from perjoule.sidecar.http.heads import Head
from perjoule.sidecar.record import Charge, Outcome, RequestFacts, Status
from perjoule.sidecar.relay.answer import Additions
from perjoule.sidecar.relay.exchange import UNKNOWN, Exchange
from tests.fuzz.inputs.recorded import endpoint
from tests.fuzz.properties.streams import cuttings
from tests.fuzz.references import editing, events, http1, observation

KNOWN = Charge(Status.UNAVAILABLE, "known", "test", settled=True)  # without joules its bytes do not hang on how long it took


class _Transport(asyncio.Transport):
    """Where the client's bytes go; it may be closed once."""

    def __init__(self) -> None:
        self.got, self.is_closed = b"", False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.is_closed
        self.got += data

    def close(self) -> None:
        self.is_closed = True


class _Client:
    """As much of a client's connection as an exchange knows."""

    def __init__(self) -> None:
        self.transport = _Transport()
        self.exchange: Exchange | None = None


class _Desk:
    """Knows the charge at once, or only when it is asked for it in its time; keeps what it is told of the request."""

    def __init__(self, *, at_hand: bool) -> None:
        self.at_hand, self.passing, self.ends = at_hand, 0, list[RequestFacts]()

    def charge(self, record_id: str, t_ns: int) -> Charge:
        assert self.at_hand
        return KNOWN

    def ask(self, record_id: str, t_ns: int, tell: Callable[[Charge | None], None], *, settled: bool) -> None:
        tell(KNOWN)

    def failed(self) -> None:
        raise AssertionError("metering raised")

    def begin(self, watch: Watch, t_ns: int) -> None: ...

    def prompt(self, record_id: str, tokens: int, cached: int) -> None: ...

    def tokens(self, record_id: str, t_ns: int, count: int) -> None:
        self.passing += count

    def end(self, facts: RequestFacts, t_ns: int) -> None:
        self.ends.append(facts)


def stream_is_relayed(stream: bytes, sizes: Sequence[int], dialect: str, additions: Additions, *, at_hand: bool, is_clean: bool) -> None:
    """Whoever knows the charge and whenever it is told, and whether the engine ended its stream or broke off.

    Not held to it is an event that begins with [DONE] and says in another line of its that it is a token: its comment may come later.
    """
    last_words = [event for event in events.cut(stream).events if event.lstrip(b"\r\n").startswith(editing.DONE)]
    if any(mark in event for event in last_words for mark in observation.ORDINARY[dialect]):
        return
    if dialect not in ("chat", "completions"):  # nobody else is asked for usage
        additions = replace(additions, hide_usage=False)
    edit = editing.edited if is_clean else editing.cut_off
    charge = KNOWN if at_hand or is_clean else UNKNOWN  # of who broke off before it could be asked for
    energy = orjson.dumps(energy_object(charge, 0, "/energy/r"))
    body = edit(stream, hide=additions.hide_usage, comment=b": energy " + energy + b"\n\n" if additions.comment else None,
                energy=energy if additions.in_usage else None)
    told = observation.of_stream(stream, dialect, 1)
    for cutting in cuttings(stream, sizes):
        client, desk = _Client(), _Desk(at_hand=at_hand)
        asyncio.run(_relay(cutting, client, desk, dialect, additions, is_clean=is_clean))
        got = http1.read(client.transport.got, is_head=False)
        assert (got.outcome, got.body) == ("clean" if is_clean else "cut", body)
        assert client.transport.is_closed is not is_clean
        facts, = desk.ends
        outcome = Outcome.COMPLETED if is_clean and told.error is None else Outcome.ERRORED
        assert (facts.outcome, desk.passing) == (outcome, told.passing)
        said = facts.finish_reason, facts.response_id, facts.response_model, facts.input_tokens
        usage = told.usage or {}
        assert said == (told.finish_reason, told.response_id, told.response_model, usage.get("input_tokens"))
        assert facts.output_tokens == usage.get("output_tokens", told.passing)


async def _relay(cutting: Sequence[bytes], client: _Client, desk: _Desk, dialect: str, additions: Additions, *, is_clean: bool) -> None:
    watch = Watch(desk, endpoint(dialect), Asked(streamed=True), Identity("r", "r"), "vllm", 0, 0)
    ended: list[bool] = []
    exchange = Exchange(cast(Downstream, client), watch, additions, http11=True, keep_alive=True, slow_after_s=60.0, desk=desk,
                        ended=ended.append)
    exchange.received(Head(200, b"OK", [(b"content-type", b"text/event-stream")], chunked=True), b"", False)
    for piece in cutting:
        if piece:
            exchange.received(None, piece, False)
    if is_clean:
        exchange.received(None, b"", True)
    else:
        exchange.lost(UpstreamError("upstream_closed", "the engine closed the connection"))
    assert exchange.over
    assert ended == [is_clean]
