"""Energy counters that are somewhere else: read over HTTP from an exporter, a daemon or an engine, or told by a `perjoule meter`.

    page         one page, asked for again and again over a connection that stays open
    exporter     counters in Prometheus's text format: DCGM's exporter, Triton
    zeusd        the Zeus daemon
    trtllm       TensorRT-LLM's own endpoint
    clock        what another host's clock shows, in ours
    told         readings that have come and were not looked at yet
    meter        a `perjoule meter`
"""

from dataclasses import dataclass, field

from perjoule.sidecar.ports import AbsentError, CounterError, SilentError, UnavailableError


@dataclass(frozen=True, slots=True)
class Access:
    """How such a place is entered: the token that it asks for, and the authorities (PEM) by which it is known, instead of the system's."""

    token: str | None = field(default=None, repr=False)
    tls_ca: str = ""


OPEN = Access()


def why_not(error: CounterError, more: str = "") -> UnavailableError:
    """What a source says that could not be read when it was opened: whether it may come, or is not what was meant."""
    return (AbsentError if isinstance(error, SilentError) else UnavailableError)(f"{error}{more}")
