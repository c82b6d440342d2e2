"""The straightest path through a row of gates: what is known of a quantity that is bounded now and then, and even otherwise.

The shortest path between two points that passes every gate is linear but where a gate makes it bend (Dykstra's taut string;
Davies & Kovac 2001, "Local extremes, runs, strings and multiresolution", Annals of Statistics 29). It also has the smallest
largest slope of all such paths.
"""

from dataclasses import dataclass

INFINITY = float("inf")


@dataclass(slots=True)
class Gate:
    """At time `t` the path lies within [low, high]."""

    t: int
    low: float
    high: float


def taut_string(gates: list[Gate], along: list[float] | None = None) -> list[float]:
    """The path's height at each gate. The first and the last gate are points (low == high); times rise strictly, and so does that `along`
    which the path is to be straight, if it is not time."""
    places = [float(gate.t - gates[0].t) for gate in gates] if along is None else along
    heights = [gates[0].low]
    at, last = 0, len(gates) - 1
    while at < last:
        t0, y0 = places[at], heights[at]
        steepest, flattest = INFINITY, -INFINITY  # slopes that pass every gate looked at so far
        upper = lower = at
        slope, turn = 0.0, last
        for i in range(at + 1, last + 1):
            gate, span = gates[i], places[i] - t0
            low, high = (gate.low - y0) / span, (gate.high - y0) / span
            if low > steepest:  # the path must bend upward at the gate that kept it down
                slope, turn = steepest, upper
                break
            if high < flattest:
                slope, turn = flattest, lower
                break
            if high <= steepest:
                steepest, upper = high, i
            if low >= flattest:
                flattest, lower = low, i
        else:
            slope = steepest  # the last gate is a point: steepest == flattest there
        heights += [y0 + slope * (places[i] - t0) for i in range(at + 1, turn + 1)]
        at = turn
    return heights
