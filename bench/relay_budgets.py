"""What a relay may cost, and whether a run of bench/relay.py kept to it."""

from collections.abc import Iterator, Mapping
from typing import Any

from perjoule.bench.relay_report import ADDED_P50, ADDED_P99, FRAME, OF_A_CORE, REQUEST, TROUBLE, Rounds, kb_a_stream

OURS = "perjoule"
MOST, LEAST = "at most", "at least"


def budgets(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every budget with what was got; `kept` is None for what this run did not measure."""
    said = []
    for what, sense, limit, got in _judged(found, Rounds(found["rows"])):
        kept = None if got is None else got <= limit if sense == MOST else got >= limit
        said.append({"what": what, "sense": sense, "limit": limit, "got": got, "kept": kept})
    return said


def _judged(found: Mapping[str, Any], rounds: Rounds) -> Iterator[tuple[str, str, float, float | None]]:
    """What, at most or at least, the limit, what was got."""
    paced = [load for load in rounds.loads if load.startswith("paced")]
    requests = "1 KB requests"
    for load in paced:
        yield f"{load}: CPU of a frame, × nginx", MOST, 1.5, rounds.ratio(FRAME, load, OURS, "nginx")
        yield f"{load}: plain aiohttp's CPU of a frame, × ours", LEAST, 2, rounds.ratio(FRAME, load, "aiohttp", OURS)
        yield f"{load}: LiteLLM's CPU of a frame, × ours", LEAST, 30, rounds.ratio(FRAME, load, "litellm", OURS)
    yield "CPU of a 1 KB request, × nginx", MOST, 5, rounds.ratio(REQUEST, requests, OURS, "nginx")
    yield "plain aiohttp's CPU of a 1 KB request, × ours", LEAST, 2.5, rounds.ratio(REQUEST, requests, "aiohttp", OURS)
    yield "LiteLLM's CPU of a 1 KB request, × ours", LEAST, 100, rounds.ratio(REQUEST, requests, "litellm", OURS)
    yield "added to one request at a time, p50 ms", MOST, 0.25, rounds.middle(ADDED_P50, "one at a time", OURS)
    yield "added to one request at a time, p99 ms", MOST, 0.6, rounds.middle(ADDED_P99, "one at a time", OURS)
    yield "paced 512: of a core", MOST, 0.6, rounds.middle(OF_A_CORE, "paced 512", OURS)
    troubles = [sum(row[what] for what in TROUBLE) for row in found["rows"] if row["peer"] == OURS]
    yield "requests failed or stalled, frames lost", MOST, 0, sum(troubles) if troubles else None
    held = found["memory"].get(OURS)
    for when, words in (("idle", "idle"), ("held", "under 512 streams"), ("after", "after all")):
        yield f"memory {words}, MB", MOST, 80, held and held[f"{when}_rss_bytes"] / 1e6
    yield "memory of a stream, KB", MOST, 20, held and kb_a_stream(held)
