"""Prompts of a wanted length, made up: the same for the same seed and request, and shared where a trace says that they were."""

from random import Random
from typing import Any

from perjoule.bench.workloads.workload import CAPS, CHAT, COMPLETIONS, Turn

FIRST_ID = 100  # below are the special tokens of most vocabularies
VOCABULARY = 32000  # Llama 2's; nearly every model knows as many
DRAWS = 1 << 16  # a token is drawn with two random bytes
LENGTHED = (COMPLETIONS, CHAT)  # endpoints of which a length can be asked
GAPS = {  # how models mark the gap in code that they are to fill, by what their names contain
    "deepseek-coder": "<｜fim▁begin｜>{prefix}<｜fim▁hole｜>{suffix}<｜fim▁end｜>",
    **dict.fromkeys(("qwen2.5-coder", "qwen3-coder", "codegemma"), "<|fim_prefix|>{prefix}<|fim_suffix|>{suffix}<|fim_middle|>"),
    "starcoder": "<fim_prefix>{prefix}<fim_suffix>{suffix}<fim_middle>",
}
WORDS = """the of and to in is that it was for on are as with his they at be this from have or by one had not but what all were when we
there can an your which their said if do will each about how up out them then she many some so these would other into has more her two
like him see time could no make than first been its who now people my made over did down only way find use may water long little very
after words called just where most know get through back much before go good new write our used me man too any day same right look think
also around another came come work three word must because does part even place well such here take why things help put years different
away again off went old number great tell men say small every found still between name should home big give air line set own under read
last never us left end along while might next sound below saw something thought both few those always looked show large often together
asked house world going want school important until form food keep children feet land side without boy once animals life enough took
sometimes four head above kind began almost live page got earth need far hand high year mother light parts country father let night
following picture being study second eyes soon times story boys since white days ever paper hard near sentence better best across during
today others however sure means knew try told young miles sun ways thing whole hear example heard several change answer room sea against
top turned learn point city play toward five using himself usually money seen car morning given ship area""".split()  # noqa: SIM905


class Prompter:
    """Makes the JSON body of a request from its turn.

    A turn with lengths becomes, at /v1/completions, a `prompt` of exactly so many token ids (vLLM, SGLang, TensorRT-LLM take them), and
    at /v1/chat/completions one message of so many common words: about a token each, and the engine's usage tells how many. Both ask for
    an answer of exactly `output_tokens` with `max_tokens`, `min_tokens` and `ignore_eos`, which vLLM and SGLang obey; TGI and OpenAI
    do not know the last two: give `forced=False` there, and the model ends its answers itself.

    Blocks with equal hashes are equal text. Turns of a session are beginnings of one text, so each contains the one before it as long
    as it is longer: the history grows, with made-up text in place of the engine's answers. All else differs from the first token on,
    by `seed` and the request's index: a prefix cache finds what the trace shared, and nothing else.

    A turn with a body keeps it, with `model` put in, and `max_tokens` or the body's own cap no higher than the turn's; code with a gap
    (`prompt` and `suffix`) becomes one prompt, in the words of a model whose name is known, and stays as it is for others.
    Raises ValueError: a vocabulary that has no ids from 100 on, or a turn with neither body nor lengths."""

    def __init__(self, model: str, seed: int, vocabulary: int = VOCABULARY, *, forced: bool = True) -> None:
        if vocabulary <= FIRST_ID:
            raise ValueError(f"vocabulary: got {vocabulary}, expected more than {FIRST_ID} token ids")
        self.model, self.seed, self.vocabulary, self.forced = model, seed, vocabulary, forced
        span = vocabulary - FIRST_ID
        self._ids = [FIRST_ID + draw * span // DRAWS for draw in range(DRAWS)]
        self._words = [WORDS[draw * len(WORDS) // DRAWS] for draw in range(DRAWS)]

    def __reduce__(self) -> Any:
        return _prompter, (self.model, self.seed, self.vocabulary, self.forced)

    def body(self, turn: Turn, index: int) -> dict[str, Any]:
        """What to send; without `stream`, which is the client's to say."""
        if turn.body is not None:
            return self._given(turn)
        if turn.input_tokens is None or turn.output_tokens is None:
            raise ValueError(f"request {index}: got a turn of {turn.input_tokens} input and {turn.output_tokens} output tokens, "
                             "expected a body, or both")
        drawn = self._drawn(turn, turn.input_tokens, index)
        body: dict[str, Any] = {"model": self.model}
        if turn.endpoint == CHAT:
            body["messages"] = [{"role": "user", "content": " ".join(map(self._words.__getitem__, drawn))}]
        else:
            body["prompt"] = list(map(self._ids.__getitem__, drawn))
        body["max_tokens"] = turn.output_tokens
        return {**body, "min_tokens": turn.output_tokens, "ignore_eos": True} if self.forced else body

    def _given(self, turn: Turn) -> dict[str, Any]:
        body = {**(turn.body or {}), "model": self.model}
        if turn.output_tokens is not None:
            caps = {name: body[name] for name in CAPS if isinstance(body.get(name), int)}
            body.update({name: min(cap, turn.output_tokens) for name, cap in caps.items()})
            if not caps and turn.endpoint in LENGTHED:
                body["max_tokens"] = turn.output_tokens
        if turn.endpoint == COMPLETIONS and isinstance(body.get("suffix"), str):
            form = next((form for name, form in GAPS.items() if name in self.model.lower()), None)
            if form is not None:
                body["prompt"] = form.format(prefix=body["prompt"], suffix=body.pop("suffix"))
        return body

    def _drawn(self, turn: Turn, tokens: int, index: int) -> memoryview:
        """So many draws: of each block, and then of the session or the request."""
        parts = bytearray()
        for block in turn.blocks[: -(-tokens // turn.block_tokens)]:
            parts += self._bytes(f"block {block}", turn.block_tokens)
        own = f"request {index}" if turn.session is None else f"session {turn.session}"
        parts += self._bytes(own, tokens - len(parts) // 2) if len(parts) < 2 * tokens else b""
        return memoryview(parts)[: 2 * tokens].cast("H")

    def _bytes(self, name: str, tokens: int) -> bytes:
        """Random bytes for so many tokens, which begin alike whatever their number: Random makes 32 bits at a time, so an even one."""
        return Random(f"{self.seed} {name}").randbytes(2 * (tokens + tokens % 2))[: 2 * tokens]


def _prompter(model: str, seed: int, vocabulary: int, forced: bool) -> Prompter:
    return Prompter(model, seed, vocabulary, forced=forced)
