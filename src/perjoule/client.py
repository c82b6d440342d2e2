"""What each answer cost, in the hand of a Python program: `metered(openai_client)` returns a client whose answers have `.energy`.

    client = metered(openai.OpenAI(base_url="http://127.0.0.1:9000/v1", api_key="…"))
    response = client.chat.completions.create(…)
    print(response.energy, response.energy.tokens_per_joule)

Nothing that is sent or received changes: headers are read, and the bytes of a stream are looked at while they pass. In front of a
server that is no perjoule, `.energy` is None.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, closing
from dataclasses import dataclass, field, fields, replace
from functools import cache
from inspect import iscoroutine, iscoroutinefunction
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, TypeVar

from perjoule.sidecar.telemetry import Header

if TYPE_CHECKING:
    import openai

    Client = TypeVar("Client", bound=openai.OpenAI | openai.AsyncOpenAI)

FINAL = frozenset({"measured", "mixed"})
_COMMENT = b": energy "
_RECORD = re.compile(r"/energy/([\w.-]+)")  # a path that led elsewhere would take the client's API key there
_LONGEST_LINE = 1 << 20
LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Energy:
    """What one answer cost; docs/in-band.md says what each amount means. None is unknown, never 0.

    A stream's is complete when the stream has ended; before, and where it broke off, only `record_id` is known.
    """

    joules: float | None = None
    active_joules: float | None = None
    prefill_joules: float | None = None
    decode_joules: float | None = None
    uncertainty_joules: float | None = None
    status: str | None = None  # measured, mixed, provisional, estimated, simulated or unavailable; None before it is told
    method: str | None = None
    source: str | None = None
    is_settled: bool = False  # whether it is known to be final
    output_tokens: int | None = None
    record_id: str | None = None
    _find: Callable[[str, float], Any] | None = field(default=None, repr=False, compare=False)

    @property
    def tokens_per_joule(self) -> float | None:
        """Output tokens for each joule; None while either is unknown."""
        return self.output_tokens / self.joules if self.output_tokens is not None and self.joules else None

    def settled(self, timeout_s: float = 10.0) -> "Energy":
        """The final amounts, from the record of an answer that has ended. Raises LookupError without one, and what the client raises."""
        give_up_s = monotonic() + timeout_s
        while True:
            try:
                record = self._asked(timeout_s)
                if iscoroutine(record):
                    record.close()
                    raise TypeError("got the energy of an async client, expected `await energy.asettled()`")
                return self._read(record)
            except Exception as error:
                if not _is_not_there_yet(error) or monotonic() > give_up_s:
                    raise
            sleep(LOOK_S)

    async def asettled(self, timeout_s: float = 10.0) -> "Energy":
        """The same for an async client."""
        give_up_s = monotonic() + timeout_s
        while True:
            try:
                record = self._asked(timeout_s)
                if not iscoroutine(record):
                    raise TypeError("got the energy of a sync client, expected `energy.settled()`")
                return self._read(await record)
            except Exception as error:
                if not _is_not_there_yet(error) or monotonic() > give_up_s:
                    raise
            await asyncio.sleep(LOOK_S)

    def __str__(self) -> str:
        if self.joules is None:
            return f"not known ({self.status or 'not told yet'})"
        error = "" if self.uncertainty_joules is None else f" ± {self.uncertainty_joules:.3g}"
        return f"{self.joules:.4g}{error} J ({self.status})"

    def __deepcopy__(self, _: object) -> "Energy":
        return self  # it cannot change, and its client cannot be copied

    def __reduce__(self) -> tuple[Any, ...]:
        return Energy, tuple(getattr(self, part.name) for part in fields(self) if part.name != "_find")  # a client cannot be pickled

    def _asked(self, timeout_s: float) -> Any:
        if self.record_id is None or self._find is None:
            raise LookupError("no record can be asked for: the server named none, or these amounts were pickled")
        return self._find(self.record_id, timeout_s)

    def _read(self, record: Mapping[str, Any]) -> "Energy":
        """A record as documented in docs/records.md."""
        amounts = {name: None if (uj := record[name.replace("_joules", "_uj")]) is None else uj / 1e6
                   for name in ("active_joules", "prefill_joules", "decode_joules", "uncertainty_joules")}
        return replace(self, joules=record["energy_joules"], status=record["status"], method=record["method"], source=record["source"],
                       is_settled=record["settled"], output_tokens=record["output_tokens"], **amounts)


def _is_not_there_yet(error: Exception) -> bool:
    """A stream was left a moment ago, and the sidecar does not know yet."""
    return getattr(error, "status_code", None) == 404


def metered(client: "Client") -> "Client":
    """A client like this one (OpenAI, AsyncOpenAI or a subclass; its connections are shared) whose answers have `.energy`."""
    kind: Any = type(client)
    if not hasattr(client, "_process_response") or not hasattr(client, "copy"):
        raise TypeError(f"client: got {kind.__module__}.{kind.__qualname__}, expected openai.OpenAI or openai.AsyncOpenAI (1.60 or newer)")
    copy: Any = client.copy()
    copy.__class__ = _metered_class(kind)  # a class, since with_options makes the next client of this one's class
    return copy  # type: ignore[no-any-return]


def energy_of(answer: object) -> Energy | None:
    """What an answer of a metered client cost: `answer.energy` for type checkers, and for the streams of `….stream(…)`, too."""
    energy = getattr(getattr(answer, "_raw_stream", answer), "energy", None)
    return energy if isinstance(energy, Energy) else None


@cache
def _metered_class(kind: Any) -> type:
    """A subclass that looks on where the client makes an answer of an HTTP response."""
    if hasattr(kind, "_find_record"):
        return kind  # type: ignore[no-any-return]
    make = kind._process_response

    def process(self: Any, **made_of: Any) -> Any:
        watch = _Watch(made_of["response"], self._find_record)
        return watch.seen_on(make(self, **made_of))

    async def aprocess(self: Any, **made_of: Any) -> Any:
        watch = _Watch(made_of["response"], self._find_record)
        return watch.seen_on(await make(self, **made_of))

    def find(self: Any, record_id: str, timeout_s: float) -> Any:
        return self.get(str(self.base_url.join(f"/energy/{record_id}")), cast_to=object, options={"timeout": timeout_s})

    return type(kind.__name__, (kind,), {"_process_response": aprocess if iscoroutinefunction(make) else process, "_find_record": find})


class _Watch:
    """One HTTP response: its headers now, and the lines of a stream as they pass."""

    def __init__(self, response: Any, find: Callable[[str, float], Any]) -> None:
        self._answer: Any = None
        self._line = b""
        self._find = find
        self._energy = _of_headers(response.headers, find)
        if response.headers.get("content-type", "").startswith("text/event-stream"):
            response.iter_bytes, response.aiter_bytes = self._passing(response.iter_bytes), self._apassing(response.aiter_bytes)

    def seen_on(self, answer: Any) -> Any:
        """The answer, with what is known of its energy; what is told later, too."""
        self._answer = answer
        usage = getattr(answer, "usage", None)
        tokens = getattr(usage, "completion_tokens", None) or getattr(usage, "output_tokens", None)
        self._show(self._energy and replace(self._energy, output_tokens=tokens))
        return answer

    def _show(self, energy: Energy | None) -> None:
        self._energy = energy
        try:
            object.__setattr__(self._answer, "energy", energy)  # past pydantic: no field of the answer, and not in what it dumps
        except (AttributeError, TypeError):
            return  # text or bytes, which nothing can be put on

    def _passing(self, iter_bytes: Callable[..., Any]) -> Callable[..., Iterator[bytes]]:
        def watched(*args: Any, **kwargs: Any) -> Iterator[bytes]:
            with closing(iter_bytes(*args, **kwargs)) as pieces:
                for piece in pieces:
                    self._look(piece)
                    yield piece
        return watched

    def _apassing(self, aiter_bytes: Callable[..., Any]) -> Callable[..., AsyncIterator[bytes]]:
        async def watched(*args: Any, **kwargs: Any) -> AsyncIterator[bytes]:
            async with aclosing(aiter_bytes(*args, **kwargs)) as pieces:
                async for piece in pieces:
                    self._look(piece)
                    yield piece
        return watched

    def _look(self, piece: bytes) -> None:
        """Only a server can begin a line with the comment: what a model writes is inside JSON, where line ends are escaped."""
        *lines, rest = (self._line + piece).splitlines(keepends=True) or [b""]
        if rest.endswith((b"\n", b"\r")):
            lines, rest = [*lines, rest], b""
        could_be = rest.startswith(_COMMENT) if len(rest) >= len(_COMMENT) else _COMMENT.startswith(rest)
        self._line = rest if could_be and len(rest) < _LONGEST_LINE else b"x"  # of any other line nothing need be kept
        for line in lines:
            if line.startswith(_COMMENT):
                self._show(_of_comment(line.removeprefix(_COMMENT), self._find) or self._energy)


def _of_headers(headers: Mapping[str, str], find: Callable[[str, float], Any]) -> Energy | None:
    status, record = headers.get(Header.STATUS), headers.get(Header.RECORD)
    if status is None and record is None:
        return None
    amounts = {Header.JOULES: "joules", Header.ACTIVE_JOULES: "active_joules", Header.UNCERTAINTY_JOULES: "uncertainty_joules"}
    return Energy(status=status, method=headers.get(Header.METHOD), is_settled=status in FINAL, record_id=_record_id(record), _find=find,
                  **{name: _number(headers.get(header)) for header, name in amounts.items()})  # type: ignore[arg-type]


def _of_comment(text: bytes, find: Callable[[str, float], Any]) -> Energy | None:
    try:
        told = json.loads(text)
        amounts = {name: told.get(name) for name in ("active_joules", "prefill_joules", "decode_joules", "uncertainty_joules")}
        return Energy(joules=told.get("energy_joules"), status=told["status"], method=told.get("attribution_method"),
                      source=told.get("source"), is_settled=bool(told.get("settled")), record_id=_record_id(told.get("record")),
                      _find=find, **amounts)
    except (ValueError, LookupError, AttributeError):
        return None  # a comment of somebody else's


def _record_id(path: object) -> str | None:
    found = _RECORD.fullmatch(path) if isinstance(path, str) else None
    return found[1] if found else None


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
