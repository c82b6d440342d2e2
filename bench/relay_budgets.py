"""What a relay may cost, and whether a run of bench/relay.py kept to it.

Each budget has a goal, which is the design's, and a limit, to which this code is held until it is nearer to the goal: what was measured,
and a little more (decision 0012).
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from perjoule.bench.relay_report import ADDED_P50, ADDED_P99, FRAME, OF_A_CORE, REQUEST, TROUBLE, Rounds, kb_a_stream

OURS = "perjoule"
MOST, LEAST = "at most", "at least"
MANY = 512  # streams, of which a frame costs a wake-up less than of a few


class Budget(NamedTuple):
    """What is counted; whether it may be at most or must be at least so much; what is aimed at; what it is held to."""

    what: str
    sense: str
    goal: float
    limit: float

    def judged(self, got: float | None) -> dict[str, Any]:
        """With what was got; `kept` and `reached` are None for what a run did not measure."""
        kept, reached = (None if got is None else got <= most if self.sense == MOST else got >= most for most in (self.limit, self.goal))
        return self._asdict() | {"got": got, "kept": kept, "reached": reached}


def budgets(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every budget with what was got."""
    return [Budget(what, sense, goal, limit).judged(got) for what, sense, goal, limit, got in _judged(found, Rounds(found["rows"]))]


def _judged(found: Mapping[str, Any], rounds: Rounds) -> Iterator[tuple[str, str, float, float, float | None]]:
    """What, at most or at least, the goal, the limit, what was got."""
    requests = "1 KB requests"
    for load in rounds.loads:
        if load.startswith("paced"):
            many = int(load.split()[1]) >= MANY
            yield f"{load}: CPU of a frame, × nginx", MOST, 1.5, 1.6 if many else 1.9, rounds.ratio(FRAME, load, OURS, "nginx")
            yield f"{load}: plain aiohttp's CPU of a frame, × ours", LEAST, 2, 1.2, rounds.ratio(FRAME, load, "aiohttp", OURS)
            yield f"{load}: LiteLLM's CPU of a frame, × ours", LEAST, 30, 30, rounds.ratio(FRAME, load, "litellm", OURS)
    yield "CPU of a 1 KB request, × nginx", MOST, 5, 18, rounds.ratio(REQUEST, requests, OURS, "nginx")
    yield "plain aiohttp's CPU of a 1 KB request, × ours", LEAST, 2.5, 0.5, rounds.ratio(REQUEST, requests, "aiohttp", OURS)
    yield "LiteLLM's CPU of a 1 KB request, × ours", LEAST, 100, 25, rounds.ratio(REQUEST, requests, "litellm", OURS)
    yield "added to one request at a time, p50 ms", MOST, 0.25, 0.35, rounds.middle(ADDED_P50, "one at a time", OURS)
    yield "added to one request at a time, p99 ms", MOST, 0.6, 5, rounds.middle(ADDED_P99, "one at a time", OURS)
    yield "paced 512: of a core", MOST, 0.6, 0.6, rounds.middle(OF_A_CORE, "paced 512", OURS)
    troubles = [sum(row[what] for what in TROUBLE) for row in found["rows"] if row["peer"] == OURS]
    yield "requests failed or stalled, frames lost", MOST, 0, 0, sum(troubles) if troubles else None
    held = found["memory"].get(OURS)
    for when, words, most in (("idle", "idle", 80), ("held", "under 512 streams", 80), ("after", "after all", 90)):
        yield f"memory {words}, MB", MOST, 80, most, held and held[f"{when}_rss_bytes"] / 1e6
    yield "memory of a stream, KB", MOST, 20, 20, held and kb_a_stream(held)
