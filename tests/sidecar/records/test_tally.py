"""What records add up to: every joule, token and request once, by model and by tenant, whatever comes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar import telemetry
from perjoule.sidecar.dialects.endpoints import OPERATIONS
from perjoule.sidecar.record import Charge, EnergyRecord, Outcome, RequestFacts, Status
from perjoule.sidecar.records.tally import LABEL_CHARS, LINES, MODELS, TENANTS, Spread, Tally
from tests.fakes.records import records

TRACE, LATER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b700f067aa0ba902b7"


def record(charge=(), **facts):
    facts = {"model": "llama", "outcome": Outcome.COMPLETED, "endpoint": "chat.completions",
             "first_token_ns": 50_000_000, "last_token_ns": 1_950_000_000,
             "input_tokens": 10, "output_tokens": 20, "end_ns": 3_000_000_000} | facts
    charge = {"status": Status.MEASURED, "energy_uj": 5_000_000, "prefill_uj": 2_000_000, "decode_uj": 3_000_000} | dict(charge)
    return EnergyRecord(RequestFacts("r", "q", 1_000_000_000, engine="vllm", streamed=True, **facts),
                        Charge(**charge, method="token-share", source="nvml", settled=True))


def tallied(*many):
    tally = Tally()
    for each in many:
        tally.add(each)
    return tally.shown()


def total(shown, metric, *labels):
    """A metric's sum over the series that have these values among their labels."""
    values = [value for found, value in shown.get(metric, {}).items() if {*labels} <= {*found}]
    return sum(value.total if isinstance(value, Spread) else value for value in values)


@given(st.lists(records, max_size=40))
def test_nothing_is_lost_and_nothing_counts_twice(many):
    """Requests, joules and tokens by model and by tenant are each the sums over the records; no joule without a status of its own."""
    shown = tallied(*many)
    for metric in (telemetry.REQUESTS, telemetry.TENANT_REQUESTS):
        assert total(shown, metric) == len(many)
    joules = sum(each.charge.energy_uj or 0 for each in many) / 1e6
    for metric in (telemetry.TENANT_JOULES, telemetry.ENERGY_SIZES):
        assert total(shown, metric) == pytest.approx(joules)
    parted = [each.charge for each in many if None not in (each.charge.energy_uj, each.charge.prefill_uj, each.charge.decode_uj)]
    assert total(shown, telemetry.REQUEST_JOULES) == pytest.approx(sum(c.prefill_uj + c.decode_uj for c in parted) / 1e6)
    for name in ("input", "output"):
        tokens = sum(getattr(each.facts, f"{name}_tokens") or 0 for each in many)
        assert total(shown, telemetry.TOKENS, name) == total(shown, telemetry.TENANT_TOKENS, name) == tokens
    assert sum(sum(spread.counts) for spread in shown.get(telemetry.DURATION, {}).values()) == len(many)
    known = {each.charge.status for each in many if each.charge.energy_uj is not None}
    assert {labels[-1] for labels in shown.get(telemetry.TENANT_JOULES, {})} == known


BOUNDS_NS = [int(bound * 1e9) for bound in telemetry.DURATION.buckets]


@given(st.lists(st.integers(0, 10**12) | st.sampled_from(BOUNDS_NS) | st.sampled_from(BOUNDS_NS).map(lambda ns: ns + 1), min_size=1))
def test_every_value_is_counted_in_its_own_bucket(durations_ns):
    """Whichever values came before it."""
    [spread] = tallied(*(record(end_ns=end_ns) for end_ns in durations_ns))[telemetry.DURATION].values()
    assert spread.cumulative == [*(sum(end_ns <= bound for end_ns in durations_ns) for bound in BOUNDS_NS), len(durations_ns)]


@given(st.lists(records, max_size=10), st.lists(records, max_size=10))
def test_what_was_shown_stays_as_it_was(before, after):
    """A scrape that is written in a thread is of one moment, however many requests end meanwhile."""
    def plain(shown):
        return {metric.name: {labels: (value.counts, value.total, dict(value.exemplars)) if isinstance(value, Spread) else value
                              for labels, value in values.items()} for metric, values in shown.items()}
    tally = Tally()
    for each in before:
        tally.add(each)
    shown = tally.shown()
    then = plain(shown)
    for each in after:
        tally.add(each)
    assert plain(shown) == then


