"""Requests through the simulator and its counter, its tokens and its readings through the very meter that serves production."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from perjoule.bench.physics import Physics
from perjoule.bench.simulator import Sequence as Answering
from perjoule.bench.simulator import Simulator
from perjoule.sidecar.metering.meter import Meter
from perjoule.sidecar.ports import Device, Reading, Step
from perjoule.sidecar.record import EnergyRecord, Outcome, RequestFacts, Status, TokenSource
from perjoule.sidecar.units import NS_PER_MS, NS_PER_S

LEAD_NS = 2 * NS_PER_S  # before the first request, so that the meter learns the idle power
REST_NS = 2 * NS_PER_S  # after the last one, so that it settles all
POLL_NS = 20 * NS_PER_MS


class Request(NamedTuple):
    """A prompt to send: when, how long it is, and how many tokens are asked for."""

    at_ns: int
    input_tokens: int
    output_tokens: int
    streamed: bool = True


@dataclass(frozen=True, slots=True)
class Play:
    """What came of the requests, in their order: what they did in the simulator, and the records that the meter gave."""

    sequences: list[Answering]
    records: list[EnergyRecord]
    busy_uj: int  # all that was drawn but the idle


def worth(requests: Sequence[Request], physics: Physics, **engine: Any) -> int:
    """Microjoules that an engine with nothing but these requests draws while it is not idle."""
    simulator = Simulator(0, physics, **engine)
    for request in requests:
        simulator.submit(request.at_ns, request.input_tokens, request.output_tokens)
    simulator.advance(max(request.at_ns for request in requests))
    while simulator.next_ns is not None:
        simulator.advance(simulator.next_ns)
    return simulator.board.total_uj - simulator.idle_uj


def play(requests: Sequence[Request], physics: Physics, meter_of: Callable[..., Meter] = Meter, *, period_ns: int = 100 * NS_PER_MS,
         told: Callable[[Step], Step] | None = None, **engine: Any) -> Play:
    """The requests, in the order of time, through an engine and a meter that polls a counter of that period. `meter_of` is called
    as Meter is. If the engine's steps are `told` to the meter, they are what this makes of them."""
    meter = meter_of([Device("simulated", "simulated")], source="simulator", status=Status.SIMULATED, boundary="gpu-board",
                     period_ns=period_ns)
    tell = None if told is None else lambda step: meter.step(told(step))
    simulator = Simulator(0, physics, period_ns=period_ns, tell=tell, **engine)
    sequences: list[Answering] = []
    records: dict[str, EnergyRecord] = {}
    places: dict[Answering, str] = {}
    poll_ns, read_ns, stop_ns = min(POLL_NS, period_ns // 5), 0, None
    while stop_ns is None or read_ns < stop_ns:
        arrival_ns = requests[len(sequences)].at_ns + LEAD_NS if len(sequences) < len(requests) else None
        t_ns = min(t for t in (read_ns, arrival_ns, simulator.next_ns) if t is not None)
        tokens, settled = simulator.advance(t_ns), []
        if t_ns == read_ns:
            settled += meter.sample([Reading(t_ns, t_ns, *simulator.board.read(t_ns))])
            read_ns += poll_ns
        if t_ns == arrival_ns:
            _, input_tokens, output_tokens, streamed = requests[len(sequences)]
            sequences.append(sequence := simulator.submit(t_ns, input_tokens, output_tokens))
            places[sequence] = place = str(len(places))
            meter.begin(place, t_ns, streamed=streamed, input_tokens=input_tokens)
        for sequence, nth in tokens:
            if requests[int(places[sequence])].streamed:
                meter.tokens(places[sequence], t_ns, 1)
            if nth == sequence.output_tokens:
                settled += meter.end(places[sequence], t_ns, _facts(places[sequence], sequence))
        records.update((record.facts.record_id, record) for record in settled)
        if stop_ns is None and len(sequences) == len(requests) and simulator.next_ns is None:
            stop_ns = t_ns + REST_NS
    return Play(sequences, [records[place] for place in places.values()], simulator.board.total_uj - simulator.idle_uj)


def _facts(place: str, sequence: Answering) -> RequestFacts:
    """Everything that an engine's usage says."""
    assert sequence.last_token_ns is not None
    return RequestFacts(place, place, 0, sequence.last_token_ns - sequence.queued_ns, Outcome.COMPLETED, "completions", "simulated", True,
                        200, input_tokens=sequence.input_tokens, output_tokens=sequence.output_tokens, input_source=TokenSource.USAGE,
                        output_source=TokenSource.USAGE)
