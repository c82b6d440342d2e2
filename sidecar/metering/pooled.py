"""All pools of one engine asked as one: what they drew, what they draw, up to when that has been divided."""

from collections.abc import Sequence
from functools import reduce

from perjoule.sidecar.metering.account import Balance
from perjoule.sidecar.metering.division import Division


class Pooled:
    """The divisions of an engine's pools."""

    def __init__(self, divisions: Sequence[Division]) -> None:
        self.divisions = list(divisions)

    def know_batch(self, max_num_seqs: int) -> None:
        """One engine core takes so many requests at a time; 0: that is not known."""
        for division in self.divisions:
            division.group.steady.max_num_seqs = max_num_seqs

    @property
    def believes(self) -> bool:
        """Whether every pool's windows are divided by steps that the engine tells."""
        return all(division.schedule.believes for division in self.divisions)

    @property
    def balance(self) -> Balance:
        """That of all pools together."""
        return reduce(Balance.plus, (division.balance for division in self.divisions))

    def power_w(self, t_ns: int) -> float | None:
        """What the boards draw now, None if that is not known, or not any more."""
        powers = [division.group.power_w if division.group.is_alive(t_ns) else None for division in self.divisions]
        return None if None in powers else sum((power for power in powers if power is not None), 0.0)

    @property
    def divided_ns(self) -> int | None:
        """Up to when the balance counts: the end of the last window that has been divided, in every pool; None before there was one."""
        ends = [division.group.divided_ns for division in self.divisions]
        return None if None in ends else min(end for end in ends if end is not None)

    @property
    def boards_w(self) -> dict[str, float | None]:
        """What each board was last seen to draw, by UUID; None if that is not known."""
        groups = [division.group for division in self.divisions]
        return {device.uuid: timeline.power_w for group in groups for device, timeline in zip(group.devices, group.timelines, strict=True)}

    @property
    def boards_uj(self) -> dict[str, int]:
        """What each board's counter advanced since its first change, by UUID."""
        groups = [division.group for division in self.divisions]
        return {device.uuid: timeline.drawn_uj for group in groups for device, timeline in zip(group.devices, group.timelines, strict=True)}
