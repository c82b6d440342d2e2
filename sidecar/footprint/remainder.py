"""What was drawn and no request bears, cut by time: idle, unattributed, and what the host drew beside the boards.

A sidecar keeps its balance every few seconds; what changed from one to the next of the same run is spread evenly over the time between.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from perjoule.sidecar.metering.attribution import apportion
from perjoule.sidecar.record import Balance, Status


@dataclass(slots=True)
class Drawn:
    """What balances say of one stretch of time, in microjoules; `host_uj` is None where no balance tells."""

    measured_uj: int = 0
    requests_uj: int = 0
    idle_uj: int = 0
    unattributed_uj: int = 0
    host_uj: int | None = None


@dataclass(frozen=True, slots=True)
class Accounts:
    """Drawn in each cell of time, by where it begins; `statuses` says what kinds of joules these are."""

    cells: dict[int, Drawn]
    statuses: frozenset[Status]


def accounts(balances: Iterable[Balance], grain_ns: int, since_unix_ns: int, until_unix_ns: int) -> Accounts:
    """What was drawn in [since, until), by cells of `grain_ns`. Balances of one run come in order of time; its first tells only where its
    counters stood, so one from before `since` belongs to them."""
    cells: defaultdict[int, Drawn] = defaultdict(Drawn)
    latest: dict[str, Balance] = {}
    statuses = set()
    for after in balances:
        before = latest.get(after.instance_id)
        latest[after.instance_id] = after
        if before is not None and before.unix_ns < min(after.unix_ns, until_unix_ns) and after.unix_ns > since_unix_ns:
            _spread(cells, before, after, grain_ns, since_unix_ns, until_unix_ns)
            statuses.add(after.status)
    return Accounts(dict(cells), frozenset(statuses))


def _spread(cells: defaultdict[int, Drawn], before: Balance, after: Balance, grain_ns: int, since_unix_ns: int,
            until_unix_ns: int) -> None:
    """The change between two balances, into the cells it lies in; what lies outside of [since, until) is left out."""
    begin_ns, end_ns = before.unix_ns, after.unix_ns
    edges = {edge for edge in (since_unix_ns, until_unix_ns) if begin_ns < edge < end_ns}
    cuts = sorted({begin_ns, *edges, *range(begin_ns - begin_ns % grain_ns + grain_ns, end_ns, grain_ns), end_ns})
    spans_ns = [end - start for start, end in pairwise(cuts)]
    for name in ("requests_uj", "idle_uj", "unattributed_uj", "host_uj"):
        was_uj, is_uj = getattr(before, name), getattr(after, name)
        if was_uj is None or is_uj is None:
            continue
        parts = apportion(abs(is_uj - was_uj), spans_ns)
        for start, part_uj in zip(cuts, parts, strict=False):
            if since_unix_ns <= start < until_unix_ns:
                _add(cells[start - start % grain_ns], name, part_uj if is_uj >= was_uj else -part_uj)


def _add(cell: Drawn, name: str, uj: int) -> None:
    setattr(cell, name, (getattr(cell, name) or 0) + uj)
    if name != "host_uj":  # measured == requests + idle + unattributed, in every cell
        cell.measured_uj += uj
