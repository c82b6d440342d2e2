"""Requests that an engine runs and that did not come through here: somebody goes around the sidecar, and then his joules are divided among
ours, since a counter does not say whose they are.

An engine counts a little late, and a request comes or goes while it is asked. So ours are all that were in flight at any time since the
moment that its count may stem from, and what two looks in a row say at least is said. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from perjoule.sidecar.metering.meter import Meter
from perjoule.sidecar.ports import Load


@dataclass(frozen=True, slots=True)
class Ours:
    """Of the requests that came through here and may be what an engine counts: how many, as how many sequences at most; None for these
    where that cannot be told, as of a list of texts to embed."""

    requests: int
    sequences: int | None

    def strangers(self, load: Load) -> int | None:
        """How many the engine counts beyond them; below 0 if it counts fewer."""
        known = self.requests if load.whole else self.sequences
        return None if known is None else load.running + load.waiting - known


class InFlight:
    """The requests in flight now, to be compared with a later moment."""

    def __init__(self, meter: Meter) -> None:
        self._begun = meter.begun
        self._choices = choices_of(meter)

    def since(self, meter: Meter) -> Ours:
        """All that were in flight at any time from then on until now."""
        now = choices_of(meter)
        both = self._choices | now
        passed = max(0, meter.begun - self._begun - len(now.keys() - self._choices.keys()))  # began and ended in between
        return Ours(len(both) + passed, _sequences(list(both.values()), passed))


def _sequences(known: Sequence[int | None], passed: int) -> int | None:
    """Of these requests and of as many that have passed unseen: each of those counts as the largest seen, if any was."""
    told = [choices for choices in known if choices is not None]
    if len(told) < len(known) or (passed and not told):
        return None
    return sum(told) + passed * max(told, default=1)


def choices_of(meter: Meter) -> dict[str, int | None]:
    """How many sequences each request in flight is to the engine, by record id; None where its body does not say."""
    return {account.record_id: account.work.choices if account.work.decodes else None for account in meter.running}


@dataclass(slots=True)
class Strangers:
    """What is believed after two looks in a row; None before, and while it cannot be told."""

    seen: int | None = None
    _before: int | None = field(default=None, init=False)

    def look(self, found: int | None) -> None:
        """What one look found; None for one that found nothing out."""
        self.seen = None if found is None or self._before is None else max(0, min(found, self._before))
        self._before = found
