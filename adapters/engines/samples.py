"""The numbers of a metrics page that somebody wants, found without reading the rest: an engine's page has thousands of lines.

Searching is done name by name, which lets other threads run in between; the lines found are parsed by Prometheus's own parser.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from perjoule.sidecar.ports import Load

MOST = 1e30  # of anything: floating-point operations of a month are 10²¹
MOST_REQUESTS = 10**9
MOST_LINES = 4096  # with one name: one for each rank and model, so a page with more is none


@dataclass(frozen=True, slots=True)
class Names:
    """What the samples of an engine are called; of several names, versions of one thing, the first that is there counts.

    `rank` is the label that tells data-parallel ranks apart. `lag_s` and `whole` are as in Load.
    """

    running: str
    waiting: str
    rank: str = ""
    lag_s: float = 1.0
    whole: bool = False
    kv_use: Sequence[str] = ()
    preemptions: Sequence[str] = ()
    prompt_tokens: Sequence[str] = ()
    cached_tokens: Sequence[str] = ()
    output_tokens: Sequence[str] = ()
    flops: Sequence[str] = ()
    read_bytes: Sequence[str] = ()
    written_bytes: Sequence[str] = ()


COUNTED = ("preemptions", "prompt_tokens", "cached_tokens", "output_tokens", "flops", "read_bytes", "written_bytes")


def read_load(page: bytes, names: Names) -> Load | None:
    """What a page says, None for one that does not have both gauges. Never raises; blocks for milliseconds."""
    try:
        running, waiting = _by_rank(page, names.running, names.rank), _by_rank(page, names.waiting, names.rank)
        counted = {field: _first(page, getattr(names, field), names.rank) for field in COUNTED}
        of_requests = running, waiting, counted["preemptions"]
        if not running or not waiting or max(sum(found.values()) for found in of_requests) > MOST_REQUESTS:
            return None
        kv_use = _first(page, names.kv_use, names.rank)
        return Load(
            sum(map(int, running.values())), sum(map(int, waiting.values())), names.lag_s, names.whole,
            ranks={rank: (int(count), int(waiting.get(rank, 0))) for rank, count in running.items()},
            kv_use=max(kv_use.values()) if kv_use else None,
            **{field: int(sum(found.values())) if found else None for field, found in counted.items()})
    except (ValueError, OverflowError):  # no such page, or no such number
        return None


def _first(page: bytes, names: Sequence[str], rank: str) -> dict[str, float]:
    return next((found for name in names if (found := _by_rank(page, name, rank))), {})


def _by_rank(page: bytes, name: str, rank: str) -> dict[str, float]:
    """The samples of that name, summed for each rank. Raises ValueError for what is none."""
    sums: dict[str, float] = {}
    text = b"".join(_lines(page, name.encode())).decode(errors="replace")
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if not 0 <= sample.value < MOST:  # nor NaN
                raise ValueError(f"got {sample}, expected an amount")
            of = sample.labels.get(rank, "")
            sums[of] = sums.get(of, 0.0) + sample.value
    return sums


def _lines(page: bytes, name: bytes) -> Iterator[bytes]:
    """The page's lines with samples of exactly that name. Raises ValueError if there are too many."""
    found = 0
    for start in (name + b"{", name + b" "):
        begin = 0 if page.startswith(start) else page.find(b"\n" + start) + 1
        while begin or page.startswith(start):
            end = page.find(b"\n", begin)
            end = len(page) if end < 0 else end
            yield page[begin:end] + b"\n"
            found += 1
            if found > MOST_LINES:
                raise ValueError(f"got more than {MOST_LINES} lines of {name.decode()}")
            begin = page.find(b"\n" + start, end) + 1
            if not begin:
                break
