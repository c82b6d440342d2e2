"""Law 1, Conserved: measured == requests + idle + unattributed, with ==, over any history. And law 4, Once."""

import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perjoule.sidecar.meter import Meter
from perjoule.sidecar.ports import Device, Reading
from perjoule.sidecar.record import Outcome, RequestFacts, Status, TokenSource

MS = 1_000_000
deep = settings(max_examples=10_000 if os.environ.get("HYPOTHESIS_PROFILE") == "deep" else 300,
                suppress_health_check=[HealthCheck.too_slow])

advance = st.integers(1, 300)
events = st.one_of(
    st.tuples(st.just("begin"), advance, st.booleans(), st.one_of(st.none(), st.integers(0, 9000)), st.integers(1, 3)),
    st.tuples(st.just("tokens"), advance, st.integers(0, 9), st.integers(1, 40)),
    st.tuples(st.just("prompt"), advance, st.integers(0, 9), st.integers(0, 9000), st.integers(0, 9000)),
    st.tuples(st.just("end"), advance, st.integers(0, 9), st.one_of(st.none(), st.integers(0, 500)), st.sampled_from([200, 400, None])),
    st.tuples(st.just("sample"), advance, st.lists(st.integers(-10**6, 10**8), min_size=2, max_size=2)),
    st.tuples(st.just("silence"), st.integers(900, 4000)),
    st.tuples(st.just("late"), advance),
)


def facts(record_id, t_ns, output_tokens, status):
    return RequestFacts(record_id, record_id, 0, t_ns, Outcome.COMPLETED, "chat.completions", "vllm", True, status,
                        output_tokens=output_tokens, output_source=TokenSource.USAGE if output_tokens is not None else None)


def play(history, boards):
    """Run a history through a meter; answers the meter, the records, and how many requests were begun."""
    devices = [Device(f"GPU-{i}", "board") for i in range(boards)]
    meter = Meter(devices, source="test", status=Status.MEASURED) if boards else Meter()
    t_ns, begun, running, records = 0, 0, [], []
    counters = [10**9] * boards

    def look(t):
        return [Reading(t, t, uj) for uj in counters]

    for kind, dt, *rest in history:
        t_ns += dt * MS
        if kind == "begin":
            streamed, tokens, choices = rest
            meter.begin(f"r{begun}", t_ns, streamed=streamed, input_tokens=tokens, input_bytes=400, choices=choices)
            running.append(f"r{begun}")
            begun += 1
        elif kind == "sample" and boards:
            counters = [max(0, c + d) for c, d in zip(counters, rest[0][:boards], strict=True)]
            records += meter.sample(look(t_ns))
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
        balance = meter.balance
        assert balance.measured_uj == balance.requests_uj + balance.idle_uj + balance.unattributed_uj
    for record_id in running:
        t_ns += MS
        records += meter.end(record_id, t_ns, facts(record_id, t_ns, None, None))
    records += meter.tick(t_ns + 10**10)
    return meter, records, begun


@deep
@given(st.lists(events, max_size=80), st.integers(1, 2))
def test_conserved(history, boards):
    """Every microjoule that the counters advanced is in a record, in idle or in unattributed, and in one of them only."""
    meter, records, _ = play(history, boards)
    assert meter.balance.conserved
    assert sum(record.charge.energy_uj or 0 for record in records) == meter.balance.requests_uj


@deep
@given(st.lists(events, max_size=80), st.integers(0, 2))
def test_once(history, boards):
    """Each request has exactly one record, and it comes settled."""
    _, records, begun = play(history, boards)
    assert sorted(record.facts.record_id for record in records) == sorted(f"r{i}" for i in range(begun))
    assert all(record.charge.settled for record in records)


@deep
@given(st.lists(events, max_size=60))
def test_never_invented(history):
    """Without an energy source every amount is null, and the status says why."""
    _, records, _ = play(history, 0)
    for record in records:
        assert record.charge.status is Status.UNAVAILABLE
        assert record.charge.energy_uj is record.charge.active_uj is record.charge.uncertainty_uj is None


@deep
@given(st.lists(events, max_size=80), st.integers(1, 2))
def test_parts_of_a_charge_agree(history, boards):
    """Prefill and decode sum to the energy; the active and the steady part are never more than the whole."""
    _, records, _ = play(history, boards)
    for charge in (record.charge for record in records):
        if charge.energy_uj is not None:
            assert charge.prefill_uj + charge.decode_uj == charge.energy_uj
            assert charge.prefill_uj >= 0
            assert charge.decode_uj >= 0
            assert 0 <= charge.steady_uj <= charge.energy_uj
            assert charge.active_uj is None or 0 <= charge.active_uj <= charge.energy_uj
