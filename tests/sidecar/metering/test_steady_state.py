"""Windows are steady when the batch is full, or when what joins, runs and comes out of it has no trend."""

from bisect import bisect_right
from heapq import heappop, heappush
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.metering.steady_state import Activity, Phase, Plateau, SteadyStateDetector, Trail

MS = 1_000_000
WINDOW = 100 * MS
TOKENS_PER_S = 100  # of one request


def windows(requests, speed=lambda t_s: 1.0):
    """What a proxy sees of (arrival, seconds to the first token, end) in windows of 100 ms; tokens come evenly."""
    ns = sorted(tuple(round(t * 1000 * MS) for t in request) for request in requests)
    begins, firsts, ends = (sorted(moments) for moments in zip(*ns, strict=True))
    for t0 in range(0, ends[-1] + 3 * WINDOW, WINDOW):
        t1 = t0 + WINDOW
        open_ = [r for r in ns if r[0] < t1 and r[2] > t0]
        ran, decoded = (sum(min(r[2], t1) - max(r[k], t0) for r in open_ if r[k] < t1) for k in (0, 1))
        begun, joined, ended = (bisect_right(moments, t1) for moments in (begins, firsts, ends))
        tokens = round(decoded * TOKENS_PER_S * speed(t0 / 1e9) / 1000)
        yield Activity(t0, t1, ran, tokens, joined - bisect_right(firsts, t0), joined - ended, begun - joined)


def phases(requests, max_num_seqs=0, **kwargs):
    """The phase of each window of these requests."""
    detector = SteadyStateDetector(max_num_seqs)
    return [detector.feed(activity) for activity in windows(requests, **kwargs)]


def share(found, begin_s, end_s):
    """How much of the time between two moments is steady."""
    part = found[begin_s * 10:end_s * 10]
    return part.count(Phase.STEADY) / len(part)


def poisson(seed, rate, seconds, mean_s=1.5):
    """An open stream of independent requests of exponential lengths."""
    random, t, requests = Random(seed), 0.05, []
    while (t := t + random.expovariate(rate(t) if callable(rate) else rate)) < seconds:
        requests.append((t, t + 0.03, t + 0.03 + random.expovariate(1 / mean_s)))
    return requests


def closed(seed, in_flight, seconds, places=10**9):
    """A closed loop that keeps `in_flight(t)` requests going through an engine that runs `places` of them at a time."""
    random, running, queue, requests, t = Random(seed), [], [], [], 0.0
    while t < seconds:
        while len(running) + len(queue) < in_flight(t):
            queue.append(t)
        while queue and len(running) < places:
            begin, first = queue.pop(0), t + 0.02
            heappush(running, end := first + random.uniform(0.8, 2.4))
            requests.append((begin, first, end))
        t = heappop(running)
    return requests


def test_nothing_running_is_idle():
    """A window in which nothing ran at all is idle."""
    detector = SteadyStateDetector()
    assert [detector.feed(Activity(i * WINDOW, (i + 1) * WINDOW, 0, 0, 0, 0, 0)) for i in range(2)] == [Phase.IDLE] * 2


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rate", [4, 15, 40])
def test_a_poisson_stream_is_steady(seed, rate):
    """It fluctuates for ever and is stationary; no stream is called anything else for a tenth of its time."""
    assert share(phases(poisson(seed, rate, 120)), 25, 118) > 0.9


def test_the_false_alarms_of_poisson_streams_are_as_stated():
    """Over many streams, less than 5 % of the windows are called a trend."""
    shares = [share(phases(poisson(seed, rate, 120)), 25, 118) for seed in range(8) for rate in (6, 20)]
    assert sum(shares) / len(shares) > 0.95


def test_a_closed_loop_is_steady_from_the_third_turnover_to_its_end():
    """Eight at a time: a ramp until three times as many have come, steady until no more come, then a drain."""
    found = phases(closed(1, lambda t: 8, 60))
    assert Phase.STEADY not in found[:20]
    assert share(found, 8, 59) == 1.0
    assert found[-8:-4] == [Phase.DRAIN] * 4


@pytest.mark.parametrize("steps", [(8, 16), (16, 32), (32, 16)])
def test_a_step_of_a_closed_loop_is_seen(steps):
    """Where the number in flight changes at once, there is no steady state for a while, then there is again."""
    found = phases(closed(2, lambda t: steps[t > 30], 70))
    assert share(found, 20, 30) == 1.0
    assert share(found, 31, 40) < 0.9
    assert share(found, 45, 65) == 1.0


def test_traffic_that_begins_is_a_ramp_and_traffic_that_stops_a_drain():
    """A Poisson stream is a ramp until it has turned over, and a drain half a second after its last arrival."""
    found = phases(poisson(5, 20, 60))
    assert found[2:15].count(Phase.STEADY) == 0
    assert found[3:15].count(Phase.RAMP) >= 10
    assert share(found, 61, 63) == 0.0
    assert found[612:625].count(Phase.DRAIN) == 13


def test_growing_traffic_is_not_steady():
    """A rate that grows by four fifths in the time of a request is a ramp, not noise."""
    assert share(phases(poisson(6, lambda t: 1.5**t, 15)), 8, 15) < 0.1


