"""A request that has no record yet: where it runs, what it has been charged, and which boards its record will name."""

from dataclasses import dataclass

from perjoule.sidecar.metering.account import Account
from perjoule.sidecar.metering.division import Division
from perjoule.sidecar.metering.schedule import Schedule
from perjoule.sidecar.metering.work import Work


@dataclass(slots=True, eq=False)
class Open:
    """A request that is not settled: where it runs, and the boards that its record will name."""

    account: Account
    divisions: list[Division]  # the last one has the account's work, and its calibration is the record's
    runs: list[tuple[Division, Work]]  # each with the work in it, the last one first
    schedule: Schedule  # of the last one
    devices: tuple[str, ...]
    twin: Work | None = None  # the same request in the first of two
    end_ns: int = 0  # when it ended, once it has
