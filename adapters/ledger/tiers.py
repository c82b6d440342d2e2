"""Which sums and which records together cover a stretch of time: whole days, at their ends hours, minutes, and at the rims records.

Every piece is [begin, end) of one span; the spans' sums of what begins in it, together, are the sums of the stretch. Where retention
has left only coarser sums, such a sum counts whole where it begins, so that neighbouring stretches still add up.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from perjoule.adapters.ledger.tables import SPANS_S
from perjoule.sidecar.units import NS_PER_S

RECORDS = 0  # the span of a record
Time = int | float  # Unix ns, or ±infinity
COARSE_FIRST = (*sorted(SPANS_S, reverse=True), RECORDS)


class Piece(NamedTuple):
    """All sums of `span_s` (records for 0) that begin in [begin, end)."""

    span_s: int
    begin: Time
    end: Time


def pieces(since: int | None, until: int | None, interval_s: int | None, kept_since: Mapping[int, int]) -> list[Piece]:
    """What covers [since, until), where each span is whole from `kept_since` on, and no sum may reach over the end of an interval."""
    begin, end = -math.inf if since is None else since, math.inf if until is None else until
    fitting = [span_s for span_s in COARSE_FIRST if span_s == RECORDS or interval_s is None or interval_s % span_s == 0]
    starts = {span_s: _up(kept_since.get(span_s, -math.inf), span_s) for span_s in COARSE_FIRST}
    starts[COARSE_FIRST[0]] = -math.inf
    found: list[Piece] = []
    for finest, zone_begin, zone_end in _zones(starts):
        spans = [span_s for span_s in fitting if span_s > finest] + [finest]
        found += _cover(max(begin, zone_begin), min(end, zone_end), spans, starts)
    return found


def _zones(starts: Mapping[int, Time]) -> list[tuple[int, Time, Time]]:
    """Stretches of time, each with the finest span that is whole in it, from the oldest; they meet where the older one's spans end."""
    zones: list[tuple[int, Time, Time]] = []
    finest, edge = COARSE_FIRST[0], -math.inf
    for position, span_s in enumerate(COARSE_FIRST[1:], 1):
        finer_starts = min(starts[finer] for finer in COARSE_FIRST[position:])
        end = max(edge, _up(finer_starts, finest))
        zones.append((finest, edge, end))
        finest, edge = span_s, end
    return [*zones, (finest, edge, math.inf)]


def _cover(begin: Time, end: Time, spans: list[int], starts: Mapping[int, Time]) -> list[Piece]:
    """[begin, end) with the first of the spans as far as it goes, the rims with the others."""
    if begin >= end:
        return []
    span_s, *finer = spans
    if not finer:
        return [Piece(span_s, begin, end)]
    first, last = _up(max(begin, starts[span_s]), span_s), _down(end, span_s)
    if first >= last:
        return _cover(begin, end, finer, starts)
    return [*_cover(begin, first, finer, starts), Piece(span_s, first, last), *_cover(last, end, finer, starts)]


def _down(t: Time, span_s: int) -> Time:
    return t if span_s == RECORDS or math.isinf(t) else t - t % (span_s * NS_PER_S)


def _up(t: Time, span_s: int) -> Time:
    return t if span_s == RECORDS or math.isinf(t) else -_down(-t, span_s)
