"""A request that has no record yet: where it runs, what it has been charged, and which boards its record will name."""

from collections.abc import Sequence
from dataclasses import dataclass

from perjoule.sidecar.metering.account import Account
from perjoule.sidecar.metering.division import Division
from perjoule.sidecar.metering.schedule import Schedule
from perjoule.sidecar.metering.work import Work


@dataclass(slots=True, eq=False)
class Open:
    """A request that is not settled: where it runs, and the boards that its record will name."""

    account: Account
    divisions: Sequence[Division]  # the last one has the account's work, and its calibration is the record's
    schedule: Schedule  # of the last one
    devices: tuple[str, ...]
    twin: Work | None = None  # the same request in the first of two

    @property
    def runs(self) -> list[tuple[Division, Work]]:
        """Each division with its work."""
        runs = [(self.divisions[-1], self.account.work)]
        if self.twin is not None:
            runs.append((self.divisions[0], self.twin))
        return runs
