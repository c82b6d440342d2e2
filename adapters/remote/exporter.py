"""Counters in Prometheus's text format: NVIDIA's DCGM exporter (`dcgm:URL`) and Triton (`triton:URL`), which hold NVML's values.

Both take a new value only now and then, DCGM's exporter every 30 s and Triton every 2 s unless told otherwise, and a scrape makes them
take none. So the page is watched at the start, to learn how often a new value comes, and then looked at up to twenty times as often.
Between two looks the latest reading stands, with its own times: nothing is said of a moment at which nobody looked.
"""

import logging
import time
from contextlib import suppress
from typing import ClassVar

from prometheus_client.parser import text_string_to_metric_families

from perjoule.adapters.remote import OPEN, Access, why_not
from perjoule.adapters.remote.page import Page, whole_uj
from perjoule.sidecar.metering.pools import each_once
from perjoule.sidecar.ports import AbsentError, CounterError, Device, Reading, UnavailableError
from perjoule.sidecar.record import Status
from perjoule.sidecar.units import NS_PER_MS, NS_PER_S, UJ_PER_J, UJ_PER_MJ

WATCH_S = 2.5  # at the start
CHANGES = 8  # that are enough to know how often a new value comes
LOOKS = 20  # in a period
NEAREST_NS, FURTHEST_NS = 20 * NS_PER_MS, 250 * NS_PER_MS  # between two looks

logger = logging.getLogger("perjoule")


class Exporter:
    """One group of boards on one page: all that it shows, or those named."""

    name: ClassVar[str]
    metric: ClassVar[str]
    board: ClassVar[str]  # the label with the board's UUID
    uj: ClassVar[int]  # in one of the metric's units
    usual_ns: ClassVar[int]  # how often a new value comes, unless told otherwise
    told_by: ClassVar[str]  # what tells it otherwise
    status = Status.MEASURED
    boundary = "gpu-board"
    wrap_uj = None

    def __init__(self, url: str, gpus: str = "all", access: Access = OPEN) -> None:
        """`url` is that of the page, or of its host. Blocks for up to 2.5 s. Raises UnavailableError."""
        self._page = Page(self.name, url, access)
        self._path = "" if self._page.prefix else "/metrics"
        self._next_ns, self.period_ns = 0, 0
        self._latest: tuple[Reading, ...] = ()
        try:
            there = self._ask()[2]
            if not there:
                raise AbsentError(f"{self.name}: {url} shows no {self.metric}")
            named = tuple(there) if gpus == "all" else each_once(gpus)
            for uuid in named:
                if uuid not in there:
                    raise UnavailableError(f"{self.name}: no board {uuid!r} on {url}; there is {', '.join(there)}")
            self.devices = tuple(Device(uuid, there[uuid][1]) for uuid in named)
            self.period_ns = self._watch()
        except CounterError as error:
            self.close()
            raise why_not(error) from error
        except UnavailableError:
            self.close()
            raise

    def read(self) -> tuple[Reading, ...]:
        """What the page showed when it was last looked at; it is looked at now if that is due. Raises CounterError."""
        if time.monotonic_ns() >= self._next_ns:
            self._latest = self._look()
            self._next_ns = self._latest[0].t_before_ns + min(max(self.period_ns // LOOKS, NEAREST_NS), FURTHEST_NS)
        return self._latest

    def close(self) -> None:
        """Hang up."""
        self._page.close()

    def _look(self) -> tuple[Reading, ...]:
        before, after, shown = self._ask()
        try:
            return tuple(Reading(before, after, shown[device.uuid][0]) for device in self.devices)
        except KeyError as error:
            raise CounterError(f"{self.name}: {self._page.url} does not show board {error} any more, but {', '.join(shown) or 'none'}; "
                               "is it the exporter of one host?") from error

    def _ask(self) -> tuple[int, int, dict[str, tuple[int, str]]]:
        """When the page was asked, when it came, and each board's microjoules and name."""
        seen = self._page.get(self._path)
        if not seen.body.endswith(b"\n"):
            raise CounterError(f"{self.name}: {self._page.url} ends with {seen.body[-40:]!r}, expected whole lines")
        lines = [line for line in seen.body.decode("utf-8", "replace").splitlines() if line.startswith(self.metric)]  # of thousands
        shown: dict[str, tuple[int, str]] = {}
        try:
            for family in text_string_to_metric_families("\n".join([*lines, ""])):
                for sample in family.samples:
                    if sample.name == self.metric:
                        self._take(shown, sample.labels, float(sample.value))
        except (ValueError, KeyError, OverflowError) as error:
            raise CounterError(f"{self.name}: {self._page.url} shows {self.metric} as {lines[:1]}, expected a number and the label "
                               f"{self.board}: {error!r}") from error
        return seen.before_ns, seen.after_ns, shown

    def _take(self, shown: dict[str, tuple[int, str]], labels: dict[str, str], value: float) -> None:
        uuid = labels[self.board]
        if "GPU_I_ID" in labels:
            raise CounterError(f"{self.name}: {uuid} is split by MIG, which is not supported: the counter sees the whole board, not a "
                               "slice")
        with suppress(ValueError):  # DCGM's blanks, from 2^63 - 16 on, and NaN say that there is none
            shown[uuid] = whole_uj(value * self.uj), labels.get("modelName", "")  # the same for each container that uses it

    def _watch(self) -> int:
        """How often a new value comes, as far as it can be seen in a short time; else what is usual."""
        end_ns, changed_ns = time.monotonic_ns() + round(WATCH_S * NS_PER_S), list[int]()
        first = self._look()[0]
        while time.monotonic_ns() < end_ns and len(changed_ns) < CHANGES:
            time.sleep(NEAREST_NS / NS_PER_S)
            reading = self._look()[0]
            if reading.energy_uj != first.energy_uj:
                changed_ns.append(reading.t_before_ns)
            first = reading
        if len(changed_ns) > 1:
            return (changed_ns[-1] - changed_ns[0]) // (len(changed_ns) - 1)
        logger.warning("%s: fewer than 2 new values in %g s, so windows are about %g s long, and what a request cost is known as late; "
                       "%s changes that", self.name, WATCH_S, self.usual_ns / NS_PER_S, self.told_by)
        return self.usual_ns


class DcgmCounter(Exporter):
    """dcgm-exporter: millijoules since the driver was loaded."""

    name, metric, board, uj = "dcgm", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "UUID", UJ_PER_MJ
    usual_ns, told_by = 30 * NS_PER_S, "dcgm-exporter --collect-interval 100"


class TritonCounter(Exporter):
    """Triton's metrics port: joules since the server was started."""

    name, metric, board, uj = "triton", "nv_energy_consumption", "gpu_uuid", UJ_PER_J
    usual_ns, told_by = 2 * NS_PER_S, "tritonserver --metrics-interval-ms 100"
