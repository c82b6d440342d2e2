"""How well a counter's changes are dated, and by how many looks, when it is looked at evenly and in its rhythm.

A board is made that changes as an H200's counter was seen to (every 100 ms, 95 % of changes within 98 to 102) and whose reads take as long
as they did there (3 to 4 ms in the median, 15 to 23 ms at the 99th percentile).

    python -m perjoule.bench.beat [--minutes 20] [--poll-ms 20]
"""

import argparse
import sys
from collections.abc import Callable
from random import Random
from statistics import fmean, pstdev

from perjoule.sidecar.metering.timeline import Timeline
from perjoule.sidecar.ports import Reading
from perjoule.sidecar.process.sampler import Rhythm
from perjoule.sidecar.units import NS_PER_MS, NS_PER_S

PERIOD_NS, JITTER_NS = 100 * NS_PER_MS, 1 * NS_PER_MS
READ_MS, SLOW_READ_MS, SLOW = 3.5, 18.0, 0.02  # the median, and for how many more it takes how long
WARM = 50  # changes until a timeline has found the beat


def played(next_look: Callable[[int, int], int], minutes: float, seed: int = 0) -> tuple[float, float]:
    """Looks a change, and the standard deviation of how far changes are dated off in ms. `next_look` is told when a look began and what it
    saw, and answers when the next one begins."""
    random, timeline = Random(seed), Timeline(PERIOD_NS)
    end_ns = round(minutes * 60 * NS_PER_S)
    changes, t_ns = [], 0
    while t_ns < end_ns + NS_PER_S:
        t_ns += PERIOD_NS + round(random.gauss(0.0, JITTER_NS))
        changes.append(t_ns)
    looks = shown = 0
    off_ms: list[float] = []
    t_ns = random.randrange(PERIOD_NS)
    while t_ns < end_ns:
        while changes[shown] <= t_ns:  # the value is the one at the call's begin
            shown += 1
        took_ms = SLOW_READ_MS if random.random() < SLOW else random.gauss(READ_MS, 0.5)
        after_ns = t_ns + round(max(took_ms, 0.1) * NS_PER_MS)
        before_ns = timeline.changed_ns
        timeline.add(Reading(t_ns, after_ns, shown * 1_000_000))
        looks += 1
        if timeline.changed_ns != before_ns and timeline.changed_ns is not None and shown > WARM:
            off_ms.append((timeline.changed_ns - changes[shown - 1]) / NS_PER_MS)
        t_ns = max(next_look(t_ns, shown), after_ns)
    return looks / shown, pstdev(off_ms, fmean(off_ms))


def evenly(poll_ns: int) -> Callable[[int, int], int]:
    """A look every so often."""
    return lambda began_ns, _: began_ns + poll_ns


def in_rhythm(poll_ns: int) -> Callable[[int, int], int]:
    """As the sampler looks at one board."""
    rhythm = Rhythm(PERIOD_NS, poll_ns, 1)

    def next_look(began_ns: int, shown: int) -> int:
        due_ns = rhythm.due_ns(began_ns, shown)
        return began_ns + poll_ns if due_ns is None else due_ns
    return next_look


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--poll-ms", type=int, default=20)
    args = parser.parse_args()
    poll_ns = args.poll_ms * NS_PER_MS
    rules = {"evenly": evenly(poll_ns), "in its rhythm": in_rhythm(poll_ns), "evenly, twice as often": evenly(poll_ns // 2)}
    for name, rule in rules.items():
        looks, off_ms = played(rule, args.minutes)
        print(f"{name:24} {looks:5.2f} looks a change, dated to {off_ms:.2f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
