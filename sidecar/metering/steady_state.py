"""Is a window steady, ramping, draining or idle: a batch that is full, or traffic whose balance point has stopped moving.

Full is ML.ENERGY's rule: the engine runs as many sequences as it can, and every place of the batch has had its first token.

Open traffic need never fill a batch, and a Poisson stream fluctuates for ever and is stationary all the same. So three amounts are
put on a balance (Laplace's test for a trend: Cox and Lewis, The Statistical Analysis of Series of Events, 1966): requests that
joined the batch, time that they ran, and output tokens, over a trail in which three times as many joined as run on average. Of n
independent requests the centre lies within span / √(12 n) of the trail's middle, standard error; what depends on how long they ran
is scaled by how restless the running count is (1 in a Poisson stream, 0.2 in a closed loop). Beyond `LIMIT` standard errors it is a
trend. So is it that nobody joins though nobody waits, for a time in which `SILENT` would have joined.
"""

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from math import inf

LIMIT = 2.75  # calls 1 to 2 % of the windows of Poisson streams a trend, and 5 % of the worst stream's: docs/steady-state.md
SILENT = 5.0  # e⁻⁵: 0.7 % of the windows of a Poisson stream
TURNOVERS = 3  # a batch that began empty has filled to 95 % when three times as many have joined it (exponential lengths)
SPARE = 1.2  # of that is kept, so that a batch which grows by chance has not turned over any less
FEWEST = 20  # requests; by fewer of a Poisson stream, not even one that began from nothing could be told from one that is steady
LONGEST = 6000  # windows, ten minutes: who takes longer to turn over is never steady
CHANCE = 4  # a change of the running count is noise up to about twice what independent requests do, squared: a flood is none
JUMP = 16  # so many variances, four standard deviations, is the running count away from its mean where it has jumped
CALMEST = 0.05  # restlessness below this is not told from none
FULL = 0.99  # of the largest batch: a client needs a moment to send its next request


class Phase(StrEnum):
    """What a window is part of."""

    STEADY = "steady"
    RAMP = "ramp"
    DRAIN = "drain"
    IDLE = "idle"


@dataclass(frozen=True, slots=True)
class Activity:
    """A window's traffic. A request runs from its arrival to its end; it waits until its first token and has then joined the
    batch (one whose tokens are not seen as they come joins when it arrives)."""

    t0_ns: int
    t1_ns: int
    running_ns: int  # time integral of requests running
    tokens: int  # output tokens, in any unit
    joined: int  # requests that had their first token in (t0, t1]
    decoding: int  # in the batch at t1
    waiting: int  # still without their first token at t1


@dataclass(slots=True)
class Balance:
    """An amount over time: `moment` is the sum of its parts, each times when it was."""

    total: int = 0
    moment: int = 0

    def put(self, t_ns: int, amount: int) -> None:
        """Add an amount; a negative one takes away."""
        self.total += amount
        self.moment += amount * t_ns


