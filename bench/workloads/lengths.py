"""Synthetic lengths: all the same, or ML.ENERGY's length control, Pareto for prompts and exponential for answers."""

import math
from collections.abc import Callable
from random import Random

from perjoule.bench.workloads.workload import Turn, Workload, WorkloadError

MOST_TOKENS = 32768  # of a drawn length, as in ML.ENERGY; longer ones are drawn again
TURNS = 1000  # where their number is not given


def fixed(input_tokens: int, output_tokens: int, turns: int = TURNS) -> Workload:
    """Every prompt and every answer of the same length, with no times: for closed loops, or arrivals that the load makes."""
    name = f"fixed:{input_tokens},{output_tokens}"
    return Workload(name, f"{name},{turns}", (Turn(None, input_tokens, output_tokens),) * turns, turns, {}, ("Lengths are synthetic.",))


def pareto(input_mean: float, alpha: float, output_mean: float, turns: int = TURNS, *, seed: int) -> Workload:
    """Prompts drawn from a Pareto distribution of this shape, whose scale is mean × (α − 1)/α, answers from an exponential one; rounded,
    at least 1 token. ML.ENERGY's own are 500, 2.5 and 300.

    Raises WorkloadError: alpha is not above 1 (no mean), or a mean is beyond what is drawn at most."""
    if not alpha > 1:
        raise WorkloadError(f"pareto: got alpha {alpha:g}, expected more than 1: else the distribution has no mean")
    if not max(input_mean, output_mean) <= MOST_TOKENS:
        raise WorkloadError(f"pareto: got means of {input_mean:g} and {output_mean:g} tokens, expected at most {MOST_TOKENS}")
    random = Random(f"{seed} pareto")
    scale = input_mean * (alpha - 1) / alpha
    made = tuple(Turn(None, _tokens(lambda: scale * random.paretovariate(alpha)), _tokens(lambda: random.expovariate(1 / output_mean)))
                 for _ in range(turns))
    name = f"pareto:{input_mean:g},{alpha:g},{output_mean:g}"
    note = f"Lengths are synthetic: Pareto (mean {input_mean:g}, α {alpha:g}) in, exponential (mean {output_mean:g}) out, seed {seed}."
    return Workload(name, f"{name},{turns}", made, turns, {}, (note,))


def log_normal(mean: float, deviation: float, random: Random) -> int:
    """A length of at least 1 token, from the log-normal distribution with this mean and standard deviation."""
    spread = math.log1p((deviation / mean) ** 2)
    return max(round(random.lognormvariate(math.log(mean) - spread / 2, math.sqrt(spread))), 1)


def _tokens(draw: Callable[[], float]) -> int:
    while (drawn := draw()) > MOST_TOKENS:
        pass
    return max(round(drawn), 1)