def test_requests_that_are_sent_together_are_never_steady():
    """A burst of forty every three seconds has no steady state, nor has each by itself."""
    random = Random(7)
    bursts = [(t, t + 0.05 + i * 0.002, t + 0.5 + random.uniform(0.2, 1.5)) for t in range(0, 60, 3) for i in range(40)]
    assert Phase.STEADY not in phases(bursts)


def test_the_token_rate_must_be_steady_too():
    """The same requests at half the speed are another state of the engine; at full speed they are not."""
    requests = closed(8, lambda t: 24, 60)
    assert share(phases(requests), 20, 55) == 1.0
    assert share(phases(requests, speed=lambda t: 1.0 if t < 30 else 0.5), 31, 35) < 0.5


def test_a_full_batch_is_steady_once_all_places_have_their_first_token():
    """ML.ENERGY's definition: from the first token of the last place on, until one place has nobody."""
    requests = [(1.0, 1.0 + 0.05 * i, 4.0 + 0.1 * i) for i in range(1, 9)]
    found = phases(requests, 8)
    assert found[:10] == [Phase.IDLE] * 10
    assert Phase.STEADY not in found[10:13]
    assert found[14:40] == [Phase.STEADY] * 26
    assert Phase.STEADY not in found[41:]


def test_a_flood_into_a_batch_that_ran_a_few_is_a_ramp():
    """Those who fill the batch must have their first tokens, however many had one before; it is noticed within 0.3 s."""
    few = [(i * 0.5, i * 0.5 + 0.02, i * 0.5 + 1.0) for i in range(20)]
    flood = [(10.0, 10.0 + 0.05 * i, 20.0) for i in range(1, 21)]
    found = phases(few + flood, 16)
    assert Phase.STEADY not in found[103:107]
    assert share(found, 11, 20) == 1.0


def test_a_queue_shows_the_largest_batch():
    """Where somebody always waits and the count stays at its top, the top is the limit; then the rule of the full batch holds."""
    detector = SteadyStateDetector()
    found = [detector.feed(activity) for activity in windows(closed(9, lambda t: 60 if t < 40 else 0, 41, places=16))]
    assert share(found, 8, 38) == 1.0
    plateau = Plateau()
    for _ in range(30):
        plateau.look(16, 3, 1)
    assert plateau.seen == 16


def test_what_fluctuates_or_is_waited_out_is_no_plateau():
    """A queue that empties now and then, or a count that is seldom at its top, tells no limit; a larger count refutes one."""
    emptied, restless, refuted = Plateau(), Plateau(), Plateau()
    for i in range(200):
        emptied.look(16, i % 10, 1)
        restless.look(10 + i % 7, 3, 1)
    assert (emptied.seen, restless.seen) == (0, 0)
    for decoding in [16] * 30 + [17]:
        refuted.look(decoding, 3, 1)
    assert refuted.seen == 0


def test_after_a_pause_or_a_hole_traffic_has_to_prove_itself_again():
    """Idle time, and time of which nothing is known, begin a new trail."""
    activities = list(windows(closed(1, lambda t: 8, 40)))
    pause = Activity(200 * WINDOW, 201 * WINDOW, 0, 0, 0, 0, 0)
    for broken in ([*activities[:200], pause, *activities[201:300]], activities[:200] + activities[201:300]):
        detector = SteadyStateDetector()
        found = [detector.feed(activity) for activity in broken]
        assert found[199] is Phase.STEADY
        assert Phase.STEADY not in found[201:215]
        assert found[-1] is Phase.STEADY


ACTIVITIES = st.lists(st.tuples(st.integers(1, 300), st.integers(0, 9), st.integers(0, 40), st.integers(0, 9), st.integers(0, 500)),
                      max_size=120)


def as_activities(rows):
    """Windows one after the other, whatever goes on in them."""
    t_ns = 0
    for span_ms, joined, decoding, waiting, tokens in rows:
        t0_ns, t_ns = t_ns, t_ns + span_ms * MS
        yield Activity(t0_ns, t_ns, (decoding + waiting) * span_ms * MS, tokens, joined, decoding, waiting)


@given(ACTIVITIES)
def test_any_history_has_phases_and_idle_is_when_nothing_runs(rows):
    """Whatever is fed, there is an answer, and it is idle exactly where nothing ran."""
    detector = SteadyStateDetector()
    for activity in as_activities(rows):
        assert (detector.feed(activity) is Phase.IDLE) == (activity.running_ns == 0)


@given(ACTIVITIES)
def test_a_trail_does_not_remember_what_it_has_forgotten(rows):
    """Sums that go on are the sums of what is in the trail, exactly: its parts were taken out as they were put in."""
    trail = Trail()
    for activity in as_activities(rows):
        trail.add(activity)
    kept = [activity for activity, _ in trail._windows]
    assert trail.time.total == sum(a.t1_ns - a.t0_ns for a in kept)
    assert trail.tokens.total == sum(a.tokens for a in kept)
    assert trail.tokens.moment == sum(a.tokens * ((a.t0_ns + a.t1_ns) // 2) for a in kept)
