"""Integers inside, joules and seconds at the edge: the only place that knows the factors between them."""

UJ_PER_J = 1_000_000
UJ_PER_MJ = 1_000
NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
J_PER_KWH = 3_600_000
MOST_SHIFTED = 2.0**51
SHIFT = 1.5 * 2.0**52  # from 2^52 on all floats are whole, so a sum with this is rounded as sums are: halves to the even one


def joules(uj: int) -> float:
    """Microjoules as joules, for export only."""
    return uj / UJ_PER_J


def seconds(ns: int) -> float:
    """Nanoseconds as seconds, for export only."""
    return ns / NS_PER_S


def nearest(x: float) -> int:
    """The nearest whole number: the same as `round`, which mypyc leaves to the interpreter at twenty times the cost."""
    return int(x + SHIFT - SHIFT) if -MOST_SHIFTED < x < MOST_SHIFTED else round(x)


def energy_uj(power_w: float, span_ns: int) -> int:
    """Microjoules drawn at a constant power over a span."""
    return nearest(power_w * span_ns / (NS_PER_S // UJ_PER_J))


def power_w(uj: int, span_ns: int) -> float:
    """Mean power of an amount of energy over a span; 0 for an empty span."""
    return uj * (NS_PER_S // UJ_PER_J) / span_ns if span_ns > 0 else 0.0
