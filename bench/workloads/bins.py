"""The length bins of "Energy Considerations of LLM Inference": each request becomes one of 8 × 7 shapes, rounded up."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from perjoule.bench.workloads.lengths import log_normal
from perjoule.bench.workloads.workload import Turn, Workload

INPUT_BINS = (32, 128, 256, 512, 1024, 2048, 4096, 8192)  # section 4.1 of arXiv 2504.17674, as listed there
OUTPUT_BINS = (8, 16, 32, 64, 128, 256, 512)
PAPER = {  # its tables 1 and 2: mean and standard deviation of input tokens, and of output tokens
    "burstgpt": ((256.80, 242.27), (35.10, 108.59)),
    "azure-chat": ((1631.58, 1529.64), (105.51, 158.25)),
    "azure-code": ((2511.28, 2133.54), (22.69, 74.78)),
}
TURNS = 1024  # of a run of the paper's
BEYOND = f"beyond the bins ({INPUT_BINS[-1]} input, {OUTPUT_BINS[-1]} output tokens)"


def binned(workload: Workload) -> Workload:
    """A workload with each length rounded up to its bin. What is longer than the largest is dropped, as in the paper, and so are bodies,
    whose lengths are not known. Times stay; blocks and sessions do not, since prompts of other lengths share nothing."""
    turns: list[Turn] = []
    before, after = 0, 0
    for turn in workload.turns:
        given, wanted = up(turn.input_tokens, INPUT_BINS), up(turn.output_tokens, OUTPUT_BINS)
        if given and wanted:
            turns.append(replace(turn, input_tokens=given, output_tokens=wanted, blocks=(), session=None, think_s=0.0))
            before, after = before + (turn.input_tokens or 0) + (turn.output_tokens or 0), after + given + wanted
    note = f"Lengths are rounded up to bins: {before:,} tokens became {after:,}."
    return replace(workload.keeping(turns, BEYOND, note), name=f"bins:{workload.name}", source=f"bins:{workload.source}")


def from_moments(name: str, turns: int = TURNS, *, seed: int) -> Workload:
    """One of `PAPER`'s workloads in its bins. The paper gives moments, not requests: lengths are log-normal with its means and standard
    deviations, input and output apart from each other, and the notes call them synthetic."""
    random = Random(f"{seed} bins")
    inputs, outputs = PAPER[name]
    made = tuple(Turn(None, log_normal(*inputs, random), log_normal(*outputs, random)) for _ in range(turns))
    note = (f"Lengths are synthetic: log-normal with the moments that arXiv 2504.17674 gives of {name} "
            f"({inputs[0]:g} ± {inputs[1]:g} input, {outputs[0]:g} ± {outputs[1]:g} output tokens), seed {seed}.")
    return binned(Workload(name, f"{name},{turns}", made, turns, {}, (note,)))


def up(tokens: int | None, bins: Sequence[int]) -> int | None:
    """The smallest bin that is not smaller; None where there is none."""
    place = len(bins) if tokens is None else bisect_left(bins, tokens)
    return bins[place] if place < len(bins) else None
