"""How vLLM words an answer, field for field: whole bodies and the events of streams, one class for each API.

Here are the APIs whose events are bare `data:` lines; `named_events` has those whose events have names.
"""

import base64
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import orjson

from perjoule.bench.dialect import MODEL, Asked

FINGERPRINT = "vllm-0.32.0-51a1ab1e"
DONE = b"data: [DONE]\n\n"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Choice:
    """One sequence's answer so far; `finish` is None while it goes on."""

    index: int
    text: str
    prompt_tokens: int
    output_tokens: int
    finish: str | None


def usage(prompt_tokens: int, completion_tokens: int) -> Json:
    """vLLM's UsageInfo, in its order."""
    return {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens + completion_tokens,
            "completion_tokens": completion_tokens}


def _data(event: Json) -> bytes:
    return b"data: " + orjson.dumps(event) + b"\n\n"


class Answer:
    """One answer being worded. `prefix` is what vLLM puts before the request id."""

    prefix: ClassVar[str] = "chatcmpl-"

    def __init__(self, asked: Asked, request_id: str, created: int) -> None:
        self.asked, self.id, self.created = asked, self.prefix + request_id, created

    def opening(self) -> Iterator[bytes]:
        """The events before the first token's."""
        yield from ()

    def delta(self, choice: Choice) -> Iterator[bytes]:
        """The event of one token, whose text is the choice's."""
        raise NotImplementedError

    def closing(self, choices: list[Choice], metrics: Json | None) -> Iterator[bytes]:
        """The events after the last token's; the choices hold their whole texts."""
        raise NotImplementedError

    def whole(self, choices: list[Choice], metrics: Json | None) -> bytes:
        """The body of an answer that is not streamed."""
        raise NotImplementedError

    def total(self, choices: list[Choice]) -> Json:
        """The usage of the whole request: each prompt counts once, whatever `n`."""
        return usage(sum(self.asked.prompts), sum(choice.output_tokens for choice in choices))


class Completion(Answer):
    """`/v1/completions`, and what the chat API has in common with it."""

    prefix = "cmpl-"
    kind = stream_kind = "text_completion"

    def chunk(self, choices: list[Json], **more: Any) -> bytes:
        """One event of a stream."""
        return _data({"id": self.id, "object": self.stream_kind, "created": self.created, "model": MODEL,
                      "choices": choices, **more})

    def worded(self, choice: Choice) -> Json:
        """One choice in an event."""
        return {"index": choice.index, "text": choice.text, "logprobs": None, "finish_reason": choice.finish,
                "stop_reason": None, "prompt_token_ids": None, "token_ids": None}

    def worded_whole(self, choice: Choice) -> Json:
        """One choice in a whole body."""
        return {"index": choice.index, "text": choice.text, "logprobs": None, "finish_reason": choice.finish,
                "stop_reason": None, "token_ids": None, "prompt_logprobs": None, "prompt_token_ids": None,
                "routed_experts": None}

    def extras(self) -> Json:
        """What only one of the two APIs has in its whole body."""
        return {}

    def continuous(self, choice: Choice) -> Json:
        """The usage in each event, where it was asked for."""
        return usage(choice.prompt_tokens, choice.output_tokens)

    def delta(self, choice: Choice) -> Iterator[bytes]:
        more: Json = {"usage": self.continuous(choice)} if self.asked.continuous_usage else {}
        if choice.finish and not self.asked.include_usage:  # else the usage event is the last and has it
            more["system_fingerprint"] = FINGERPRINT
        yield self.chunk([self.worded(choice)], **more)

    def closing(self, choices: list[Choice], metrics: Json | None) -> Iterator[bytes]:
        if self.asked.include_usage:
            given = {name: value for name, value in (metrics or {}).items() if value is not None}
            more = {"metrics": given} if given else {}
            yield self.chunk([], usage=self.total(choices), system_fingerprint=FINGERPRINT, **more)
        yield DONE

    def whole(self, choices: list[Choice], metrics: Json | None) -> bytes:
        details = {"prompt_tokens_details": None, "completion_tokens_details": None}
        return orjson.dumps({
            "id": self.id, "object": self.kind, "created": self.created, "model": MODEL,
            "choices": [self.worded_whole(choice) for choice in choices], "service_tier": None,
            "system_fingerprint": FINGERPRINT, "usage": self.total(choices) | details, **self.extras(),
            "kv_transfer_params": None, "ec_transfer_params": None, "metrics": metrics,
        })


class Chat(Completion):
    """`/v1/chat/completions`."""

    prefix = "chatcmpl-"
    kind, stream_kind = "chat.completion", "chat.completion.chunk"

    def opening(self) -> Iterator[bytes]:
        for index in range(self.asked.n):
            delta = {"role": "assistant", "content": ""}
            role = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
            first = Choice(index, "", self.asked.prompts[0], 0, None)
            more = {"usage": self.continuous(first)} if self.asked.continuous_usage else {}
            yield self.chunk([role], **more, prompt_token_ids=None, prompt_text=None)

    def worded(self, choice: Choice) -> Json:
        stop = {"stop_reason": None} if choice.finish else {}
        return {"index": choice.index, "delta": {"content": choice.text}, "logprobs": None,
                "finish_reason": choice.finish, **stop, "token_ids": None}

    def worded_whole(self, choice: Choice) -> Json:
        message = {"role": "assistant", "content": choice.text, "refusal": None, "annotations": None, "audio": None,
                   "function_call": None, "reasoning": None}
        return {"index": choice.index, "message": message, "logprobs": None, "finish_reason": choice.finish,
                "stop_reason": None, "token_ids": None, "routed_experts": None}

    def continuous(self, choice: Choice) -> Json:
        return super().continuous(choice) | {"completion_tokens_details": None}

    def extras(self) -> Json:
        return {"prompt_logprobs": None, "prompt_token_ids": None, "prompt_text": None}


def embeddings(asked: Asked, request_id: str, created: int) -> bytes:
    """The body of `/v1/embeddings`: short vectors that depend on the prompts' lengths alone."""
    vectors = [array("f", (tokens % (k + 2) / (k + 2) for k in range(16))) for tokens in asked.prompts]
    data = [{"index": index, "object": "embedding",
             "embedding": base64.b64encode(vector.tobytes()).decode() if asked.base64 else vector.tolist()}
            for index, vector in enumerate(vectors)]
    total = usage(sum(asked.prompts), 0) | {"prompt_tokens_details": None, "completion_tokens_details": None}
    return orjson.dumps({"id": "embd-" + request_id, "object": "list", "created": created, "model": MODEL, "data": data,
                         "usage": total})
