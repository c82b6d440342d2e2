"""What one request has been charged so far, and the balance of all: integers that add up at every moment."""

from dataclasses import asdict, dataclass
from math import hypot

from perjoule.sidecar.record import Charge, RequestFacts, Status
from perjoule.sidecar.weighing import Weight
from perjoule.sidecar.work import Work

# Of what was shared with others: how far token-share was from the truth for single requests, root mean square (0.12 on coalitions of
# an H200, 0.3 in the demo's mix). A rough standard error, the same for every request; a calibrated one is to come.
SHARE_ERROR = 0.25
# Of a window in which a request began or ended: when the window itself began and ended is known to half a poll (10 of 100 ms).
EDGE_ERROR = 0.10
OPEN_ERROR = 0.20  # of what a charge that is not settled yet adds for windows that have not been divided


@dataclass(slots=True)
class Balance:
    """The law of conservation as four integers: measured == requests + idle + unattributed."""

    measured_uj: int = 0
    requests_uj: int = 0
    idle_uj: int = 0
    unattributed_uj: int = 0

    @property
    def conserved(self) -> bool:
        return self.measured_uj == self.requests_uj + self.idle_uj + self.unattributed_uj

    def as_json(self) -> dict[str, int | bool]:
        return {**asdict(self), "conserved": self.conserved}


@dataclass(slots=True, eq=False)
class Account:
    """One open request: its work, and its charges of the windows that have been divided."""

    record_id: str
    work: Work
    model: str | None
    input_bytes: int
    running_integral: int  # of the meter, when it began: nanoseconds times requests
    facts: RequestFacts | None = None
    energy_uj: int = 0
    active_uj: int = 0
    prefill_uj: int = 0
    steady_uj: int = 0
    steady_ns: int = 0
    shared_uj: int = 0
    edge_uj: int = 0
    windows: int = 0
    missed: bool = False  # part of its time was not measured
    concurrency_mean: float | None = None

    @property
    def begin_ns(self) -> int:
        """When it began to run."""
        return self.work.begin_ns

    def add(self, weight: Weight, energy_uj: int, active_uj: int, *, steady_ns: int, alone: bool, whole: bool) -> None:
        """Its part of one window; `steady_ns` is 0 unless the window was steady, `whole` whether it ran from end to end."""
        self.windows += 1
        self.energy_uj += energy_uj
        self.active_uj += active_uj
        if weight.total:
            self.prefill_uj += energy_uj * weight.prefill // weight.total
        if steady_ns:
            self.steady_uj += energy_uj
            self.steady_ns += steady_ns
        if not alone:
            self.shared_uj += energy_uj
        if not whole:
            self.edge_uj += round(energy_uj * EDGE_ERROR)

    def charge(self, best: Status, *, method: str, source: str, boundary: str, devices: tuple[str, ...], idle_known: bool, settled: bool,
               alive: bool = False, open_uj: int = 0, open_active_uj: int = 0) -> Charge:
        """The charge as it stands, plus what the open window is thought to add. `best` is the status of the source; `alive` says
        that its counter moves, so that nothing yet is a number, too."""
        if best is Status.UNAVAILABLE or (self.windows == 0 and not alive):
            return Charge(Status.UNAVAILABLE, method, source, settled, boundary=boundary, devices=devices)
        status = best
        if best is Status.MEASURED:
            status = Status.PROVISIONAL if not settled else Status.MIXED if self.missed else Status.MEASURED
        energy_uj = self.energy_uj + open_uj
        prefill_uj = None  # which phase the open window was cannot be told before it has been divided
        if self.windows:
            prefill_uj = self.prefill_uj + (open_uj if self.work.first_ns is None and self.work.visible else 0)
        return Charge(
            status, method, source, settled, boundary=boundary, devices=devices, energy_uj=energy_uj,
            active_uj=self.active_uj + open_active_uj if idle_known else None, prefill_uj=prefill_uj,
            decode_uj=None if prefill_uj is None else energy_uj - prefill_uj,
            steady_uj=self.steady_uj, steady_ns=self.steady_ns,
            uncertainty_uj=round(hypot(SHARE_ERROR * self.shared_uj, self.edge_uj, OPEN_ERROR * open_uj)), windows=self.windows,
            concurrency_mean=self.concurrency_mean)
