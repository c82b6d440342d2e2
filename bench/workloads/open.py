"""Workloads by what a user types: KIND:REST, a trace's file, a data set, or numbers."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from perjoule.bench.workloads.azure import azure
from perjoule.bench.workloads.bins import PAPER, binned, from_moments
from perjoule.bench.workloads.burstgpt import burstgpt
from perjoule.bench.workloads.diffusion import diffusion
from perjoule.bench.workloads.files import ALWAYS, Window
from perjoule.bench.workloads.hub import hub
from perjoule.bench.workloads.jsonl import jsonl
from perjoule.bench.workloads.lengths import fixed, pareto
from perjoule.bench.workloads.mooncake import mooncake
from perjoule.bench.workloads.servegen import servegen
from perjoule.bench.workloads.sharegpt import sharegpt
from perjoule.bench.workloads.workload import Workload, WorkloadError

FORMS = {
    "azure2023": "PATH", "azure2024": "PATH", "burstgpt": "PATH", "mooncake": "PATH", "servegen": "DIR", "sharegpt": "PATH",
    "jsonl": "PATH", "hf": "DATASET_ID[:TASK][,N]", "fixed": "IN,OUT[,N]", "pareto": "IN_MEAN,ALPHA,OUT_MEAN[,N]",
    "bins": "NAME[,N] or bins:another of these", "diffusion": "STEPS,WIDTHxHEIGHT[,FRAMES[,BATCH[,N]]]",
}
SPECS = ", ".join(f"{kind}:{form}" for kind, form in FORMS.items())


def workload_of(spec: str, *, seed: int, window: Window = ALWAYS) -> Workload:
    """The workload that a specification means. Equal seeds, equal workloads; traces that need no chance ignore it.

    `window`: a reader of a large trace keeps only these seconds, and counts the rest as dropped. Times stay as they are; the filter
    of the same name then makes them begin at 0. Raises WorkloadError: what was got, and what was expected."""
    kind, colon, rest = spec.partition(":")
    if kind not in FORMS or not colon or not rest:
        raise WorkloadError(f"got {spec!r}, expected one of {SPECS}")
    readers: dict[str, Callable[[], Workload]] = {
        "azure2023": lambda: azure(rest, 2023, window),
        "azure2024": lambda: azure(rest, 2024, window),
        "burstgpt": lambda: burstgpt(rest, window),
        "mooncake": lambda: mooncake(rest, seed),
        "servegen": lambda: servegen(rest, seed, window),
        "sharegpt": lambda: sharegpt(rest),
        "jsonl": lambda: jsonl(rest),
        "hf": lambda: _hub(rest, seed),
        "fixed": lambda: fixed(*_numbers(spec, (int, int), (int,))),
        "pareto": lambda: pareto(*_numbers(spec, (float, float, float), (int,)), seed=seed),
        "bins": lambda: _bins(spec, rest, seed, window),
        "diffusion": lambda: diffusion(*_numbers(spec, (int, _size), (int, int, int)), seed=seed),
    }
    return readers[kind]()


def _numbers(spec: str, needed: Sequence[Callable[[str], Any]], more: Sequence[Callable[[str], Any]]) -> list[Any]:
    """What is between the commas, each as its kind has it and above 0."""
    kind, _, rest = spec.partition(":")
    given = rest.split(",")
    try:
        if not len(needed) <= len(given) <= len(needed) + len(more):
            raise ValueError
        values = [read(text) for read, text in zip((*needed, *more), given, strict=False)]
        if not all(isinstance(value, str) or 0 < value < float("inf") for value in values):
            raise ValueError
    except ValueError:
        raise WorkloadError(f"got {spec!r}, expected {kind}:{FORMS[kind]}, numbers above 0") from None
    return values


def _size(text: str) -> str:
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", text):
        raise ValueError
    return text


def _hub(rest: str, seed: int) -> Workload:
    found = re.fullmatch(r"(?P<dataset>[^,]+?)(:(?P<task>[\w-]+))?(,(?P<most>[1-9]\d*))?", rest)
    if found is None:
        raise WorkloadError(f"got {'hf:' + rest!r}, expected hf:{FORMS['hf']}")
    more = {"most": int(found["most"])} if found["most"] else {}
    return hub(found["dataset"], found["task"] or "", seed=seed, **more)


def _bins(spec: str, rest: str, seed: int, window: Window) -> Workload:
    name, comma, turns = rest.partition(",")
    if name in PAPER:
        return from_moments(name, *_numbers(f"bins:{turns}", (int,), ()), seed=seed) if comma else from_moments(name, seed=seed)
    if rest.partition(":")[0] in FORMS:
        return binned(workload_of(rest, seed=seed, window=window))
    raise WorkloadError(f"got {spec!r}, expected bins:NAME[,N] with NAME one of {', '.join(PAPER)}, or bins: and another workload")
