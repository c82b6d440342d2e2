"""The measured truth of a recording in which every coalition was run: what each of the grand coalition fairly owes, and how surely.

A coalition is worth the joules it drew above the loaded idle, from quiet to quiet; the Shapley value of that game is the fair share.
Where each request is a player (or identical requests make it symmetric) it is a request's; where whole classes were the players it is
a class's, which is another game, since what is shared is then shared per class.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from math import pi, sqrt
from statistics import fmean, variance

from perjoule.bench.recording import Mark, Recording
from perjoule.bench.shapley import Counts, influence, normalized_l1, shapley
from perjoule.sidecar.units import NS_PER_S

BEFORE_NS = NS_PER_S // 4  # quiet time before a coalition that its energy is taken from, so that no window straddles its start
QUIET_NS = NS_PER_S // 10  # after the last answer, until the counter shows nothing but idle
NEIGHBOURS = 5  # quiet gaps on either side of a coalition that its idle power is taken from: it drifts with temperature


class Game:
    """The game of one recording. Raises ValueError for one that lacks a coalition."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.names = sorted({name for mark in recording.marks for name in mark.classes})
        self.full: Counts = tuple(max(mark.classes.count(name) for mark in recording.marks) for name in self.names)
        self.by_request = all(sent == Counter(mark.classes) for run, (sent, mark) in
                              enumerate(zip(recording.sent, recording.marks, strict=True)) if run not in recording.failed)
        self.idle_uj_per_ns = self._idle()
        self.worths: dict[Counts, list[float]] = defaultdict(list)
        for run, mark in enumerate(recording.marks):
            if run not in recording.failed:
                self.worths[self._counts(mark)].append(self.drawn_uj(run))
        self.values = {counts: fmean(worths) for counts, worths in self.worths.items()}
        self._fair_uj: dict[Counts, dict[str, float]] = {}
        try:
            self.fair_uj = self._fair(self.full)
        except KeyError as missing:
            lacking = dict(zip(self.names, missing.args[0], strict=True))
            raise ValueError(f"{recording.name}: got no whole run of the coalition {lacking}, expected one of each up to "
                             f"{dict(zip(self.names, self.full, strict=True))}") from None

    @property
    def players(self) -> str:
        """Who they are."""
        return "requests" if self.by_request else "classes"

    @property
    def shared_runs(self) -> list[int]:
        """The runs of all coalitions of two or more, each a game of its own, by their mark; none where classes are the players."""
        return [i for i, mark in enumerate(self.recording.marks) if len(mark.classes) > 1 and i not in self.recording.failed
                and self.by_request]

    @property
    def grand_runs(self) -> list[int]:
        """The runs of the coalition of all, by their mark."""
        return [i for i, mark in enumerate(self.recording.marks) if self._counts(mark) == self.full and i not in self.recording.failed]

    def members(self, run: int) -> list[int]:
        """The requests of a run, by their place."""
        return [i for i, request in enumerate(self.recording.requests) if request["coal"] == run]

    def span(self, run: int) -> tuple[int, int]:
        """From quiet to quiet."""
        mark = self.recording.marks[run]
        return mark.t0_ns - BEFORE_NS, mark.quiet_ns

    def drawn_uj(self, run: int) -> float:
        """What a run drew above the loaded idle."""
        t0_ns, t1_ns = self.span(run)
        return self.recording.drawn_uj(t0_ns, t1_ns) - self.idle_uj_per_ns[run] * (t1_ns - t0_ns)

    def truth_uj(self, run: int) -> dict[int, float]:
        """What each request of a run fairly owes of what that run drew, in the game of those who took part in it; only where
        requests are the players."""
        counts = self._counts(self.recording.marks[run])
        scale = self.drawn_uj(run) / self.values[counts]
        fair_uj = self._fair(counts)
        return {i: scale * fair_uj[self.recording.requests[i]["cls"]] for i in self.members(run)}

    def distance(self, run: int, charged: Mapping[int, float]) -> float:
        """Normalized L1 of a run between what its requests were charged and the truth; among classes only of a grand run."""
        if self.by_request:
            truth = self.truth_uj(run)
            return normalized_l1([charged[i] for i in truth], list(truth.values()))
        sums = dict.fromkeys(self.names, 0.0)
        for i in self.members(run):
            sums[self.recording.requests[i]["cls"]] += charged[i]
        return normalized_l1(list(sums.values()), list(self.fair_uj.values()))

    def noise_floor(self, relative_sd: float) -> float:
        """The distance that a perfect rule would be found at, if runs of one coalition differ so: errors of all measured worths,
        independent and normal, carried through the Shapley sum (which is linear in them) to the shares."""
        whole, floor = self.values[self.full], 0.0
        for name, count, weights in zip(self.names, self.full, influence(self.full), strict=True):
            share = self.fair_uj[name] / whole
            errors = ((weight - share * (counts == self.full)) * relative_sd * self.values[counts] / sqrt(len(self.worths[counts]))
                      for counts, weight in weights.items())
            floor += count * sqrt(2 / pi * sum(error ** 2 for error in errors)) / whole
        return floor

    def _fair(self, counts: Counts) -> dict[str, float]:
        """What one of each kind owes in the game of so many of each. Raises KeyError for a coalition that was not run."""
        if counts not in self._fair_uj:
            self._fair_uj[counts] = dict(zip(self.names, shapley(self.values, counts), strict=True))
        return self._fair_uj[counts]

    def _counts(self, mark: Mark) -> Counts:
        return tuple(mark.classes.count(name) for name in self.names)

    def _idle(self) -> list[float]:
        """The loaded idle around each run, in microjoules a nanosecond."""
        quiet = []
        for mark in self.recording.marks:
            if mark.quiet_ns <= mark.t1_ns + QUIET_NS:
                raise ValueError(f"{self.recording.name}: got {mark}, expected more than {QUIET_NS} ns of quiet after it")
            t0_ns, t1_ns = mark.t1_ns + QUIET_NS, mark.quiet_ns
            quiet.append(self.recording.drawn_uj(t0_ns, t1_ns) / (t1_ns - t0_ns))
        return [fmean(quiet[max(0, i - NEIGHBOURS):i + NEIGHBOURS + 1]) for i in range(len(quiet))]


def repeat_sd(games: Iterable[Game]) -> float | None:
    """By how much of its mean a coalition's worth varies from run to run, one standard deviation, pooled; None without repeats."""
    squares, degrees = 0.0, 0
    for game in games:
        for worths in game.worths.values():
            if len(worths) > 1:
                squares += (len(worths) - 1) * variance(worths) / fmean(worths) ** 2
                degrees += len(worths) - 1
    return sqrt(squares / degrees) if degrees else None
