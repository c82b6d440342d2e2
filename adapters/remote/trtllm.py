"""TensorRT-LLM's own counter (`trtllm:URL`): `GET /energy_metrics` of a trtllm-serve with `enable_energy_metrics: true`.

It is the sum of its boards, in joules since the server was started, and reading it holds up the server's event loop for as long as NVML
takes: so it is asked for once a second, and windows are a second long.
"""

import json

from perjoule.adapters.remote import OPEN, Access, why_not
from perjoule.adapters.remote.page import Page, whole_uj
from perjoule.sidecar.ports import CounterError, Device, Reading, UnavailableError
from perjoule.sidecar.record import Status
from perjoule.sidecar.units import NS_PER_S, UJ_PER_J


class TrtllmCounter:
    """All boards of one server, as one device."""

    name = "trtllm"
    status = Status.MEASURED
    boundary = "gpu-board"
    devices = (Device("trtllm", "all boards of this TensorRT-LLM server"),)
    period_ns = NS_PER_S
    wrap_uj = None

    def __init__(self, url: str, gpus: str = "all", access: Access = OPEN) -> None:
        """Raises UnavailableError."""
        if gpus != "all":
            raise UnavailableError(f"trtllm: got --gpus {gpus}, expected all: the server tells the sum of its boards only")
        self._page = Page(self.name, url, access)
        try:
            self.read()
        except CounterError as error:
            self.close()
            raise why_not(error, "; trtllm-serve needs `enable_energy_metrics: true`") from error

    def read(self) -> tuple[Reading, ...]:
        """The sum. Raises CounterError."""
        before, after, body = self._page.get("/energy_metrics")
        try:
            return (Reading(before, after, whole_uj(float(json.loads(body)["total_energy_j"]) * UJ_PER_J)),)
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise CounterError(f"trtllm: {self._page.url}/energy_metrics answered {body[:80]!r}, expected an object with "
                               "total_energy_j") from error

    def close(self) -> None:
        """Hang up."""
        self._page.close()
