"""Service level objectives, as `ttft:200ms tpot:50ms e2e:5s`: a request is good if it keeps all of them."""

import re
from collections.abc import Mapping
from math import inf

MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
OF = ("ttfb", "ttft", "tpot", "ntpot", "e2e", "ttft_intended", "e2e_intended")
ONE = re.compile(r"(\w+):([0-9]*\.?[0-9]+)(us|ms|s)")


def objectives(text: str) -> dict[str, float]:
    """The limits in milliseconds, by metric. Raises ValueError with what was got and what was expected."""
    found: dict[str, float] = {}
    for part in text.replace(",", " ").split():
        match = ONE.fullmatch(part)
        if match is None or match[1] not in OF or match[1] in found or not 0 < float(match[2]) < inf:
            raise ValueError(f"objectives: got {part!r}, expected each of {', '.join(OF)} once at most, as ttft:200ms or e2e:5s")
        found[match[1]] = float(match[2]) * MS[match[3]]
    return found


def kept(limits: Mapping[str, float], times_ms: Mapping[str, float | None], output_tokens: int | None) -> bool:
    """Whether a completed request is good. A time that it does not have is no proof; but one token alone has no time per token."""
    for metric, limit_ms in limits.items():
        got = times_ms[metric]
        if got is None:
            if metric != "tpot" or output_tokens != 1:
                return False
        elif got > limit_ms:
            return False
    return True
