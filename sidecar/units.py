"""Integers inside, joules and seconds at the edge: the only place that knows the factors between them."""

UJ_PER_J = 1_000_000
UJ_PER_MJ = 1_000
NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
J_PER_KWH = 3_600_000


def joules(uj: int) -> float:
    """Microjoules as joules, for export only."""
    return uj / UJ_PER_J


def seconds(ns: int) -> float:
    """Nanoseconds as seconds, for export only."""
    return ns / NS_PER_S


def energy_uj(power_w: float, span_ns: int) -> int:
    """Microjoules drawn at a constant power over a span."""
    return round(power_w * span_ns / (NS_PER_S // UJ_PER_J))


def power_w(uj: int, span_ns: int) -> float:
    """Mean power of an amount of energy over a span; 0 for an empty span."""
    return uj * (NS_PER_S // UJ_PER_J) / span_ns if span_ns > 0 else 0.0
