"""One request inside the embedded engine: how long its answers will be, and their tokens as words while they come."""

import asyncio
from collections.abc import AsyncIterator
from random import Random

from perjoule.bench.answers import Choice
from perjoule.bench.dialect import Asked
from perjoule.bench.simulator import Sequence, Simulator, Token
from perjoule.sidecar.units import NS_PER_MS, NS_PER_S

WORDS = ("the", "joules", "of", "a", "step", "are", "shared", "by", "all", "who", "run", "in", "it", "and", "each",
         "pays", "for", "its", "own", "words", "too", "so", "count", "what", "you", "spend")
NATURAL_TOKENS = 4.5, 0.8  # how long a model talks if let: log-normal, median 90


class Generation:
    """The sequences of one request, one for each prompt and choice, in the order of vLLM's choice index."""

    def __init__(self, asked: Asked, random: Random, simulator: Simulator, t_ns: int) -> None:
        self.tokens: asyncio.Queue[Token] = asyncio.Queue()
        self.sequences: list[Sequence] = []
        self._stops: list[bool] = []  # by itself, before it must
        self._first_words: list[int] = []
        for input_tokens in asked.prompts:
            for _ in range(asked.n):
                natural = max(1, round(random.lognormvariate(*NATURAL_TOKENS)))
                stops = natural <= asked.max_tokens and not asked.ignore_eos
                self.sequences.append(simulator.submit(t_ns, input_tokens, natural if stops else asked.max_tokens))
                self._stops.append(stops)
                self._first_words.append(random.randrange(len(WORDS)))

    async def choices(self) -> AsyncIterator[Choice]:
        """A choice for each token, with the text of that token, until every sequence has ended."""
        places = {sequence: place for place, sequence in enumerate(self.sequences)}
        left = len(self.sequences)
        while left:
            sequence, nth = await self.tokens.get()
            place = places[sequence]
            choice = self._choice(place, nth, self._word(place, nth))
            left -= choice.finish is not None
            yield choice

    def whole(self) -> list[Choice]:
        """Every sequence's answer from its first word to its last."""
        return [self._choice(place, s.generated, "".join(self._word(place, n) for n in range(1, s.generated + 1)))
                for place, s in enumerate(self.sequences)]

    def metrics(self) -> dict[str, float | None] | None:
        """vLLM's timings, whose time to first token counts from scheduling; None for more than one sequence."""
        (s, *more) = self.sequences
        if more or s.scheduled_ns is None or s.first_token_ns is None or s.last_token_ns is None:
            return None
        decode_ns = s.last_token_ns - s.first_token_ns
        return {
            "time_to_first_token_ms": (s.first_token_ns - s.scheduled_ns) / NS_PER_MS,
            "generation_time_ms": decode_ns / NS_PER_MS,
            "queue_time_ms": (s.scheduled_ns - s.queued_ns) / NS_PER_MS,
            "mean_itl_ms": decode_ns / (s.generated - 1) / NS_PER_MS if s.generated > 1 else None,
            "tokens_per_second": s.generated * NS_PER_S / (s.last_token_ns - s.scheduled_ns),
            "speculative_decoding": None,
        }

    def _choice(self, place: int, nth: int, text: str) -> Choice:
        sequence = self.sequences[place]
        ended = "stop" if self._stops[place] else "length"
        return Choice(place, text, sequence.input_tokens, nth, ended if nth == sequence.output_tokens else None)

    def _word(self, place: int, nth: int) -> str:
        """The text of a token; the one that ends an answer by itself has none."""
        if self._stops[place] and nth == self.sequences[place].output_tokens:
            return ""
        return " " + WORDS[(self._first_words[place] + nth) % len(WORDS)]
