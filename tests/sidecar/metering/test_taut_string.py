"""The straightest path through gates: it passes every gate, and no path through them is shorter."""

from math import hypot

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.metering.taut_string import Gate, taut_string


@st.composite
def rows(draw):
    """A row of gates that rises, between two points."""
    count = draw(st.integers(1, 12))
    times = sorted(draw(st.sets(st.integers(1, 1000), min_size=count, max_size=count)))
    low, gates = 0.0, [Gate(0, 0.0, 0.0)]
    for t in times[:-1]:
        low += draw(st.integers(0, 50))
        gates.append(Gate(t, low, low + draw(st.integers(0, 100))))
    end = low + draw(st.integers(0, 100))
    return [*gates, Gate(times[-1], end, end)]


def length(gates, heights):
    return sum(hypot(b.t - a.t, y - x) for a, b, x, y in zip(gates, gates[1:], heights, heights[1:], strict=False))


def test_without_gates_it_is_straight():
    """Nothing between two points bends the path."""
    assert taut_string([Gate(0, 0, 0), Gate(5, -99, 99), Gate(10, 10, 10)]) == pytest.approx([0, 5, 10])


def test_it_bends_where_a_gate_makes_it():
    """It touches the edge of the gate that is in the way, and is straight before and after."""
    gates = [Gate(0, 0, 0), Gate(2, 0, 1), Gate(4, 6, 9), Gate(10, 10, 10)]
    assert taut_string(gates) == pytest.approx([0, 1, 6, 10])


@given(rows())
def test_it_passes_every_gate(gates):
    """Within each gate, to rounding."""
    for gate, height in zip(gates, taut_string(gates), strict=True):
        assert gate.low - 1e-6 <= height <= gate.high + 1e-6


@given(rows(), st.lists(st.floats(0, 1), min_size=12, max_size=12))
def test_no_other_path_is_shorter(gates, places):
    """Any other choice of heights within the gates makes a path at least as long."""
    other = [gate.low + (gate.high - gate.low) * place for gate, place in zip(gates, [*places, 0.5], strict=False)]
    assert length(gates, taut_string(gates)) <= length(gates, other) + 1e-6
