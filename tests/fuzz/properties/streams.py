"""What must hold of any stream or body, however it was cut on its way: the sidecar's reading of it is the slow and obvious one."""

import gzip
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from perjoule.sidecar.dialects.inband import StreamEditor, with_energy_in_usage
from perjoule.sidecar.dialects.observer import BodyObserver, StreamObserver, observer_for
from perjoule.sidecar.dialects.sse import EventCutter, data_of
from tests.fuzz.inputs.recorded import endpoint
from tests.fuzz.references import editing, events, observation

COMMENT = b": energy {}\n\n"
ENERGY = {"energy_joules": 1.5}
ENERGY_JSON = b'{"energy_joules":1.5}'
SEEN = ("output_frames", "error", "finish_reason", "response_id", "response_model", "saw_done", "broken")
KEPT_OF_A_LONG_BODY = 4 << 10


def pieces(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    """`data` in pieces of these sizes, and then the rest."""
    found, at = [], 0
    for size in sizes:
        found.append(data[at:at + size])
        at += size
    return [*found, data[at:]]


def cuttings(data: bytes, sizes: Sequence[int]) -> Iterator[list[bytes]]:
    """As one piece, an event at a time as engines write, as these pieces, and byte by byte; of a long one, the end."""
    yield [data]
    yield re.split(rb"(?<=\n\n)", data)
    yield pieces(data, sizes)
    start = max(0, len(data) - 300)
    yield [data[:start], *(data[i:i + 1] for i in range(start, len(data)))]


def events_are_cut(stream: bytes, sizes: Sequence[int], limit: int) -> None:
    """EventCutter finds the standard's events, loses no byte, and gives up where an event is longer than its limit."""
    expected = events.cut(stream, limit)
    for cutting in cuttings(stream, sizes):
        cutter, found, rest = EventCutter(limit), [], b""
        for piece in cutting:
            found += cutter.feed(piece)
            if cutter.overflowed:
                rest += cutter.rest()
        assert (found, rest + cutter.rest(), cutter.overflowed) == (expected.events, expected.rest, expected.overflowed)
    for event in (*expected.events, expected.rest):
        assert data_of(event) == events.data(event)


def _seen(observer: StreamObserver | BodyObserver, passing: int) -> dict[str, object]:
    usage = asdict(observer.usage) if observer.usage is not None else {}
    counts = {name: count for name, count in usage.items() if count is not None}
    return {"passing": passing, "usage": counts} | {name: getattr(observer, name) for name in SEEN}


def _told(told: observation.Told) -> dict[str, object]:
    return {"passing": told.passing, "usage": told.usage or {}} | {name: getattr(told, name) for name in SEEN}


def stream_is_observed(stream: bytes, sizes: Sequence[int], dialect: str, choices: int) -> None:
    """StreamObserver tells what a reading of the whole stream tells, compressed or not."""
    expected = _told(observation.of_stream(stream, dialect, choices))
    packed = gzip.compress(stream, 1)
    for encoding, cutting in [(None, cutting) for cutting in cuttings(stream, sizes)] + [(b"gzip", pieces(packed, sizes))]:
        observer = observer_for(endpoint(dialect), True, encoding, choices)
        assert isinstance(observer, StreamObserver)
        passing = sum(map(observer.feed, cutting))
        observer.finish()
        assert _seen(observer, passing) == expected


def ordinary_frames_say_nothing_else(stream: bytes, dialect: str, choices: int) -> None:
    """Parsing the frames that are only counted would tell nothing more of a stream as engines send it."""
    assert _told(observation.of_stream(stream, dialect, choices)) == _told(observation.of_stream(stream, dialect, choices, reads_all=True))


def body_is_observed(body: bytes, sizes: Sequence[int], limit: int) -> None:
    """BodyObserver tells what a reading of the whole body tells; of one that is too long, what the end of it tells."""
    expected = _told(observation.of_body(body, limit, KEPT_OF_A_LONG_BODY))
    for cutting in cuttings(body, sizes):
        observer = BodyObserver(limit)
        passing = sum(map(observer.feed, cutting))
        observer.finish()
        assert _seen(observer, passing) == expected


def body_is_edited(body: bytes) -> None:
    """The energy goes into the usage object of a body, and else nothing changes."""
    assert with_energy_in_usage(body, ENERGY) == editing.with_energy(body, ENERGY_JSON, is_body=True)


def stream_is_edited(stream: bytes, sizes: Sequence[int], *, hide: bool, comment: bool, energy: bool) -> None:
    """StreamEditor gives the client what editing the whole stream gives, at a clean end and where it breaks off.

    The charge is asked for only in or after a piece that was said to need it, and the comment once at most.
    """
    asked = {"hide": hide, "comment": COMMENT if comment else None, "energy": ENERGY_JSON if energy else None}
    whole, broken = editing.edited(stream, **asked), editing.cut_off(stream, **asked)
    if not any((hide, comment, energy)):
        assert whole == broken == stream
    for cutting in cuttings(stream, sizes):
        assert _edited(cutting, hide=hide, comment=comment, energy=energy, is_clean=True) == whole
        assert _edited(cutting, hide=hide, comment=comment, energy=energy, is_clean=False) == broken


def _edited(cutting: list[bytes], *, hide: bool, comment: bool, energy: bool, is_clean: bool) -> bytes:
    """What the client gets. Asserts that the charge is asked for in its time."""
    told, is_over = False, False
    comments: list[bytes] = []

    def charge() -> dict[str, float]:
        assert told or is_over
        return ENERGY

    def said() -> bytes:
        assert charge()
        assert not comments
        comments.append(COMMENT)
        return COMMENT

    editor, got = StreamEditor(hide_usage=hide, comment=said if comment else None, usage_energy=charge if energy else None), b""
    for piece in cutting:
        told = editor.may_tell(piece) or told
        got += editor.feed(piece)
    is_over = True
    return got + (editor.finish() if is_clean else editor.abandon())
