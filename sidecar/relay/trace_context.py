"""The `traceparent` header of W3C Trace Context: in which trace we were called, and what we tell the engine."""

import re
from dataclasses import dataclass

_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_KNOWN_FLAGS = 0b11  # sampled (level 1), random trace id (level 2); others must not be passed on


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A trace and the place in it from which we were called; `parent_id` is None where the trace begins with us.

    Ids are lower-case hex as on the wire, 32 and 16 digits.
    """

    trace_id: str
    parent_id: str | None
    flags: int

    def child(self, span_id: str) -> str:
        """The `traceparent` for whom we call, from our own span `span_id`: the same trace, the same sampling."""
        return f"00-{self.trace_id}-{span_id}-0{self.flags & _KNOWN_FLAGS}"


def parse_traceparent(header: bytes | str | None) -> TraceContext | None:
    """The context in a `traceparent` value, None where there is none or it must be ignored (W3C Trace Context, 3.2).

    Version 00 is read strictly, of a higher version only the beginning that is known; ff and zero ids are invalid.
    """
    if header is None:
        return None
    text = header.decode("latin-1") if isinstance(header, bytes) else header
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    version, trace_id, parent_id, flags, rest = found.groups()
    if version == "ff" or (version == "00" and rest is not None):
        return None
    if not trace_id.strip("0") or not parent_id.strip("0"):
        return None
    return TraceContext(trace_id, parent_id, int(flags, 16))
