"""Any history that a meter can live through, for the laws: requests that overlap, stall and fail, counters that jump and go silent,
engines that tell what cannot be."""

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from perjoule.sidecar.metering.meter import Meter
from perjoule.sidecar.metering.pools import read_pools
from perjoule.sidecar.metering.weighing import METHODS
from perjoule.sidecar.ports import Device, Reading, Step
from perjoule.sidecar.record import Outcome, RequestFacts, Status, TokenSource

MS = 1_000_000
deep = settings(max_examples=10_000 if os.environ.get("HYPOTHESIS_PROFILE") == "deep" else 300,
                suppress_health_check=[HealthCheck.too_slow])

def told(late_ms, steps, rank, took_ns, prefill, prompts, firsts_ms):
    """What an engine may tell at some moment, true or not: when a step had ended, and when those had arrived whose prompts were done."""
    return lambda t_ns: Step(t_ns - late_ms * MS, steps, rank, took_ns, prefill, prompts, (prompts or 0) // 2,
                             tuple(t_ns - ms * MS for ms in firsts_ms))


methods = st.sampled_from(METHODS)
LAYOUTS = {  # --gpus, and how many boards there are
    "none": ("all", 0), "one board": ("all", 1), "two boards": ("all", 2), "three boards": ("all", 3),
    "two ranks": ("0=GPU-0;1=GPU-1", 2), "a rank of two boards": ("0=GPU-2,GPU-0;1=GPU-1", 3),
    "prefill and decode": ("prefill=GPU-1;decode=GPU-0", 2), "two that decode": ("prefill=GPU-0;decode=GPU-1,GPU-2", 3),
}
layouts = st.sampled_from(list(LAYOUTS))
metered = st.sampled_from([name for name, (_, boards) in LAYOUTS.items() if boards])
advance = st.integers(1, 300)
events = st.one_of(
    st.tuples(st.just("begin"), advance, st.booleans(), st.one_of(st.none(), st.integers(0, 9000)), st.integers(1, 3),
              st.one_of(st.none(), st.integers(0, 2))),
    st.tuples(st.just("tokens"), advance, st.integers(0, 9), st.integers(1, 40)),
    st.tuples(st.just("prompt"), advance, st.integers(0, 9), st.integers(0, 9000), st.integers(0, 9000)),
    st.tuples(st.just("end"), advance, st.integers(0, 9), st.one_of(st.none(), st.integers(0, 500)), st.sampled_from([200, 400, None])),
    st.tuples(st.just("sample"), advance, st.lists(st.integers(-10**6, 10**8), min_size=3, max_size=3)),
    st.tuples(st.just("silence"), st.integers(900, 4000)),
    st.tuples(st.just("late"), advance),
    st.tuples(st.just("step"), advance, st.builds(
        told, st.integers(0, 3000), st.integers(0, 3), st.integers(0, 2), st.one_of(st.none(), st.integers(0, 10**12)),
        st.one_of(st.none(), st.integers(0, 1 << 20)), st.one_of(st.none(), st.integers(0, 1 << 20)),
        st.lists(st.integers(0, 5000), max_size=4))),
)


def facts(record_id, t_ns, output_tokens, status):
    return RequestFacts(record_id, record_id, 0, t_ns, Outcome.COMPLETED, "chat.completions", "vllm", True, status,
                        output_tokens=output_tokens, output_source=TokenSource.USAGE if output_tokens is not None else None)


def play(history, layout, origin_ns=0, method=METHODS[0]):
    """Run a history through a meter, from `origin_ns` on; answers the meter, the records, and how many requests were begun."""
    gpus, boards = LAYOUTS[layout]
    devices = [Device(f"GPU-{i}", "board") for i in range(boards)]
    meter = Meter(devices, pools=read_pools(gpus), source="test", status=Status.MEASURED, method=method) if boards else Meter(method=method)
    t_ns, begun, running, records = origin_ns, 0, [], []
    counters = [10**9] * boards

    def look(t):
        return [Reading(t, t, uj) for uj in counters]

    for kind, dt, *rest in history:
        t_ns += dt * MS
        if kind == "begin":
            streamed, tokens, choices, rank = rest
            meter.begin(f"r{begun}", t_ns, streamed=streamed, input_tokens=tokens, input_bytes=400, choices=choices, rank=rank)
            running.append(f"r{begun}")
            begun += 1
        elif kind == "sample" and boards:
            counters = [max(0, c + d) for c, d in zip(counters, rest[0][:boards], strict=True)]
            records += meter.sample(look(t_ns))
        elif kind == "step":
            meter.step(rest[0](t_ns))
        elif kind == "late" and boards:
            records += meter.sample(look(t_ns - 500 * MS))
        elif kind == "silence":
            records += meter.tick(t_ns)
        elif running and kind in ("tokens", "prompt", "end"):
            record_id = running[rest[0] % len(running)]
            if kind == "tokens":
                meter.tokens(record_id, t_ns, rest[1])
            elif kind == "prompt":
                meter.prompt(record_id, rest[1], rest[2])
            else:
                meter.charge(record_id, t_ns)
                running.remove(record_id)
                records += meter.end(record_id, t_ns, facts(record_id, t_ns, rest[1], rest[2]))
        for balance in (meter.balance, *(division.balance for division in meter.divisions)):
            assert balance.measured_uj == balance.requests_uj + balance.idle_uj + balance.unattributed_uj
    for record_id in running:
        t_ns += MS
        records += meter.end(record_id, t_ns, facts(record_id, t_ns, None, None))
    records += meter.tick(t_ns + 10**10)
    return meter, records, begun