def test_what_is_unknown_is_absent():
    """A request without energy, tokens and first token is counted, and adds nothing else, while zero is a number."""
    nothing = dict.fromkeys(("input_tokens", "output_tokens", "first_token_ns"))
    shown = tallied(record({"status": Status.UNAVAILABLE, "energy_uj": None, "prefill_uj": None, "decode_uj": None}, **nothing))
    assert {metric.name for metric, values in shown.items() if values} == {
        "perjoule_requests_total", "perjoule_tenant_requests_total", "perjoule_request_duration_seconds"}
    assert tallied(record({"energy_uj": 0}, output_tokens=0))[telemetry.TOKENS]["llama", "output"] == 0


@pytest.mark.parametrize(("name", "metric", "most"), [
    ("model", telemetry.REQUESTS, MODELS), ("tenant", telemetry.TENANT_REQUESTS, TENANTS)])
def test_an_explosion_of_names_hurts_nobody(name, metric, most):
    """Of 5,000 models or tenants the first have series of their own, the others share one, nothing is lost, and memory does not grow."""
    tally = Tally()
    for number in range(5000):
        tally.add(record(**{name: f"n{number}"}))
    tally.add(record(**{name: "n0"}))
    values = tally.shown()[metric]
    assert len(values) == most + 1
    assert sum(values.values()) == 5001
    assert next(count for labels, count in values.items() if "other" in labels) == 5000 - most
    assert next(count for labels, count in values.items() if "n0" in labels) == 2
    assert len(tally._lines) <= MODELS + 1
    assert len(tally._accounts) <= TENANTS + 1


def test_an_explosion_of_combinations_hurts_nobody():
    """Every model on every route with every outcome: no more lines than there may be, but for those of `other`, and nothing is lost."""
    tally, routes = Tally(), sorted(set(OPERATIONS))
    many = [record(model=f"m{model}", endpoint=route, outcome=outcome) for model in range(60) for route in routes for outcome in Outcome]
    for each in many:
        tally.add(each)
    assert len(tally._lines) <= LINES + len(routes) * len(Outcome)
    assert total(tally.shown(), telemetry.REQUESTS) == len(many)


def test_names_are_short_and_can_be_written():
    """A model's name of a megabyte or with half a character becomes a label that everybody can read; none is `unknown`."""
    shown = tallied(record(model="x" * 1_000_000), record(model="\ud800"), record(model=None), record(model=""), record(model=None))
    assert {labels[0]: count for labels, count in shown[telemetry.REQUESTS].items()} == {"x" * LABEL_CHARS: 1, "?": 1, "unknown": 3}


def test_times_of_tokens_are_of_answers_that_came_well():
    """An errored request counts in the durations alone; the time per output token is of those after the first."""
    shown = tallied(record(), record(outcome=Outcome.ERRORED), record(output_tokens=1), record(last_token_ns=None))
    served = ("llama", "chat.completions", "vllm")
    assert shown[telemetry.TOKEN_TIME][served].total == pytest.approx(0.1)
    assert sum(shown[telemetry.TOKEN_TIME][served].counts) == 1
    assert sum(shown[telemetry.FIRST_TOKEN][served].counts) == 3
    assert {labels[-1]: sum(spread.counts) for labels, spread in shown[telemetry.DURATION].items()} == {"completed": 3, "errored": 1}


def test_a_time_per_token_is_rounded_up_and_so_stays_in_its_bucket():
    """Half a nanosecond above a bound is above it; sums are whole nanoseconds."""
    shown = tallied(*(record(output_tokens=3, first_token_ns=0, last_token_ns=20_000_000 + more) for more in (0, 1)))
    [spread] = shown[telemetry.TOKEN_TIME].values()
    assert (spread.counts[:2], spread.total) == ((1, 1), 0.020_000_001)


def test_a_value_on_a_bound_is_below_it_and_an_exemplar_is_the_latest():
    """`le` is less or equal; each bucket has the trace that fell into it last, if it was traced."""
    shown = tallied(record(end_ns=2_560_000_000, trace_id=TRACE), record(end_ns=2_560_000_001, trace_id=TRACE),
                    record(end_ns=2_000_000_000, trace_id=LATER), record(end_ns=2_000_000_000, trace_id=None))
    [spread] = shown[telemetry.DURATION].values()
    place = spread.bounds.index(2.56)
    assert (spread.counts[place], spread.counts[place + 1]) == (3, 1)
    assert spread.exemplars == {place: (LATER, 2.0, 3_000_000_000), place + 1: (TRACE, 2.560000001, 3_560_000_001)}
    assert spread.cumulative[-1] == 4
