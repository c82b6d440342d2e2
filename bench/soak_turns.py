"""What the clients of bench/soak.py do: each turn is drawn from a seed and says what is sent, how it is read, and what must come back."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import accumulate
from random import Random
from typing import ClassVar

from perjoule.bench.relay_upstream import MODEL, STAMP, Wish, answer
from perjoule.bench.soak_engine import death

FRAMES = (1, 30)  # of a stream, from and to
GAP_MS = (0, 5)
TEXT_BYTES = (1, 1000)  # of an answer that is not streamed: which one it is tells whose it is
LARGE_BYTES = 100_000  # of a request's body
HUGE_TEXT_BYTES, HUGE_FRAMES = 3_000_000, 12_000  # of an answer: more than the kernel holds for a slow reader
FRAME_BYTES = 230  # about what one has on the wire
SLOW_S = 0.1
NEVER = 1 << 62
ELSEWHERE = (("GET /v1/models", 200, b'"list"'), ("GET /version", 200, b"version"), ("GET /nothing", 404, b"Not Found"),
             ("DELETE /v1/files/1", 404, b"Not Found"), ("HEAD /v1/models", 200, b""))


class Saw(IntEnum):
    """What a client saw of its request; with what the engine saw, that says which record there must be."""

    NOTHING = 0  # it was not sent yet
    WHOLE = 1  # the engine's answer
    REFUSED = 2  # the engine's error
    CUT = 3  # an answer that broke off, or 502: the engine had died
    LEFT = 4  # the client sent everything, and was gone before the end
    UNSENT = 5  # the client left in the middle of its request
    UNMETERED = 6  # an answer to what is no inference
    WRONG = 7  # none of those that may be


Judge = Callable[[int, bytes], Saw]
"""Takes an answer's status and body."""


@dataclass(slots=True)
class Turn:
    """What one client does at a time: one request, or some in a pipeline, whose bytes are sent at once."""

    numbers: range
    send: bytes
    answers: Sequence[Judge]  # one for each that is expected
    otherwise: Saw = Saw.WRONG  # what it saw if they do not come
    alone: bool = False  # on a connection of its own, which it leaves in the end
    resets: bool = False  # with RST then, not with FIN
    slow: bool = False  # it reads nothing during its pause
    pause_s: float | None = None  # after which it leaves, unless it waits
    waits: bool = False
    leaves_after_bytes: int = NEVER
    leaves_when_done: bool = False  # at `data: [DONE]`
    half_closes: bool = False
    is_head: bool = False


def text(size: int) -> Judge:
    """The prepared answer of that size, byte for byte."""
    def judge(status: int, body: bytes) -> Saw:
        return Saw.WHOLE if status == 200 and body == answer(size).partition(b"\r\n\r\n")[2] else Saw.WRONG
    return judge


def stream(frames: int) -> Judge:
    """A stream of so many tokens, with its energy and its end; usage is hidden from who did not ask for it."""
    def judge(status: int, body: bytes) -> Saw:
        is_whole = (len(STAMP.findall(body)) == frames and body.endswith(b"data: [DONE]\n\n") and body.count(b"\n: energy {") == 1
                    and b'"usage"' not in body)
        return Saw.WHOLE if status == 200 and is_whole else Saw.WRONG
    return judge


def status(expected: int, saw: Saw, says: bytes = b"") -> Judge:
    """Any answer with this status, that says this."""
    return lambda got, body: saw if got == expected and says in body else Saw.WRONG


class Kinds:
    """Turns for these numbers, kinds mixed by weight. The same seed and numbers give the same turns."""

    WEIGHTS: ClassVar[dict[str, float]]

    def __init__(self, seed: int, port: int, numbers: range) -> None:
        self._rng, self._host, self._name = Random(f"{seed} {numbers}"), f"127.0.0.1:{port}", f"soak-{seed}"
        self._left = numbers

    def __iter__(self) -> Iterator[Turn]:
        kinds = [getattr(self, name) for name in self.WEIGHTS]
        until = list(accumulate(self.WEIGHTS.values()))
        while self._left:
            yield self._rng.choices(kinds, cum_weights=until)[0]()

    # parts of a turn

    def _take(self, count: int = 1) -> range:
        """The next numbers."""
        taken, self._left = self._left[:count], self._left[count:]
        return taken

    def _between(self, bounds: tuple[int, int]) -> int:
        return self._rng.randint(*bounds)

    def _id(self, number: int) -> str:
        return f"{self._name}-{number}"

    def _head(self, number: int, line: str, *fields: str) -> bytes:
        return "\r\n".join([f"{line} HTTP/1.1", f"Host: {self._host}", f"X-Request-Id: {self._id(number)}", *fields, "", ""]).encode()

    def _post(self, number: int, prompt: object, *fields: str, streams: bool = False, body_bytes: int = 0) -> bytes:
        asked = f'{{"model":"{MODEL}","stream":{str(streams).lower()},"messages":[{{"role":"user","content":"{prompt}'
        body = asked.ljust(body_bytes, "x").encode() + b'"}]}'
        fields = "Content-Type: application/json", f"Content-Length: {len(body)}", *fields
        return self._head(number, "POST /v1/chat/completions", *fields) + body


