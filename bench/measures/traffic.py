"""How many requests ran, waited and joined, and how many tokens came, up to any moment of a run, as the client saw it."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise

from perjoule.bench.measures.served import Served
from perjoule.sidecar.metering.steady_state import Activity
from perjoule.sidecar.units import UJ_PER_J


class Moments:
    """Sorted moments, each with an amount; what had come by a moment, and its sum over time since, in amounts times nanoseconds."""

    def __init__(self, rows: Sequence[tuple[int, float]]) -> None:
        ordered = sorted(rows)
        self.times = [t_ns for t_ns, _ in ordered]
        self._sums = list(accumulate((amount for _, amount in ordered), initial=0))
        self._moments = list(accumulate((t_ns * amount for t_ns, amount in ordered), initial=0))

    def by(self, t_ns: int) -> float:
        """The amount at or before a moment."""
        return self._sums[bisect_right(self.times, t_ns)]

    def integral(self, t_ns: int) -> float:
        """The time integral of `by` up to a moment."""
        place = bisect_right(self.times, t_ns)
        return t_ns * self._sums[place] - self._moments[place]


class Traffic:
    """The requests of a run. A request runs from its send to its end, and has joined the batch with its first token, or with its send where
    its tokens are not seen as they come (as in `sidecar/metering/steady_state.py`)."""

    def __init__(self, requests: Sequence[Served]) -> None:
        self._requests = requests
        joins = [_joined_ns(request) for request in requests]
        self._sent = Moments([(request.sample.sent_ns, 1) for request in requests])
        self._over = Moments([(request.over_ns, 1) for request in requests])
        self._joined = Moments([(join, 1) for join in joins if join is not None])
        self._left = Moments([(request.over_ns, 1) for request, join in zip(requests, joins, strict=True) if join is not None])
        self._given_up = Moments([(request.over_ns, 1) for request, join in zip(requests, joins, strict=True) if join is None])
        self._prompts = Moments([(join, request.sample.input_tokens or 0) for request, join in zip(requests, joins, strict=True)
                                 if join is not None])
        self._completed = Moments([(request.over_ns, 1) for request in requests if request.completed])

    @property
    def span_ns(self) -> tuple[int, int]:
        """From the first send to the last end. Raises IndexError without requests."""
        return self._sent.times[0], self._over.times[-1]

    @property
    def joins(self) -> list[int]:
        """When each joined, in order."""
        return self._joined.times

    @property
    def ends(self) -> list[int]:
        """When each was over, in order."""
        return self._over.times

    def running_ns(self, t0_ns: int, t1_ns: int) -> float:
        """Requests in flight times nanoseconds, between two moments."""
        sent, over = self._sent, self._over
        return sent.integral(t1_ns) - sent.integral(t0_ns) - over.integral(t1_ns) + over.integral(t0_ns)

    def prompt_tokens(self, t0_ns: int, t1_ns: int) -> float:
        """Input tokens of requests that joined in (t0, t1]."""
        return self._prompts.by(t1_ns) - self._prompts.by(t0_ns)

    def completed(self, t0_ns: int, t1_ns: int) -> int:
        """Requests that completed in (t0, t1]."""
        return round(self._completed.by(t1_ns) - self._completed.by(t0_ns))

    def tokens(self, edges: Sequence[int]) -> list[float]:
        """Output tokens that arrived between each two neighbours of the rising `edges`, in (a, b]. A chunk counts its part of the request's
        tokens; without chunks, all come at its end."""
        bins = [0.0] * (len(edges) + 1)
        for request in self._requests:
            if not request.tokens:
                continue
            chunks: Sequence[int] = request.sample.chunk_ns or (request.over_ns,)
            each, before = request.tokens / len(chunks), 0
            for place in range(bisect_left(edges, chunks[0]), len(edges)):
                until = bisect_right(chunks, edges[place], before)
                bins[place] += (until - before) * each
                before = until
                if until == len(chunks):
                    break
            else:
                bins[-1] += (len(chunks) - before) * each
        return bins[1:-1]

    def activities(self, edges: Sequence[int], tokens: Sequence[float]) -> list[Activity]:
        """What a proxy would have seen between each two neighbours of the edges."""
        found = []
        for (t0_ns, t1_ns), count in zip(pairwise(edges), tokens, strict=True):
            joined = self._joined.by(t1_ns)
            decoding = joined - self._left.by(t1_ns)
            waiting = self._sent.by(t1_ns) - joined - self._given_up.by(t1_ns)
            found.append(Activity(t0_ns, t1_ns, round(self.running_ns(t0_ns, t1_ns)), round(count * UJ_PER_J),
                                  round(joined - self._joined.by(t0_ns)), round(decoding), round(waiting)))
        return found


def _joined_ns(request: Served) -> int | None:
    if request.sample.first_token_ns is not None:
        return request.sample.first_token_ns
    return request.sample.sent_ns if request.completed else None