class Trail:
    """The latest windows without a pause: no more than turned the batch over. What it knows are sums, so a window costs the same
    however long the trail."""

    def __init__(self) -> None:
        self.time, self.joined, self.ran, self.tokens = Balance(), Balance(), Balance(), Balance()
        self.end_ns = 0
        self.mean = 0.0  # requests in the batch, on average
        self.turned_over = False  # whether it is long enough to tell
        self._windows: deque[tuple[Activity, int]] = deque()
        self._unrest = 0
        self._decoding = 0

    def add(self, activity: Activity) -> None:
        """Take the next window, forget what is older than needed."""
        windows, joined, unrest = self._windows, self.joined, 0
        if windows:  # of independent requests, as many as join and leave
            usual = 2 * self.joining_in(activity.t1_ns - activity.t0_ns)
            unrest = min((activity.decoding - self._decoding) ** 2, round(CHANCE * (1 + usual)))
        windows.append((activity, unrest))
        self._put(activity, unrest, 1)
        self._decoding, self.end_ns = activity.decoding, activity.t1_ns
        while True:
            self.mean = self.ran.total / self.time.total
            needed = max(FEWEST, TURNOVERS * self.mean)
            if len(windows) <= LONGEST and joined.total - windows[0][0].joined < SPARE * needed:
                break
            self._put(*windows.popleft(), -1)
        self.turned_over = joined.total >= needed

    @property
    def has_trend(self) -> bool:
        """Whether anything has moved by more than chance allows. Asked only of a trail that has turned over."""
        # How restless the running count is: its variance over that of independent requests, by how it changes from window to window.
        restless = max(self._unrest / (2 * self.joined.total), CALMEST)
        return (self._offset(self.joined) > 1 or self._offset(self.ran) > restless or self._offset(self.tokens) > restless
                or (self._decoding - self.mean) ** 2 > JUMP * restless * self.mean)

    def joining_in(self, span_ns: int) -> float:
        """How many would have joined in such a time."""
        return self.joined.total * span_ns / self.time.total

    def _put(self, activity: Activity, unrest: int, sign: int) -> None:
        t0_ns, t1_ns = activity.t0_ns, activity.t1_ns
        t_ns, span_ns, joined, tokens = (t0_ns + t1_ns) // 2, sign * (t1_ns - t0_ns), sign * activity.joined, sign * activity.tokens
        self.time.put(t_ns, span_ns)
        if joined:
            self.joined.put(t_ns, joined)
        self.ran.put(t_ns, activity.decoding * span_ns)
        self.tokens.put(t_ns, tokens)
        self._unrest += sign * unrest

    def _offset(self, amount: Balance) -> float:
        """How far its centre is from the middle, in units of `LIMIT` standard errors of independent requests, squared."""
        if not amount.total:
            return inf
        time = self.time
        offset = (amount.moment / amount.total - time.moment / time.total) / time.total
        return offset * offset * 12 * self.joined.total / LIMIT**2


class Plateau:
    """The largest batch as it shows itself: while somebody always waits, others come in only as some leave."""

    def __init__(self) -> None:
        self.seen = 0  # 0: not yet
        self._top = self._at_top = self._looks = self._joined = 0

    def look(self, decoding: int, waiting: int, joined: int) -> None:
        """One look at the engine, and how many had come in since the last."""
        if decoding > self.seen:
            self.seen = 0
        if not waiting:
            self._top = self._at_top = self._looks = self._joined = 0
            return
        if decoding > self._top:
            self._top, self._at_top, self._looks, self._joined = decoding, 1, 1, 0
            return
        self._looks += 1
        self._joined += joined
        self._at_top += decoding == self._top
        if self._joined >= max(FEWEST, self._top) and 2 * self._at_top >= self._looks:
            self.seen = self._top


class SteadyStateDetector:
    """Feed it every window of one device in order; it answers each one's phase from what it has seen up to then.

    `max_num_seqs` is the engine's largest batch, which may become known later; 0: unknown, then it is what a queue shows."""

    def __init__(self, max_num_seqs: int = 0) -> None:
        self.max_num_seqs = max_num_seqs
        self._plateau = Plateau()
        self._trail = Trail()
        self._missing: int | None = None  # places of the full batch without a first token; None while it is not full
        self._silent_ns = 0

    def feed(self, activity: Activity) -> Phase:
        """The phase of this window."""
        if activity.t0_ns > self._trail.end_ns or not activity.running_ns:
            self._trail, self._missing, self._silent_ns = Trail(), None, 0  # what happened in between is not known, or was nothing
        if not activity.running_ns:
            return Phase.IDLE
        trail = self._trail
        trail.add(activity)
        self._plateau.look(activity.decoding, activity.waiting, activity.joined)
        quiet = not activity.joined and not activity.waiting
        self._silent_ns = self._silent_ns + activity.t1_ns - activity.t0_ns if quiet else 0
        if self._is_full(activity):
            return Phase.STEADY
        is_silent = trail.joining_in(self._silent_ns) > SILENT
        if trail.turned_over and not is_silent and not trail.has_trend:
            return Phase.STEADY
        return Phase.DRAIN if is_silent or activity.decoding + activity.waiting < trail.mean else Phase.RAMP

    def _is_full(self, activity: Activity) -> bool:
        """Whether the batch is at its largest, and all who were to fill it have their first token."""
        largest = self.max_num_seqs or self._plateau.seen
        if not largest or activity.running_ns < FULL * largest * (activity.t1_ns - activity.t0_ns):
            self._missing = None
            return False
        self._missing = largest - activity.decoding if self._missing is None else self._missing - activity.joined
        return self._missing <= 0
