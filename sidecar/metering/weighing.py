"""How much each request weighs in a window: a rule is a price for each term of the energy model, and a weight is what the terms cost.

`token-share`: a prompt token and an output token weigh one each. `step-model`: the coefficients of the energy model, so that a
step's cost is shared equally by the sequences in it. `steady-rate`: output tokens alone, as in ML.ENERGY's J per output token.
"""

from collections.abc import Sequence

from perjoule.sidecar.metering.terms import Terms
from perjoule.sidecar.metering.work import Work

METHODS = ("token-share", "step-model", "steady-rate")
TOKENS = Terms(prefill=1.0, steps=0.0, decode=1.0, context=0.0)
OUTPUT_TOKENS = Terms(prefill=0.0, steps=0.0, decode=1.0, context=0.0)
PROMPT_TOKENS = Terms(prefill=1.0, steps=0.0, decode=0.0, context=0.0)
MICRO = 1_000_000  # weights are integers: millionths of a token, or of a joule


def prices(method: str, coefficients: Terms) -> Terms:
    """What one of each term weighs under a method; `coefficients` are those of the energy model."""
    if method == "step-model":
        return coefficients
    return OUTPUT_TOKENS if method == "steady-rate" else TOKENS


def costs(amounts: list[Terms], price: Terms) -> list[float]:
    """What each request's amounts cost."""
    return [terms.dot(price) for terms in amounts]


def weigh(amounts: list[Terms], price: Terms, works: Sequence[Work] = ()) -> list[int]:
    """One weight for each request. Where nothing is known to have been computed somebody is at work all the same, and it is the
    earliest whose prompt is not known to be done, which takes longer than was thought; where all of them are, the earliest."""
    weights = [int(cost * MICRO) for cost in costs(amounts, price)]
    if weights and not any(weights) and all(terms.is_nothing for terms in amounts):
        weights[next((place for place, work in enumerate(works) if work.first_ns is None), 0)] = 1
    return weights
