"""What may be done to a workload before it is sent; each is a pure function that counts what it drops and says what it changes."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from random import Random

from perjoule.bench.workloads.files import OUTSIDE, Window
from perjoule.bench.workloads.workload import CHAT, Turn, Workload, WorkloadError


def windowed(workload: Workload, window: Window) -> Workload:
    """The turns of these seconds of its time (the end not included), which then begin at 0. A turn without a time goes with the one
    before it in its session. Raises WorkloadError: no turn has a time, or none is in the window."""
    _must_have_times(workload, "--window")
    begin_s, end_s = window
    kept: list[Turn] = []
    inside: dict[str, bool] = {}  # whether the last turn of a session was
    for turn in workload.turns:
        first = turn.session is None or not inside.get(turn.session, False)
        within = begin_s <= turn.at_s < end_s if turn.at_s is not None else not first
        if turn.session is not None:
            inside[turn.session] = within
        if within:
            at_s = None if turn.at_s is None else turn.at_s - begin_s
            kept.append(replace(turn, at_s=at_s, think_s=0.0 if first else turn.think_s))
    if not kept:
        raise WorkloadError(f"--window: got no request from {begin_s:g} to {end_s:g} s of {workload.name}, expected at least one")
    return workload.keeping(kept, OUTSIDE, f"Only the seconds {begin_s:g} to {end_s:g} of it were taken.")


def thinned(workload: Workload, probability: float, seed: int) -> Workload:
    """Each turn, or whole session, with this probability. A larger one keeps all that a smaller one keeps."""
    random = Random(f"{seed} thin")
    drawn: dict[str, float] = {}
    draws = [random.random() if turn.session is None else drawn.setdefault(turn.session, random.random()) for turn in workload.turns]
    kept = [turn for turn, draw in zip(workload.turns, draws, strict=True) if draw < probability]
    return workload.keeping(kept, "thinned out", f"Each request or session was kept with probability {probability:g} (seed {seed}).")


def scaled_lengths(workload: Workload, factor: float) -> Workload:
    """All lengths times a factor, rounded, at least 1 token, and so the blocks that are shared; for models that are smaller than those
    of the trace. Of a body, only the cap on its answer."""
    def scaled(tokens: int | None) -> int | None:
        return None if tokens is None else max(round(tokens * factor), 1)

    turns = [replace(turn, input_tokens=scaled(turn.input_tokens), output_tokens=scaled(turn.output_tokens),
                     block_tokens=max(round(turn.block_tokens * factor), 1)) for turn in workload.turns]
    return workload.keeping(turns, "", f"All lengths were multiplied by {factor:g} (at least 1 token).")


def within_context(workload: Workload, tokens: int, *, clip: bool = False) -> Workload:
    """Turns whose input and output fit into a context of so many tokens. Others are dropped, and what follows them in their session; or
    clipped: of the input what is too much, and where the output alone is, of that, so that one token of input is left.

    The length of a body is not known: it is kept, and its answer is not capped where its cap alone is too much. Notes count them."""
    if clip:
        turns = [_clipped(turn, tokens) for turn in workload.turns]
        cut = [(before, after) for before, after in zip(workload.turns, turns, strict=True) if before is not after and before.body is None]
        given, wanted = (sum((getattr(before, name) or 0) - (getattr(after, name) or 0) for before, after in cut)
                         for name in ("input_tokens", "output_tokens"))
        note = f"{len(cut)} requests were clipped to {tokens} tokens: {given:,} input and {wanted:,} output tokens less."
        return workload.keeping(turns, "", note, *_unknown(workload))
    kept: list[Turn] = []
    ended: set[str] = set()
    for turn in workload.turns:
        fits = turn.body is not None or (turn.input_tokens or 0) + (turn.output_tokens or 0) <= tokens
        if fits and turn.session not in ended:
            kept.append(_clipped(turn, tokens))
        elif turn.session is not None:
            ended.add(turn.session)
    return workload.keeping(kept, f"longer than {tokens} tokens", *_unknown(workload))


def capped_output(workload: Workload, tokens: int) -> Workload:
    """No answer longer than so many tokens: of a body its cap, of lengths the length."""
    turns = [replace(turn, output_tokens=tokens) if (turn.output_tokens or tokens + 1) > tokens else turn for turn in workload.turns]
    cut = sum(before is not after for before, after in zip(workload.turns, turns, strict=True))
    return workload.keeping(turns, "", f"{cut} answers were capped at {tokens} tokens.")


def limited(workload: Workload, turns: int) -> Workload:
    """The first so many turns."""
    return workload.keeping(workload.turns[:turns], "beyond the limit")


def scaled_time(workload: Workload, factor: float) -> Workload:
    """All times, and thinking, times a factor: 2 takes twice as long, as guidellm's `time_scale` and SGLang's slowdown factor have it.
    Raises WorkloadError: no turn has a time."""
    _must_have_times(workload, "--time-scale")
    turns = [replace(turn, at_s=None if turn.at_s is None else turn.at_s * factor, think_s=turn.think_s * factor)
             for turn in workload.turns]
    return workload.keeping(turns, "", f"All times were multiplied by {factor:g}.")


def in_words(workload: Workload) -> Workload:
    """Chat messages of common words in place of token ids, for engines that do not take ids. A word is about a token, not exactly."""
    turns = [replace(turn, endpoint=CHAT) if turn.body is None else turn for turn in workload.turns]
    return workload.keeping(turns, "", "Prompts are common words, about a token each, and the chat template's tokens come on top.")


def _must_have_times(workload: Workload, flag: str) -> None:
    if all(turn.at_s is None for turn in workload.turns):
        raise WorkloadError(f"{flag}: got {workload.name}, which has no times, expected a trace")


def _clipped(turn: Turn, tokens: int) -> Turn:
    given, wanted = turn.input_tokens, turn.output_tokens
    if turn.body is not None:
        return replace(turn, output_tokens=None) if (wanted or 0) >= tokens else turn
    if given is None or wanted is None or given + wanted <= tokens:
        return turn
    wanted = min(wanted, tokens - 1)
    return replace(turn, input_tokens=tokens - wanted, output_tokens=wanted)


def _unknown(workload: Workload) -> Iterator[str]:
    bodies = Counter(turn.body is not None for turn in workload.turns)[True]
    if bodies:
        yield f"{bodies} requests have bodies of unknown length, which were not compared with the context."
