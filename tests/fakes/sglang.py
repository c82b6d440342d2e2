"""A server that answers as SGLang does with --enable-metrics, by its source: its own `/generate`, OpenAI's chat, what it says of itself.

A prompt's tokens are its words, of which those of the last prompt that begins alike are cached. It keeps the bodies that it got, counts
what it generated, and who left.
"""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator

from aiohttp import web

MODEL = "org/tiny"
SAID = {"model_path": MODEL, "max_running_requests": None, "dp_size": 1, "enable_dp_attention": False, "disaggregation_mode": "null",
        "dtype": "bfloat16", "quantization": None, "version": "0.5.20",
        "internal_states": [{"last_gen_throughput": 129.3, "effective_max_running_requests_per_dp": 32}]}


class Sglang:
    """The server: `batch` generate at a time, a token each `token_s`, `interval` of them to an event (`--stream-interval`)."""

    def __init__(self, token_s: float = 0.005, interval: int = 1, cache_report: bool = True, batch: int = 2) -> None:
        self._places = asyncio.Semaphore(batch)
        self.token_s, self.interval, self.cache_report = token_s, interval, cache_report
        self.generated, self.left, self.running = 0, 0, 0
        self.bodies: list[bytes] = []
        self._cached: list[str] = []

    def app(self) -> web.Application:
        """Its routes."""
        app = web.Application()
        app.add_routes([web.post("/generate", self.generate), web.post("/v1/chat/completions", self.chat),
                        web.get("/v1/models", self.models), web.get("/metrics", self.metrics),
                        web.get("/server_info", self.info), web.get("/get_server_info", self.info)])
        return app

    async def info(self, _: web.Request) -> web.Response:
        return web.json_response(SAID)

    async def models(self, _: web.Request) -> web.Response:
        card = {"id": MODEL, "object": "model", "created": 1706270835, "owned_by": "sglang", "root": MODEL, "parent": None,
                "max_model_len": 4096}
        return web.json_response({"object": "list", "data": [card]})

    async def metrics(self, _: web.Request) -> web.Response:
        labels = f'{{engine_type="unified",model_name="{MODEL}",pp_rank="0",tp_rank="0"}}'
        return web.Response(text=f"# TYPE sglang:num_running_reqs gauge\nsglang:num_running_reqs{labels} {self.running}\n"
                                 f"# TYPE sglang:num_queue_reqs gauge\nsglang:num_queue_reqs{labels} 0\n")

    async def generate(self, request: web.Request) -> web.StreamResponse:
        """Its own API: one prompt or several; a stream shows all that was said so far, in each event."""
        self.bodies.append(await request.read())
        asked = json.loads(self.bodies[-1])
        prompts = asked["text"] if isinstance(asked["text"], list) else [asked["text"]]
        most = asked.get("sampling_params", {}).get("max_new_tokens", 128)
        if most < 0:
            return web.json_response({"error": {"message": "max_new_tokens must be at least 0"}}, status=400)
        if not asked.get("stream"):
            said = [[answer async for answer in self._answers(prompt, most, 1)][-1] for prompt in prompts]
            return web.json_response(said if isinstance(asked["text"], list) else said[0])
        response = await _stream(request)
        for index, prompt in enumerate(prompts):
            async for answer in self._answers(prompt, most, self.interval):
                await response.write(_event(answer | ({"index": index} if len(prompts) > 1 else {})))
        await response.write(b"data: [DONE]\n\n")
        return response

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """OpenAI's; `usage` is null in every event but the last, which is there if it was asked for."""
        self.bodies.append(await request.read())
        asked = json.loads(self.bodies[-1])
        prompt, most = " ".join(message["content"] for message in asked["messages"]), asked.get("max_tokens", 128)
        common = {"id": "a1b2", "created": 1706270835, "model": MODEL}
        if not asked.get("stream"):
            last = [answer async for answer in self._answers(prompt, most, 1)][-1]
            message = {"role": "assistant", "content": last["text"], "reasoning_content": None, "tool_calls": None}
            return web.json_response({"object": "chat.completion", **common, "choices": [{
                "index": 0, "message": message, "logprobs": None, "finish_reason": "length", "matched_stop": None}],
                "usage": self._usage(last["meta_info"]), "metadata": {"weight_version": "default"}})
        response = await _stream(request)
        options = asked.get("stream_options") or {}

        async def send(choices: list, usage: dict | None = None) -> None:
            await response.write(_event({"object": "chat.completion.chunk", **common, "choices": choices, "usage": usage}))

        def choice(content: str | None, finish: str | None = None, **role: str) -> dict:
            delta = {**role, "content": content, "reasoning_content": None, "tool_calls": None}
            return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish, "matched_stop": None}

        await send([choice("", role="assistant")])
        shown = 0
        async for answer in self._answers(prompt, most, self.interval):
            running = self._usage(answer["meta_info"]) if options.get("continuous_usage_stats") else None
            await send([choice(answer["text"][shown:])], running)
            shown = len(answer["text"])
        await send([choice(None, "length")])
        if options.get("include_usage"):
            await send([], self._usage(answer["meta_info"]))
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _answers(self, prompt: str, most: int, interval: int) -> AsyncIterator[dict]:
        """What it has said after each interval; whoever leaves is not generated for."""
        words, arrived_s = prompt.split(), time.monotonic()
        await self._places.acquire()
        waited_s = time.monotonic() - arrived_s
        cached = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(words, self._cached, strict=False)))
        self._cached, text = words, ""
        self.running += 1
        try:
            for number in range(1, most + 1):
                await asyncio.sleep(self.token_s)
                text += f" w{number}"
                self.generated += 1
                if number % interval == 0 or number == most:
                    finish = {"type": "length", "length": most} if number == most else None
                    yield {"text": text, "output_ids": list(range(number)), "meta_info": {
                        "id": "a1b2", "finish_reason": finish, "prompt_tokens": len(words), "weight_version": "default",
                        "total_retractions": 0, "reasoning_tokens": 0, "completion_tokens": number, "cached_tokens": cached}
                        | ({"e2e_latency": time.monotonic() - arrived_s, "queue_time": waited_s} if finish else {})}
        except (GeneratorExit, asyncio.CancelledError, ConnectionError):
            self.left += 1
            raise
        finally:
            self.running -= 1
            self._places.release()

    def _usage(self, meta: dict) -> dict:
        details = {"cached_tokens": meta["cached_tokens"]} if self.cache_report else None
        return {"prompt_tokens": meta["prompt_tokens"], "total_tokens": meta["prompt_tokens"] + meta["completion_tokens"],
                "completion_tokens": meta["completion_tokens"], "prompt_tokens_details": details, "reasoning_tokens": 0}


async def _stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)
    return response


def _event(data: dict) -> bytes:
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"
