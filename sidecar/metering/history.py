"""The last minutes in slots of half a second: what was drawn, in which phase, and for whom, so that who looks now sees what was before."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from heapq import nlargest
from typing import NamedTuple

from perjoule.sidecar.metering.steady_state import Phase
from perjoule.sidecar.units import NS_PER_MS

SLOT_NS = 500 * NS_PER_MS
SLOTS = 600  # five minutes
NAMES = 12  # of models, and of tenants, in a slot: those that took most; who may send any name must not fill the memory
NAME_MOST = 120  # characters
OTHERS = ""  # the name of all the rest

Uses = Mapping[str | None, int]  # microjoules by model or tenant; None: it named none


class Drawn(NamedTuple):
    """A window that has been divided. `phase` is None where that could not be told."""

    phase: Phase | None
    idle_uj: int
    unattributed_uj: int
    tokens: float  # of output
    models: Uses
    tenants: Uses


@dataclass(slots=True)
class Slot:
    """What fell into half a second; a window that lies in several is parted by time."""

    idle_uj: int = 0
    unattributed_uj: int = 0
    tokens: float = 0.0
    models: dict[str | None, int] = field(default_factory=dict)
    tenants: dict[str | None, int] = field(default_factory=dict)
    phases: dict[Phase | None, int] = field(default_factory=dict)  # nanoseconds

    @property
    def phase(self) -> Phase | None:
        """The one that took most of it."""
        return max(self.phases, key=self.phases.__getitem__)

    def put(self, drawn: Drawn, since: int, until: int, span: int) -> None:
        """Take the part of a window from `since` to `until` of its `span`. The parts of all slots add up to the window."""
        is_whole = until - since == span

        def part(uj: int) -> int:
            return uj if is_whole else uj * until // span - uj * since // span

        self.idle_uj += part(drawn.idle_uj)
        self.unattributed_uj += part(drawn.unattributed_uj)
        self.tokens += drawn.tokens * (until - since) / span
        self.phases[drawn.phase] = self.phases.get(drawn.phase, 0) + until - since
        for mine, uses in ((self.models, drawn.models), (self.tenants, drawn.tenants)):
            for name, uj in uses.items():
                mine[name] = mine.get(name, 0) + part(uj)

    def fold(self) -> None:
        """Keep the names that took most, short enough, and put the others together; the second time, there is nothing to do."""
        self.models, self.tenants = _fewer(self.models), _fewer(self.tenants)


class History:
    """Slots by their number, which is their time by `SLOT_NS`. Windows of each pool come in order; those of several may alternate."""

    def __init__(self, pools: int = 1) -> None:
        self._pools = pools
        self._slots: dict[int, Slot] = {}
        self._newest = 0

    def add(self, t0_ns: int, t1_ns: int, drawn: Drawn) -> None:
        """A window has been divided."""
        span_ns, last = t1_ns - t0_ns, (t1_ns - 1) // SLOT_NS
        for number in range(max(t0_ns // SLOT_NS, max(last, self._newest) - SLOTS + 1), last + 1):
            slot = self._slots.get(number)
            if slot is None:
                slot = self._open(number)
            since_ns, until_ns = number * SLOT_NS - t0_ns, (number + 1) * SLOT_NS - t0_ns
            slot.put(drawn, max(0, since_ns), min(span_ns, until_ns), span_ns)

    def whole(self, since: int, until: int) -> Iterator[tuple[int, Slot]]:
        """The slots from number `since`, below number `until`, that windows of every pool cover; in order."""
        for number in range(max(since, self._newest - SLOTS + 1), min(until, self._newest + 1)):
            slot = self._slots.get(number)
            if slot is not None and sum(slot.phases.values()) == self._pools * SLOT_NS:
                slot.fold()  # nothing more will come
                yield number, slot

    def _open(self, number: int) -> Slot:
        """Another slot; the one before it is folded, those that are too old are forgotten."""
        if number > self._newest:
            self._newest = number
            for old in [old for old in self._slots if old <= number - SLOTS]:
                del self._slots[old]
            for before in (number - 1, number - 2):  # the second time, it has what another pool added late
                if (slot := self._slots.get(before)) is not None:
                    slot.fold()
        slot = self._slots[number] = Slot()
        return slot


def _fewer(uses: dict[str | None, int]) -> dict[str | None, int]:
    kept = nlargest(NAMES, (name for name in uses if name != OTHERS), key=uses.__getitem__)
    fewer: defaultdict[str | None, int] = defaultdict(int)
    for name in kept:
        fewer[name and name[:NAME_MOST]] += uses[name]
    if (others := sum(uses.values()) - sum(fewer.values())) > 0:
        fewer[OTHERS] += others
    return dict(fewer)