class Requests(Kinds):
    """Those that are not streamed."""

    WEIGHTS: ClassVar = {"kept": 68, "apart": 8, "closing": 3, "pipelined": 8, "large": 3, "looked_up": 2, "settled": 1, "refused": 2,
                         "elsewhere": 3, "dying": 1.7, "slow_reader": 0.15, "slow_leaver": 0.15}

    def kept(self, *fields: str, size: int = 0, body_bytes: int = 0) -> Turn:
        """An ordinary one, on a connection that is kept."""
        numbers, size = self._take(), size or self._between(TEXT_BYTES)
        return Turn(numbers, self._post(numbers[0], Wish(0, 0, size), *fields, body_bytes=body_bytes), [text(size)])

    def apart(self) -> Turn:
        """On a connection of its own."""
        turn = self.kept()
        turn.alone = True
        return turn

    def closing(self) -> Turn:
        """The sidecar is asked to close the connection behind its answer."""
        return self.kept("Connection: close")

    def large(self) -> Turn:
        return self.kept(body_bytes=LARGE_BYTES)

    def settled(self) -> Turn:
        """The answer is to wait until its joules are settled."""
        return self.kept("X-Energy-Include: settled")

    def pipelined(self) -> Turn:
        """Some at once."""
        turns = [self.kept() for _ in range(min(self._between((2, 4)), len(self._left)))]
        return Turn(range(turns[0].numbers.start, turns[-1].numbers.stop), b"".join(turn.send for turn in turns),
                    [judge for turn in turns for judge in turn.answers])

    def looked_up(self) -> Turn:
        """Its record is asked for right behind it."""
        turn = self.kept()
        request_id = self._id(turn.numbers[0])
        turn.send += f"GET /energy/{request_id} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode()
        turn.answers = [*turn.answers, status(200, Saw.WHOLE, f'"request_id":"{request_id}"'.encode())]
        return turn

    def refused(self) -> Turn:
        """Inference that the engine does not know."""
        numbers = self._take()
        return Turn(numbers, self._post(numbers[0], "nothing"), [status(404, Saw.REFUSED, b"Not Found")])

    def elsewhere(self) -> Turn:
        """Something else than inference."""
        line, code, says = self._rng.choice(ELSEWHERE)
        numbers = self._take()
        return Turn(numbers, self._head(numbers[0], line), [status(code, Saw.UNMETERED, says)], is_head=line.startswith("HEAD"))

    def dying(self) -> Turn:
        """The engine dies before it answers, or in the middle."""
        numbers, size, after = self._take(), self._between(TEXT_BYTES), self._between((0, 2))
        return Turn(numbers, self._post(numbers[0], f"{Wish(0, 0, size)}{death(after)}"), [status(502, Saw.CUT)], Saw.CUT, alone=True)

    def slow_reader(self) -> Turn:
        """A client that has stopped reading a huge answer for a while."""
        turn = self.kept(size=HUGE_TEXT_BYTES)
        turn.alone = turn.slow = turn.waits = True
        turn.pause_s = SLOW_S
        return turn

    def slow_leaver(self) -> Turn:
        """And one that has never read on."""
        turn = self.slow_reader()
        turn.waits, turn.resets, turn.otherwise = False, self._rng.random() < 0.5, Saw.LEFT
        return turn


class Streams(Kinds):
    """Those that are streamed: about a third of their clients leave before the end."""

    WEIGHTS: ClassVar = {"heard": 54, "settled": 1, "half_closed": 4, "unsent": 5, "unheard": 9, "midway": 15, "at_done": 4,
                         "dying": 7.9, "slow_reader": 0.1}

    def heard(self, *fields: str, frames: int = 0, gap_ms: int | None = None, body_bytes: int = 0, beside: str = "") -> Turn:
        """To the end."""
        numbers, frames = self._take(), frames or self._between(FRAMES)
        wish = Wish(frames, self._between(GAP_MS) if gap_ms is None else gap_ms)
        return Turn(numbers, self._post(numbers[0], f"{wish}{beside}", *fields, streams=True, body_bytes=body_bytes), [stream(frames)])

    def settled(self) -> Turn:
        return self.heard("X-Energy-Include: settled")

    def _left_early(self, *, frames: int = 0, body_bytes: int = 0) -> Turn:
        turn = self.heard(frames=frames, body_bytes=body_bytes)
        turn.alone, turn.resets, turn.otherwise = True, self._rng.random() < 0.5, Saw.LEFT
        return turn

    def half_closed(self) -> Turn:
        """The client says that it will send nothing more, and reads on."""
        turn = self._left_early()
        turn.half_closes, turn.resets = True, False
        return turn

    def unsent(self) -> Turn:
        """Left in the middle of the request."""
        turn = self._left_early(body_bytes=self._rng.choice((0, LARGE_BYTES)))
        turn.send = turn.send[:self._rng.randrange(1, len(turn.send))]
        turn.pause_s, turn.otherwise = self._rng.random() * 0.005, Saw.UNSENT
        return turn

    def unheard(self) -> Turn:
        """Left when some time has passed, however much has come."""
        turn = self._left_early()
        turn.pause_s = self._rng.choice((0.0, 0.02 * self._rng.random()))
        return turn

    def midway(self) -> Turn:
        """Left as soon as so many bytes have come, in the middle of a frame or not."""
        frames = self._between(FRAMES)
        turn = self._left_early(frames=frames)
        turn.leaves_after_bytes = self._rng.randint(1, frames * FRAME_BYTES)
        return turn

    def at_done(self) -> Turn:
        """Left behind the last event, perhaps before the end of the body."""
        turn = self._left_early()
        turn.leaves_when_done, turn.otherwise = True, Saw.WHOLE
        return turn

    def dying(self) -> Turn:
        """The engine dies before it answers, or after some frames."""
        frames = self._between(FRAMES)
        turn = self.heard(frames=frames, beside=death(self._rng.randrange(frames)))
        turn.answers, turn.otherwise, turn.alone = [status(502, Saw.CUT)], Saw.CUT, True
        return turn

    def slow_reader(self) -> Turn:
        """A client that has stopped reading a flood of frames for a while."""
        turn = self.heard(frames=HUGE_FRAMES, gap_ms=0)
        turn.alone = turn.slow = turn.waits = True
        turn.pause_s = SLOW_S
        return turn
