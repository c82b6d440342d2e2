"""Windows are steady when the batch is full, or when traffic has stopped changing for two seconds."""

from perjoule.sidecar.steady_state import Activity, Phase, SteadyStateDetector

MS = 1_000_000


def phases(detector, loads, tokens=None):
    """The phase of successive 100 ms windows with these mean numbers of running requests."""
    return [detector.feed(Activity(i * 100 * MS, (i + 1) * 100 * MS, round(n * 100 * MS), round(tokens[i] if tokens else n * 20)))
            for i, n in enumerate(loads)]


def test_nothing_running_is_idle():
    """A window in which nothing ran at all is idle."""
    assert phases(SteadyStateDetector(), [0, 0]) == [Phase.IDLE, Phase.IDLE]


def test_a_full_batch_is_steady_at_once():
    """At the engine's maximum there is nothing to wait for (ML.ENERGY's definition)."""
    assert phases(SteadyStateDetector(8), [4, 8, 8, 2, 1]) == [Phase.RAMP, Phase.STEADY, Phase.STEADY, Phase.DRAIN, Phase.DRAIN]


def test_open_traffic_is_steady_after_two_seconds_of_the_same():
    """Twenty windows alike: steady from the twentieth on, a ramp before."""
    got = phases(SteadyStateDetector(), [3] * 25)
    assert got[:19] == [Phase.RAMP] * 19
    assert got[19:] == [Phase.STEADY] * 6


def test_growing_traffic_is_a_ramp_and_falling_traffic_a_drain():
    """A batch that grows or shrinks by more than a tenth a second is not steady."""
    assert phases(SteadyStateDetector(), range(1, 40))[-1] is Phase.RAMP
    assert phases(SteadyStateDetector(), range(60, 20, -1))[-1] is Phase.DRAIN


def test_the_token_rate_must_be_steady_too():
    """The same number of requests at half the speed is another state of the engine."""
    assert phases(SteadyStateDetector(), [4] * 40, [100] * 30 + [50] * 10)[-1] is not Phase.STEADY
    assert phases(SteadyStateDetector(), [4] * 40, [100] * 40)[-1] is Phase.STEADY


def test_idle_time_begins_a_new_trail():
    """After a pause, traffic has to prove itself again."""
    assert phases(SteadyStateDetector(), [3] * 25 + [0] + [3] * 5)[-1] is Phase.RAMP
