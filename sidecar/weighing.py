"""How much each running request weighs in a window: tokens that were seen, and an estimate where none could be seen yet.

`token-share`: weight = prompt tokens computed in the window + output tokens in the window. With continuous batching every
decoding sequence gets one token a step, so a request whose tokens are hidden weighs like its visible neighbours; prompts are
computed in the order of arrival, so of those that wait for their first token the earliest is at work.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from perjoule.sidecar.pace import Pace
from perjoule.sidecar.work import Work


@dataclass(slots=True)
class Weight:
    """One request's millionths of tokens in one window, and how many of them are an estimate."""

    work: Work
    prefill: int = 0
    decode: int = 0
    guessed_prefill: int = 0
    guessed_decode: int = 0

    @property
    def total(self) -> int:
        return self.prefill + self.decode


def weigh(works: Sequence[Work], t0_ns: int, t1_ns: int, pace: Pace) -> list[Weight]:
    """Weights of these requests (in the order of arrival) in (t0, t1]. Changes nothing."""
    weights = [Weight(work, work.prefill.between(t0_ns, t1_ns), work.decode.between(t0_ns, t1_ns)) for work in works]
    decoding_from = _guess_prefill(weights, t0_ns, t1_ns, pace)
    rate = _visible_rate(weights, t0_ns, t1_ns) or pace.decode_per_s.value
    for weight, start_ns in zip(weights, decoding_from, strict=True):
        work = weight.work
        if start_ns is None or work.end_ns is not None:
            continue
        unseen_ns, stop_ns = work.unseen(t0_ns, t1_ns)
        start_ns = max(start_ns, unseen_ns)
        if stop_ns > start_ns:
            own = (work.mean_decode_per_s or rate) if work.visible else rate * work.choices
            weight.guessed_decode = round(own * (stop_ns - start_ns) / 1000)
            weight.decode += weight.guessed_decode
    if weights and not any(weight.total for weight in weights):
        weights[0].prefill = 1  # a prompt that takes longer than was thought: somebody is at work, and it is the earliest
    return weights


def _guess_prefill(weights: list[Weight], t0_ns: int, t1_ns: int, pace: Pace) -> list[int | None]:
    """Place prompts whose first token has not come, one after the other. Answers from when each request decodes, if it does."""
    free_ns = max(t0_ns, pace.last_prefill_ns)
    decoding_from: list[int | None] = []
    for weight in weights:
        work = weight.work
        if work.prompt_left == 0:
            decoding_from.append(None if work.visible and work.first_ns is None else t0_ns)
            continue
        start_ns, stop_ns = work.unseen(t0_ns, t1_ns)
        start_ns = max(start_ns, free_ns)
        if stop_ns <= start_ns:
            decoding_from.append(None)
            continue
        done_ns = start_ns + work.prefill_ns(pace.prefill_per_s.value)
        weight.guessed_prefill = min(work.prompt_left, work.prompt_left * (stop_ns - start_ns) // max(done_ns - start_ns, 1))
        weight.prefill += weight.guessed_prefill
        free_ns = min(done_ns, stop_ns)
        decoding_from.append(done_ns if not work.visible and done_ns < stop_ns else None)
    return decoding_from


def _visible_rate(weights: list[Weight], t0_ns: int, t1_ns: int) -> float | None:
    """Tokens a second of one sequence, from the requests that show theirs."""
    shown = span_ns = 0
    for weight in weights:
        work = weight.work
        if work.visible and work.first_ns is not None and weight.decode:
            shown += weight.decode
            span_ns += max(0, min(work.unseen(t0_ns, t1_ns)[0], t1_ns) - max(t0_ns, work.first_ns)) * work.choices
    return shown / span_ns * 1000 if span_ns > 0 else None
