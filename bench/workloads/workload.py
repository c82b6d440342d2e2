"""A workload: requests in their order, where they came from, and what was left out of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

BLOCK_TOKENS = 512  # of a shared prefix, as Mooncake hashes them
COMPLETIONS, CHAT, EMBEDDINGS = "/v1/completions", "/v1/chat/completions", "/v1/embeddings"
CAPS = ("max_completion_tokens", "max_tokens", "max_output_tokens")  # how bodies say the most that an answer may have
IMAGES, VIDEOS = "/v1/images/generations", "/v1/videos/sync"  # POST /v1/videos answers before the work is done: no energy of a request


class WorkloadError(Exception):
    """A trace, data set or specification that cannot be read: what was got, and what was expected."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One request. What it asks is either `body`, as its data set has it, or lengths in tokens, for which a prompt is made.

    `at_s` is when the trace had it, from its first request on; None where the workload has no times. `blocks` are the hashes of its
    first blocks of `block_tokens` tokens: equal hashes, equal text. Turns of one `session` follow each other: each is sent `think_s`
    after the answer to the one before it. `output_tokens` is the length that the answer is to have, or for a `body` at most."""

    at_s: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    blocks: tuple[int, ...] = ()
    body: Mapping[str, Any] | None = None
    endpoint: str = COMPLETIONS
    session: str | None = None
    think_s: float = 0.0
    block_tokens: int = BLOCK_TOKENS


@dataclass(frozen=True, slots=True)
class Workload:
    """Turns by time where they have one. `read` is how many the source had, `dropped` how many of them are not here and why; `notes` are
    what else was done to them, each a sentence that goes into the result; `sha256` is of the file, "" where there is none."""

    name: str
    source: str
    turns: tuple[Turn, ...]
    read: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    sha256: str = ""

    def keeping(self, turns: Iterable[Turn], reason: str = "", *notes: str) -> "Workload":
        """This workload with these turns of it; how many are gone counts as `dropped` for the reason."""
        kept = tuple(turns)
        gone = len(self.turns) - len(kept)
        dropped = {**self.dropped, reason: self.dropped.get(reason, 0) + gone} if gone else self.dropped
        return replace(self, turns=kept, dropped=dropped, notes=(*self.notes, *notes))
