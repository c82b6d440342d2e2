"""What readings say about a sensor: its period, its grain, its agreement with instant power, and the verdict."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.bench.sensor import Answer, Findings, Span, changes, judge, study
from perjoule.sidecar.ports import Reading
from perjoule.sidecar.record import Status
from perjoule.sidecar.units import NS_PER_MS, NS_PER_S

PERIOD_NS = 100 * NS_PER_MS


def span(poll_ms: int, watts: int = 400, seen_watts: int | None = 400, seconds: int = 6) -> Span:
    """A counter that shows every 100 ms what `watts` drew, and instant power of `seen_watts`; a call takes 3 ms."""
    poll_ns = poll_ms * NS_PER_MS
    times = list(range(0, seconds * NS_PER_S + 1, poll_ns))
    if times[-1] % PERIOD_NS == 0:  # begin and end on a change, as measured spans do
        times = [0, PERIOD_NS, *[t for t in times if t > PERIOD_NS]]
    readings = [Reading(t, t + 3 * NS_PER_MS, t // PERIOD_NS * watts * 100_000) for t in times]
    powers = [(t, seen_watts * 1000 + t // PERIOD_NS % 2) for t in times] if seen_watts else []
    return Span(poll_ns, readings, powers)


def spans(**kwargs: int | None) -> list[Span]:
    return [span(poll_ms, **kwargs) for poll_ms in (1, 10, 100, 500)]  # type: ignore[arg-type]


def test_a_good_sensor() -> None:
    """100 ms, 40 J steps, 3 ms calls, no difference anywhere: yes."""
    found = study(spans())
    assert (found.period_ns, found.period_p5_ns, found.period_p95_ns) == (PERIOD_NS, PERIOD_NS, PERIOD_NS)
    assert found.quantum_uj == 40_000_000
    assert (found.call_median_ns, found.call_p99_ns) == (3 * NS_PER_MS, 3 * NS_PER_MS)
    assert found.power_period_ns == PERIOD_NS
    assert found.power_skipped == 0
    assert found.counter_w == pytest.approx(400)
    assert found.disagreement == pytest.approx(0, abs=1e-4)
    assert found.rate_spread == pytest.approx(0, abs=1e-4)
    assert judge(found, Status.MEASURED) == (Answer.YES, [])


@pytest.mark.parametrize(("watts", "answer"), [
    (402, Answer.YES), (408, Answer.CARE), (420, Answer.NO), (380, Answer.NO),
])
def test_the_counter_against_instant_power(watts: int, answer: Answer) -> None:
    """Half a percent off is fine, 2 % needs care, 5 % either way is refused."""
    found = study(spans(watts=watts, seen_watts=400))
    assert found.disagreement == pytest.approx(watts / 400 - 1, abs=1e-4)
    given_answer, reasons = judge(found, Status.MEASURED)
    assert given_answer is answer
    assert bool(reasons) == (answer is not Answer.YES)


@pytest.mark.parametrize(("watts", "answer"), [(401, Answer.YES), (404, Answer.CARE), (480, Answer.NO)])
def test_the_counter_against_itself_at_another_rate(watts: int, answer: Answer) -> None:
    """A counter that shows other watts when it is polled slowly is found out."""
    found = study([*spans()[:3], span(500, watts=watts)])
    assert found.rate_spread == pytest.approx(watts / 400 - 1, abs=1e-4)
    assert judge(found, Status.MEASURED)[0] is answer


def test_a_moving_load_is_not_blamed_on_the_sensor() -> None:
    """When instant power moves with the counter the rates cannot be compared, and that is what is said."""
    found = study([*spans()[:3], span(500, watts=480, seen_watts=480)])
    assert found.rate_spread is None
    answer, reasons = judge(found, Status.MEASURED)
    assert answer is Answer.CARE
    assert "the load moved" in reasons[0]


def test_without_instant_power_the_counter_stands_alone() -> None:
    """No check is not a pass: with care."""
    found = study(spans(seen_watts=None))
    assert (found.integral_w, found.disagreement, found.power_period_ns) == (None, None, None)
    assert judge(found, Status.MEASURED) == (Answer.CARE, ["no instant power to check the counter against"])


def test_a_counter_that_stands_still() -> None:
    """No change, no numbers, and no trust."""
    found = study(spans(watts=0))
    assert (found.period_ns, found.quantum_uj, found.counter_w, found.disagreement) == (None, None, None, None)
    answer, reasons = judge(found, Status.MEASURED)
    assert answer is Answer.NO
    assert "did not move" in reasons[0]


def test_a_counter_that_falls() -> None:
    """One step back is enough."""
    good = spans()
    fallen = replace(good[0], readings=[*good[0].readings, replace(good[0].readings[-1], energy_uj=1)])
    assert "backwards" in judge(study([fallen, *good[1:]]), Status.MEASURED)[1][0]


def test_skipped_values_of_instant_power() -> None:
    """Every fourth new value missing is a quarter skipped."""
    good = span(10)
    powers = [(t, t // PERIOD_NS if t // PERIOD_NS % 4 != 3 else t // PERIOD_NS - 1) for t, _ in good.powers]
    found = study([replace(good, powers=powers)])
    assert found.power_period_ns == PERIOD_NS
    assert found.power_skipped == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize(("status", "processes", "answer", "said"), [
    (Status.SIMULATED, None, Answer.NO, "simulated"),
    (Status.ESTIMATED, None, Answer.CARE, "estimates"),
    (Status.MEASURED, 2, Answer.CARE, "2 processes"),
    (Status.MEASURED, 1, Answer.YES, ""),
])
def test_what_no_reading_shows(status: Status, processes: int | None, answer: Answer, said: str) -> None:
    """A perfect sensor may still be none, or be shared."""
    given_answer, reasons = judge(study(spans()), status, processes)
    assert given_answer is answer
    assert said in "".join(reasons)


def test_a_short_or_coarse_measurement_needs_care() -> None:
    """Two seconds are too short to tell; a counter that shows something once in a second is coarse."""
    found: Findings = study(spans(seconds=2))
    assert "2 s" in judge(found, Status.MEASURED)[1][0].replace("1.9 s", "2 s")
    assert "every 1000 ms" in judge(replace(found, period_ns=NS_PER_S), Status.MEASURED)[1][-1]


@given(values=st.lists(st.integers(0, 3)))
def test_changes_are_all_news_and_no_repeats(values: list[int]) -> None:
    """Each change differs from the one before it, and the last is the last value if anything changed."""
    found = changes(list(enumerate(values)))
    assert all(values[t] == value != values[t - 1] for t, value in found)
    assert len(found) == sum(a != b for a, b in pairwise(values))
