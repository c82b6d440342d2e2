"""What the steps of a real engine on a real GPU took and drew, as a small table with interpolation between its points.

How it was made: the recordings `mix`, `sat32`, `single`, `sym2` and `shap1` (vLLM 0.25.1, 8 billion parameters, H200) were cut into
blocks of three counter windows that were busy throughout (699 of them). From the arrival of the tokens each block has its steps,
their sequences and context, and its prompt tokens, placed between arrival and first token. The points of the table are what fits the
blocks' length and joules above the loaded idle best if every step is interpolated (non-negative least squares, drawn a little towards
a linear model). On these same blocks the mean error is 2.0 % in time and 5.0 % in joules; no others were held back, since the table
is a world to play in and predicts nothing. Between 0 and 2,048 prompt tokens it is a straight line, as blocks of 0.3 s do not show
more, so what a prompt might hide under a step is not in it; seldom visited (73 steps) is 32 sequences at a context of 4,096.
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from perjoule.bench.physics import Cost, Part, Physics
from perjoule.sidecar.units import UJ_PER_MJ, energy_uj

NS_PER_US = 1000


class Measured(NamedTuple):
    """One point of a table: a step takes so long, and so much above the idle draw."""

    us: int
    mj: int


class Recorded(Physics):
    """A table of measured steps by (prompt tokens, sequences, mean context), each axis rising; between its points steps are
    interpolated, beyond the last of an axis continued along its last slope."""

    def __init__(self, prefill: Sequence[int], sequences: Sequence[int], context: Sequence[int],
                 table: Sequence[Sequence[Sequence[Measured]]], idle_w: float) -> None:
        axes = prefill, sequences, context
        if any(len(axis) < 2 or list(axis) != sorted(set(axis)) for axis in axes):
            raise ValueError(f"got axes {axes}, expected at least two rising numbers on each")
        shape = [len(table), *{len(plane) for plane in table}, *{len(row) for plane in table for row in plane}]
        if shape != [len(axis) for axis in axes]:
            raise ValueError(f"got a table of {shape}, expected {[len(axis) for axis in axes]}")
        self._axes, self._table, self.idle_w = axes, table, idle_w

    def step(self, parts: Sequence[Part]) -> Cost:
        """What a prompt adds to a step without it is its own."""
        prefill = sum(part.prefill for part in parts)
        mean_context = sum(context for _, context in parts) / len(parts)
        ns, active_uj = self._at(prefill, len(parts), mean_context)
        own_uj = [0] * len(parts)
        if prefill:
            added_uj = max(0.0, active_uj - self._at(0, len(parts), mean_context)[1])
            own_uj = [int(added_uj * part.prefill / prefill) for part in parts]
        return Cost(round(ns), round(active_uj) + energy_uj(self.idle_w, round(ns)) - sum(own_uj), own_uj)

    def _at(self, *point: float) -> tuple[float, float]:
        """Nanoseconds and microjoules."""
        (i, a), (j, b), (k, c) = (_between(axis, x) for axis, x in zip(self._axes, point, strict=True))
        corners = [((a if di else 1 - a) * (b if dj else 1 - b) * (c if dk else 1 - c), self._table[i + di][j + dj][k + dk])
                   for di in (0, 1) for dj in (0, 1) for dk in (0, 1)]
        return (sum(share * corner.us for share, corner in corners) * NS_PER_US,
                sum(share * corner.mj for share, corner in corners) * UJ_PER_MJ)


def _between(axis: Sequence[int], x: float) -> tuple[int, float]:
    """The place of the interval that holds `x`, and how far along it `x` is; more than 1 beyond the end, never less than 0."""
    i = min(max(bisect_right(axis, x) - 1, 0), len(axis) - 2)
    return i, max(0.0, (x - axis[i]) / (axis[i + 1] - axis[i]))


DECODE = (  # by sequences and mean context
    (Measured(4763, 1513), Measured(4830, 1698), Measured(5058, 1587)),
    (Measured(4813, 1519), Measured(5117, 1596), Measured(6072, 2029)),
    (Measured(5566, 2394), Measured(6533, 3046), Measured(7579, 4313)),
)
PREFILL = (Measured(48026, 29757), Measured(47862, 30065), Measured(49152, 29471))  # what 2,048 prompt tokens add, by sequences
BOTH = tuple(tuple(Measured(point.us + added.us, point.mj + added.mj) for point in row) for row, added in zip(DECODE, PREFILL, strict=True))
RECORDED = Recorded(prefill=(0, 2048), sequences=(1, 8, 32), context=(256, 1024, 4096), table=(DECODE, BOTH), idle_w=128.0)
