"""What each key has used of its budgets in the present interval, and who must wait: requests, tokens and joules.

Intervals are fixed and begin with the clock: an hour's at the full hour, a day's at midnight UTC, so that people know when theirs is
whole again. A request is taken when it is let in; its tokens and joules are known, and taken, when its record is settled. So a key can
overdraw by what it has in flight when its budget runs out. What is overdrawn is owed: it is taken off the intervals that follow, and over
many of them nobody gets more than the limit. After a restart, what the present interval's records say is used.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from perjoule.sidecar.access.doors import Refusal
from perjoule.sidecar.access.keys import Budget, Keys
from perjoule.sidecar.record import EnergyRecord
from perjoule.sidecar.units import NS_PER_S, joules

WHAT = ("requests", "tokens", "joules")
limits_of = attrgetter("requests", "tokens", "energy_uj")


@dataclass(slots=True)
class Used:
    """What one key has used in the interval of that number, by WHAT, and what it owes of earlier ones."""

    budget: Budget
    interval: int
    amounts: list[int]

    def begin(self, interval: int) -> None:
        """Intervals have passed: each has paid its limit off what was used."""
        passed, self.interval = interval - self.interval, interval
        if passed > 0:
            self.amounts = [0 if limit is None else max(0, amount - passed * limit)
                            for amount, limit in zip(self.amounts, limits_of(self.budget), strict=True)]


class Limits:
    """One account for each key that has a budget; times are monotonic, `unix_offset_ns` is what makes Unix time of them."""

    def __init__(self, keys: Keys | None = None, unix_offset_ns: int = 0) -> None:
        self._unix_offset_ns = unix_offset_ns
        self._used: dict[str, Used] = {}
        self.reload(keys)

    def reload(self, keys: Keys | None) -> None:
        """Other keys and budgets from now on; what was used in an interval of the same length stays used."""
        old, self._used = self._used, {}
        for name, budget in (keys.budgets if keys is not None else {}).items():
            before = old.get(name)
            goes_on = before is not None and before.budget.interval_s == budget.interval_s
            self._used[name] = Used(budget, before.interval, before.amounts) if before and goes_on else Used(budget, 0, [0, 0, 0])

    @property
    def in_joules(self) -> bool:
        """Whether a key's joules are limited."""
        return any(used.budget.energy_uj is not None for used in self._used.values())

    def begun_unix_ns(self, t_ns: int) -> dict[int, int]:
        """When the present interval began, for each length in seconds that a budget has."""
        unix_ns = t_ns + self._unix_offset_ns
        return {used.budget.interval_s: unix_ns - unix_ns % (used.budget.interval_s * NS_PER_S) for used in self._used.values()}

    def recall(self, interval_s: int, recorded: Iterable[Mapping[str, Any]], t_ns: int) -> None:
        """What an earlier run of the sidecar has recorded in the present interval of that length, summed by `tenant` as
        `RecordQueries.grouped` does."""
        for group in recorded:
            used = self._at(group["tenant"], t_ns)
            if used is not None and used.budget.interval_s == interval_s:
                used.amounts = [group["requests"], (group["input_tokens"] or 0) + (group["output_tokens"] or 0), group["energy_uj"] or 0]

    def admit(self, name: str, t_ns: int) -> Refusal | None:
        """Take one request of that key; or say why not, and when there is room."""
        used = self._at(name, t_ns)
        if used is None:
            return None
        for what, amount, limit in zip(WHAT, used.amounts, limits_of(used.budget), strict=True):
            if limit is not None and amount >= limit:
                return self._refusal(used, what, amount, limit, t_ns)
        used.amounts[0] += 1
        return None

    def spent(self, record: EnergyRecord, t_ns: int) -> None:
        """Take what a settled record has cost from whoever asked; what is unknown of it takes nothing."""
        facts = record.facts
        used = self._at(facts.tenant, t_ns)
        if used is not None:
            used.amounts[1] += (facts.input_tokens or 0) + (facts.output_tokens or 0)
            used.amounts[2] += record.charge.energy_uj or 0

    def _at(self, name: str | None, t_ns: int) -> Used | None:
        used = self._used.get(name) if name is not None else None
        if used is not None:
            used.begin((t_ns + self._unix_offset_ns) // (used.budget.interval_s * NS_PER_S))
        return used

    def _refusal(self, used: Used, what: str, amount: int, limit: int, t_ns: int) -> Refusal:
        interval_s = used.budget.interval_s
        room_at = (used.interval + amount // limit) * interval_s * NS_PER_S
        wait_s = -((t_ns + self._unix_offset_ns - room_at) // NS_PER_S)
        of, has = (limit, amount) if what != "joules" else (f"{joules(limit):g}", f"{joules(amount):g}")
        text = f"this key may use {of} {what} in {interval_s} s and has used {has}; there is room again in {wait_s} s"
        return Refusal(429, "rate_limit_exceeded", text, (
            ("Retry-After", str(wait_s)), (f"x-ratelimit-limit-{what}", str(of)), (f"x-ratelimit-remaining-{what}", "0"),
            (f"x-ratelimit-reset-{what}", f"{wait_s}s")))
