"""How vLLM words an answer in the two APIs whose stream events have names: Anthropic's Messages, OpenAI's Responses."""

from collections.abc import Iterator
from typing import Any, ClassVar
from uuid import uuid4

import orjson

from perjoule.bench.answers import Answer, Choice, Json
from perjoule.bench.dialect import MODEL, Asked


def named(event: Json) -> bytes:
    """One server-sent event whose name is its `type`."""
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event))


class Messages(Answer):
    """`/v1/messages`, Anthropic's API."""

    stop_reasons: ClassVar = {"stop": "end_turn", "length": "max_tokens"}

    def message(self, content: list[Json], stop_reason: str | None, output_tokens: int) -> Json:
        """The message object."""
        return {"id": self.id, "type": "message", "role": "assistant", "content": content, "model": MODEL,
                "stop_reason": stop_reason, "stop_sequence": None, "usage": self.usage(output_tokens)}

    def usage(self, output_tokens: int) -> Json:
        """Anthropic's names for the same counts."""
        return {"input_tokens": self.asked.prompts[0], "output_tokens": output_tokens}

    def opening(self) -> Iterator[bytes]:
        yield named({"type": "message_start", "message": self.message([], None, 0)})
        yield named({"type": "content_block_start", "content_block": {"type": "text", "text": ""}, "index": 0})

    def delta(self, choice: Choice) -> Iterator[bytes]:
        if choice.text:
            text = {"type": "text_delta", "text": choice.text}
            yield named({"type": "content_block_delta", "delta": text, "index": 0})

    def closing(self, choices: list[Choice], metrics: Json | None) -> Iterator[bytes]:
        stop = {"stop_reason": self.stop_reasons[choices[0].finish or "stop"], "stop_sequence": None}
        yield named({"type": "content_block_stop", "index": 0})
        yield named({"type": "message_delta", "delta": stop, "usage": self.usage(choices[0].output_tokens)})
        yield named({"type": "message_stop"})

    def whole(self, choices: list[Choice], metrics: Json | None) -> bytes:
        (choice,) = choices
        message = self.message([{"type": "text", "text": choice.text}], self.stop_reasons[choice.finish or "stop"],
                               choice.output_tokens)
        del message["stop_sequence"]  # nulls are left out of whole bodies
        return orjson.dumps(message)


class Responses(Answer):
    """`/v1/responses`."""

    prefix = "resp_"

    def __init__(self, asked: Asked, request_id: str, created: int) -> None:
        super().__init__(asked, uuid4().hex[:16], created)  # vLLM keeps the client's id out of this API
        self.item = "msg_" + uuid4().hex[:16]
        self.place = {"item_id": self.item, "output_index": 0, "content_index": 0}
        self.count = 0

    def event(self, kind: str, **more: Any) -> bytes:
        """One event of a stream, numbered, its fields in alphabetical order as vLLM has them."""
        self.count += 1
        return named(dict(sorted({**more, "sequence_number": self.count - 1, "type": "response." + kind}.items())))

    def response(self, status: str, output: list[Json], usage: Json | None, metrics: Json | None) -> Json:
        """The response object."""
        extra = {"metrics": metrics} if metrics else {}
        return {
            "id": self.id, "created_at": self.created,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": None, "metadata": None, "model": MODEL, "object": "response", "output": output,
            "parallel_tool_calls": True, "temperature": 1.0, "tool_choice": "none", "tools": [], "top_p": 1.0,
            "background": False, "max_output_tokens": self.asked.max_tokens, "max_tool_calls": None,
            "previous_response_id": None, "prompt": None, "reasoning": None, "service_tier": "auto", "status": status,
            "text": None, "top_logprobs": None, "truncation": "disabled", "usage": usage, "user": None, **extra,
            "presence_penalty": 0.0, "frequency_penalty": 0.0, "kv_transfer_params": None, "ec_transfer_params": None,
            "input_messages": None, "output_messages": None,
        }

    def message(self, text: str) -> Json:
        """The one item of the output."""
        part: Json = {"annotations": [], "text": text, "type": "output_text", "logprobs": None}
        return {"id": self.item, "content": [part], "role": "assistant", "status": "completed", "type": "message",
                "phase": None}

    def ended(self, choice: Choice, metrics: Json | None) -> Json:
        """The response object at the end."""
        usage = {
            "input_tokens": choice.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0, "input_tokens_per_turn": [],
                                     "cached_tokens_per_turn": []},
            "output_tokens": choice.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0, "tool_output_tokens": 0, "output_tokens_per_turn": [],
                                      "tool_output_tokens_per_turn": []},
            "total_tokens": choice.prompt_tokens + choice.output_tokens,
        }
        status = "incomplete" if choice.finish == "length" else "completed"
        return self.response(status, [self.message(choice.text)], usage, metrics)

    def opening(self) -> Iterator[bytes]:
        begun = self.response("in_progress", [], None, None)
        item: Json = {"id": self.item, "content": [], "role": "assistant", "status": "in_progress", "type": "message",
                "phase": None}
        part: Json = {"annotations": [], "text": "", "type": "output_text", "logprobs": []}
        yield self.event("created", response=begun)
        yield self.event("in_progress", response=begun)
        yield self.event("output_item.added", item=item, output_index=0)
        yield self.event("content_part.added", **self.place, part=part)

    def delta(self, choice: Choice) -> Iterator[bytes]:
        if choice.text:
            yield self.event("output_text.delta", **self.place, delta=choice.text, logprobs=[])

    def closing(self, choices: list[Choice], metrics: Json | None) -> Iterator[bytes]:
        item = self.message(choices[0].text)
        yield self.event("output_text.done", **self.place, logprobs=[], text=choices[0].text)
        yield self.event("content_part.done", **self.place, part=item["content"][0])
        yield self.event("output_item.done", item=item, output_index=0)
        yield self.event("completed", response=self.ended(choices[0], metrics))

    def whole(self, choices: list[Choice], metrics: Json | None) -> bytes:
        return orjson.dumps(self.ended(choices[0], metrics))
