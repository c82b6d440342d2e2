"""Three rules that others use, computed on the same recordings for comparison; the sidecar has none of them.

They are given what the sidecar is not: the loaded idle as the bench knows it in hindsight.
"""

from collections.abc import Callable

from perjoule.bench.truth import Game

Shares = dict[int, float]  # microjoules above idle by the request's place


def whole_request(game: Game, run: int) -> Shares:
    """All of the run's joules by tokens, prompt and output alike, whenever they were computed."""
    requests = game.recording.requests
    return {i: float(requests[i]["in"] + sum(requests[i]["n"])) for i in game.members(run)}


def output_tokens(game: Game, run: int) -> Shares:
    """Each window by the output tokens that came in it; a window without any is nobody's."""
    def tokens(i: int, t0_ns: int, t1_ns: int) -> float:
        request = game.recording.requests[i]
        return float(sum(n for t_ns, n in zip(request["t"], request["n"], strict=True) if t0_ns < t_ns <= t1_ns))

    return _by_window(game, run, tokens)


def time_share(game: Game, run: int) -> Shares:
    """Each window in equal parts for equal time in flight."""
    def inside_ns(i: int, t0_ns: int, t1_ns: int) -> float:
        request = game.recording.requests[i]
        return float(max(0, min(request["end"], t1_ns) - max(request["t0"], t0_ns)))

    return _by_window(game, run, inside_ns)


BASELINES: dict[str, Callable[[Game, int], Shares]] = {
    "tokens, whole request": whole_request, "output, per window": output_tokens, "time, per window": time_share,
}


def _by_window(game: Game, run: int, weight: Callable[[int, int, int], float]) -> Shares:
    shares = dict.fromkeys(game.members(run), 0.0)
    for t0_ns, t1_ns in game.recording.windows(*game.span(run)):
        active_uj = game.recording.drawn_uj(t0_ns, t1_ns) - game.idle_uj_per_ns[run] * (t1_ns - t0_ns)
        weights = {i: weight(i, t0_ns, t1_ns) for i in shares}
        whole = sum(weights.values())
        for i, each in weights.items() if whole else ():
            shares[i] += active_uj * each / whole
    return shares
