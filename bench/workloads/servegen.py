"""ServeGen's clients: how often each of a service's clients asked in every ten minutes, how irregularly, and how long; sampled here."""

import csv
import hashlib
import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from random import Random

import orjson

from perjoule.bench.workloads.files import ALWAYS, Window
from perjoule.bench.workloads.workload import Turn, Workload, WorkloadError

MOST = 2_000_000  # requests; more is no replay, but a mistake
PROCESSES = ("Gamma", "Weibull")
COLUMNS = "window_start_s,rate,cv,Gamma|Weibull|,shape,scale"
LENGTHS = ("input_tokens", "output_tokens")


@dataclass(frozen=True, slots=True)
class Spell:
    """A client's window: `rate` requests a second from begin to end, as a renewal process of this family and shape."""

    begin_s: float
    end_s: float
    rate: float
    process: str
    shape: float

    def arrivals(self, random: Random) -> Iterator[float]:
        """Times in it. The mean gap is 1/rate. The first is what is left of a gap that was under way, and long gaps are more often the
        one that is: so the number of arrivals is right on average."""
        k = self.shape
        gamma = self.process == "Gamma"
        scale = 1 / (self.rate * (k if gamma else math.gamma(1 + 1 / k)))
        under_way = random.gammavariate(k + 1, scale) if gamma else scale * random.gammavariate(1 + 1 / k, 1) ** (1 / k)
        at_s = self.begin_s + random.random() * under_way
        while at_s < self.end_s:
            yield at_s
            at_s += random.gammavariate(k, scale) if gamma else random.weibullvariate(scale, k)


class Lengths:
    """How long a client's prompts and answers are, from a time on: {tokens: probability} as text, read when it is needed."""

    def __init__(self, path: Path, content: bytes) -> None:
        self._path = path
        try:
            windows = orjson.loads(content)
            if windows and not all(field in window for window in windows.values() for field in LENGTHS):
                fields = ", ".join(next(iter(windows.values())))
                raise WorkloadError(f"{path}: got {fields}, expected {' and '.join(LENGTHS)}: multimodal clients are not read")
            self._texts = sorted((int(begin), [window[field] for field in LENGTHS]) for begin, window in windows.items()
                                 if all(len(window[field]) > len("{}") for field in LENGTHS))
        except (orjson.JSONDecodeError, ValueError, TypeError, AttributeError):
            raise WorkloadError(f"{path}: expected an object of {{window_start_s: {{input_tokens, output_tokens}}}}") from None
        self._begins = [begin for begin, _ in self._texts]
        self._read: dict[int, tuple[tuple[Sequence[int], Sequence[float]], ...]] = {}

    def __bool__(self) -> bool:
        return bool(self._texts)

    def draw(self, at_s: float, random: Random) -> tuple[int, int]:
        """Input and output tokens at a time, of its window, or of the first where none is as early; drawn one by one."""
        place = max(bisect_right(self._begins, at_s) - 1, 0)
        if place not in self._read:
            self._read[place] = tuple(self._table(text) for text in self._texts[place][1])
        (inputs, given), (outputs, wanted) = self._read[place]
        return (max(random.choices(inputs, cum_weights=given)[0], 1), max(random.choices(outputs, cum_weights=wanted)[0], 1))

    def _table(self, text: str) -> tuple[Sequence[int], Sequence[float]]:
        try:
            pairs = [entry.split(":") for entry in text.strip("{} ").split(",")]
            return [int(tokens) for tokens, _ in pairs], list(accumulate(float(share) for _, share in pairs))
        except ValueError:
            raise WorkloadError(f"{self._path}: got {text[:60]!r}, expected {{tokens: probability, …}}") from None


def servegen(folder: str, seed: int, window: Window = ALWAYS) -> Workload:
    """A workload like that of the clients in a folder of chunk-N-trace.csv and chunk-N-dataset.json, in this window of their trace.

    A model of it, not a replay: arrivals are renewal processes of the files' family, shape and rate in each window, lengths are drawn
    from their distributions, input and output apart from each other. Raises WorkloadError: no such files, a file that cannot be
    read, or more than two million requests (a week of a large service has far more: give a window)."""
    paths = sorted(Path(folder).glob("chunk-*-trace.csv"), key=lambda path: (len(path.name), path.name))
    if not paths:
        raise WorkloadError(f"{folder}: got no chunk-N-trace.csv, expected a folder of ServeGen's data, as language/m-small")
    digest, clients, without = hashlib.sha256(), [], 0
    for path in paths:
        data = path.with_name(path.name.replace("-trace.csv", "-dataset.json"))
        contents = [one.read_bytes() if one.exists() else b"" for one in (path, data)]
        for content in contents:
            digest.update(content)
        spells = [spell for spell in _spells(path, contents[0], window) if spell.rate > 0]
        lengths = Lengths(data, contents[1] or b"{}")
        without += bool(spells) and not lengths
        if spells and lengths:
            clients.append((path.name.split("-")[1], spells, lengths))
    expected = sum(spell.rate * (spell.end_s - spell.begin_s) for _, spells, _ in clients for spell in spells)
    if not 0 < expected <= MOST:
        raise WorkloadError(f"{folder}: got {expected:,.0f} requests to be expected of {len(clients)} clients, expected 1 to {MOST:,}: "
                            "give a window of its trace, in seconds")
    turns = []
    for client, spells, lengths in clients:
        random = Random(f"{seed} client {client}")
        turns += [Turn(at_s, *lengths.draw(at_s, random)) for spell in spells for at_s in spell.arrivals(random)]
    turns.sort(key=lambda turn: turn.at_s or 0.0)
    sampled = (f"Sampled from ServeGen's statistics of {len(clients)} clients (seed {seed}): a workload like theirs, not theirs. Input "
               "and output lengths are drawn apart from each other.")
    notes = [sampled, f"{without} clients have no lengths in their files and are left out."] if without else [sampled]
    folder_name = Path(folder).resolve().name
    return Workload(f"servegen/{folder_name}", f"servegen:{folder_name}", tuple(turns), len(turns), {}, tuple(notes), digest.hexdigest())


def _spells(path: Path, content: bytes, window: Window) -> list[Spell]:
    """The windows of a client's trace in which it asked, cut to the window that is wanted."""
    rows = []
    for number, row in enumerate(csv.reader(content.decode().splitlines()), 1):
        try:
            begin, rate, _, process, shape, _ = row
            rows.append((float(begin), float(rate), process, float(shape)))
            if process and not (process in PROCESSES and float(shape) > 0):
                raise ValueError
        except ValueError:
            raise WorkloadError(f"{path}, line {number}: got {','.join(row)!r}, expected {COLUMNS}") from None
    width = rows[1][0] - rows[0][0] if len(rows) > 1 else 600.0
    ends = [row[0] for row in rows[1:]] + [rows[-1][0] + width] if rows else []
    cut = [Spell(max(begin, window[0]), min(end, window[1]), rate, process, shape)
           for (begin, rate, process, shape), end in zip(rows, ends, strict=True) if process]
    return [spell for spell in cut if spell.begin_s < spell.end_s]
