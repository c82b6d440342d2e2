"""A workload as work for an engine: how many tokens each request has, which of them a prefix cache would know, and when it comes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from perjoule.bench.estimates.errors import EstimateError
from perjoule.bench.workloads.workload import CAPS, IMAGES, VIDEOS, Turn, Workload

CHARACTERS_A_TOKEN = 4.0  # of English text; a tokenizer knows better


@dataclass(frozen=True, slots=True)
class Asked:
    """One request. `at_s` is when it comes, None for as soon as there is a place, or after the turn before; `cached` of its prompt tokens
    need not be computed. `follows` is the turn before in its session, -1 for none: it then comes `think_s` after that one's end."""

    prompt: int
    output: int
    at_s: float | None = None
    cached: int = 0
    follows: int = -1
    think_s: float = 0.0


def asked_of(workload: Workload, *, output_tokens: int | None = None, prefix_cache: bool = False) -> tuple[list[Asked], list[str]]:
    """The requests, and sentences on what was assumed. `output_tokens` is taken for answers whose length nobody tells; with `prefix_cache`
    blocks that an earlier turn had cost nothing, in a cache without end.

    Raises EstimateError for images and videos, and where a length is missing."""
    found: list[Asked] = []
    seen: set[int] = set()
    last: dict[str, int] = {}
    guessed = capped = cached_sum = 0
    for i, turn in enumerate(workload.turns):
        if turn.endpoint in (IMAGES, VIDEOS):
            raise EstimateError(f"{workload.name}: got requests for {turn.endpoint}, expected text: diffusion has no model here")
        prompt = turn.input_tokens
        if prompt is None:
            prompt, guessed = max(1, round(sum(map(len, _texts(turn.body))) / CHARACTERS_A_TOKEN)), guessed + 1
        output = turn.output_tokens
        if output is None:
            output = _cap(turn)
        if turn.body is not None and output is not None and output_tokens is None:
            capped += 1
        if turn.body is not None or output is None:
            output = output_tokens or output
        if output is None:
            raise EstimateError(f"{workload.name}: request {i} does not tell how long its answer is, expected --output-tokens N")
        cached = min(_known(turn, seen) if prefix_cache else 0, prompt - 1)
        follows = last.get(turn.session, -1) if turn.session is not None else -1
        if turn.session is not None:
            last[turn.session] = i
        cached_sum += cached
        found.append(Asked(prompt, output, turn.at_s, max(cached, 0), follows, turn.think_s))
    notes = []
    if guessed:
        notes.append(f"{guessed} prompts are text: {CHARACTERS_A_TOKEN:g} characters were taken for a token.")
    if capped:
        notes.append(f"{capped} answers were taken to be as long as they may be, which is too long (--output-tokens).")
    if prefix_cache:
        notes.append(f"{cached_sum} prompt tokens were taken to be in a prefix cache without end.")
    elif any(turn.blocks for turn in workload.turns):
        notes.append("Blocks that prompts share are computed each time (--prefix-cache).")
    return found, notes


def paced(asked: Sequence[Asked], rate: float, seed: int) -> list[Asked]:
    """The same requests at other times: Poisson, so many a second. Turns that follow another keep doing so."""
    random, t_s, found = Random(f"{seed} rate"), 0.0, []
    for one in asked:
        if one.follows < 0:
            found.append(Asked(one.prompt, one.output, t_s, one.cached))
            t_s += random.expovariate(rate)
        else:
            found.append(Asked(one.prompt, one.output, None, one.cached, one.follows, one.think_s))
    return found


def _known(turn: Turn, seen: set[int]) -> int:
    """How many of its first tokens are in blocks that came before; all of its own count from now on."""
    known = 0
    for block in turn.blocks:
        if block not in seen:
            break
        known += turn.block_tokens
    seen.update(turn.blocks)
    return known


def _cap(turn: Turn) -> int | None:
    told = [turn.body[name] for name in CAPS if isinstance(turn.body.get(name), int)] if turn.body is not None else []
    return told[0] if told else None


def _texts(value: Any) -> Iterator[str]:
    """The texts of a body that a model reads."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key in ("messages", "content", "prompt", "input", "text", "instructions"):
                yield from _texts(inner)
    elif isinstance(value, str):
        yield value
    elif isinstance(value, Sequence):
        for inner in value:
            yield from _texts(inner)
