"""A server that answers as Text Generation Inference does, by its OpenAPI document and its router's source: a batch, a queue, a token each
few milliseconds. It counts what it generated, and whom it was left by.

A prompt's tokens are its words. `<fail>` in it breaks generation after three tokens, `<stop>` ends it with the
fifth, which is the special token for the end; `<overload>` is refused.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from aiohttp import web

MODEL = "org/tiny"
INFO = {"model_id": MODEL, "model_sha": None, "model_pipeline_tag": "text-generation", "max_concurrent_requests": 128, "max_best_of": 2,
        "max_stop_sequences": 4, "max_input_tokens": 64, "max_total_tokens": 128, "validation_workers": 2, "max_client_batch_size": 4,
        "router": "text-generation-router", "version": "3.3.6-dev0", "sha": None, "docker_label": None}
KINDS = {422: ("validation", "Input validation error: `inputs` must have less than 64 tokens"), 429: ("overloaded", "Model is overloaded"),
         424: ("generation", "Request failed during generation: out of blocks"), 500: ("incomplete_generation", "Incomplete generation")}
IN_STREAMS = {"x-compute-type": "cpu", "x-accel-buffering": "no"}


class RefusedError(Exception):
    """No, with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(KINDS[status][1])
        self.status, self.kind = status, KINDS[status][0]

    def as_json(self) -> dict[str, str]:
        return {"error": str(self), "error_type": self.kind}


@dataclass
class Answer:
    """One generation: when it came, when its turn was, what it has said."""

    prompt_tokens: int
    most: int
    arrived_s: float = field(default_factory=time.monotonic)
    begun_s: float = 0.0
    tokens: list[dict] = field(default_factory=list)

    @property
    def details(self) -> dict:
        reason = "eos_token" if self.tokens and self.tokens[-1]["special"] else "length"
        return {"finish_reason": reason, "generated_tokens": len(self.tokens), "seed": None}

    @property
    def text(self) -> str:
        return "".join(token["text"] for token in self.tokens if not token["special"])

    @property
    def usage(self) -> dict:
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": len(self.tokens),
                "total_tokens": self.prompt_tokens + len(self.tokens)}

    def headers(self, characters: int) -> dict[str, str]:
        """What the head of an answer that is not streamed tells."""
        now_s = time.monotonic()
        times_s = {"total": now_s - self.arrived_s, "validation": 0.0, "queue": self.begun_s - self.arrived_s,
                   "inference": now_s - self.begun_s}
        return {"x-compute-type": "cpu", "x-compute-time": str(times_s["total"]), "x-compute-characters": str(characters),
                **{f"x-{name}-time": str(int(1000 * value_s)) for name, value_s in times_s.items()},
                "x-time-per-token": str(int(1000 * times_s["inference"] / len(self.tokens))), "x-prompt-tokens": str(self.prompt_tokens),
                "x-generated-tokens": str(len(self.tokens))}


class Tgi:
    """The server; `batch` generate at a time, a token each `token_s`."""

    def __init__(self, batch: int = 2, token_s: float = 0.005) -> None:
        self.token_s, self.generated, self.left, self.running, self.waiting = token_s, 0, 0, 0, 0
        self._places = asyncio.Semaphore(batch)

    def app(self) -> web.Application:
        """Its routes."""
        app = web.Application()
        app.add_routes([web.post("/generate", self.generate), web.post("/generate_stream", self.generate_stream),
                        web.post("/", self.compat), web.post("/v1/chat/completions", self.chat),
                        web.post("/v1/completions", self.completions),
                        web.get("/info", self.info), web.get("/v1/models", self.models), web.get("/health", self.health),
                        web.get("/metrics", self.metrics)])
        return app

    async def info(self, _: web.Request) -> web.Response:
        return web.json_response(INFO)

    async def models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": MODEL}]})

    async def health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def metrics(self, _: web.Request) -> web.Response:
        return web.Response(text=f"# TYPE tgi_batch_current_size gauge\ntgi_batch_current_size {self.running}\n"
                                 f"# TYPE tgi_queue_size gauge\ntgi_queue_size {self.waiting}\n")

    async def generate(self, request: web.Request) -> web.Response:
        return await self._whole(await request.json(), lambda body, _: body)

    async def compat(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        return await self._stream(request, asked) if asked.get("stream") else await self._whole(asked, lambda body, _: [body])

    async def generate_stream(self, request: web.Request) -> web.StreamResponse:
        return await self._stream(request, await request.json())

    async def chat(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        inputs = " ".join(message["content"] for message in asked["messages"])
        generic = {"inputs": inputs, "parameters": {"max_new_tokens": asked.get("max_tokens", 100), "details": True}}
        if not asked.get("stream"):
            return await self._whole(generic, lambda _, answer: self._named("chat.completion", [{
                "index": 0, "message": {"role": "assistant", "content": answer.text}, "logprobs": None, "finish_reason": "length"}],
                usage=answer.usage))
        return await self._stream(request, generic, openai=True, usage=(asked.get("stream_options") or {}).get("include_usage", False))

    async def completions(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        prompts = asked["prompt"] if isinstance(asked["prompt"], list) else [asked["prompt"]]
        parameters = {"max_new_tokens": asked.get("max_tokens", 100), "details": True}
        if asked.get("stream"):
            return await self._several(request, [{"inputs": prompt, "parameters": parameters} for prompt in prompts])
        generic = {"inputs": prompts[0], "parameters": parameters}
        return await self._whole(generic, lambda _, answer: self._named("text_completion", [{
            "index": 0, "text": answer.text, "logprobs": None, "finish_reason": "length"}], usage=answer.usage))

    async def _whole(self, asked: dict, shape) -> web.Response:
        """An answer in one piece."""
        try:
            answer = self._read(asked)
            async for _ in self._tokens(answer, asked):
                pass
        except RefusedError as refused:
            return web.json_response(refused.as_json(), status=refused.status)
        details = answer.details | {"prefill": [], "tokens": answer.tokens}
        body = {"generated_text": answer.text} | ({"details": details} if asked.get("parameters", {}).get("details") else {})
        return web.json_response(shape(body, answer), headers=answer.headers(len(asked["inputs"])))

    async def _several(self, request: web.Request, prompts: list[dict]) -> web.StreamResponse:
        """Completions of several prompts as one stream: the last event of each has its usage."""
        response = web.StreamResponse(headers=IN_STREAMS | {"content-type": "text/event-stream"})
        await response.prepare(request)
        for index, asked in enumerate(prompts):
            answer = self._read(asked)
            async for token in self._tokens(answer, asked):
                is_last = len(answer.tokens) == answer.most
                choice = {"index": index, "text": token["text"], "logprobs": None, "finish_reason": "length" if is_last else ""}
                await response.write(_event(self._named("text_completion", [choice], **({"usage": answer.usage} if is_last else {}))))
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _stream(self, request: web.Request, asked: dict, *, openai: bool = False, usage: bool = False) -> web.StreamResponse:
        """Events; what goes wrong is one of them, and the status 200."""
        response = web.StreamResponse(headers=IN_STREAMS | {"content-type": "text/event-stream", "cache-control": "no-cache",
                                                            "x-compute-characters": str(len(asked["inputs"]))})
        await response.prepare(request)
        with_details = asked.get("parameters", {}).get("details")
        try:
            answer = self._read(asked)
            async for token in self._tokens(answer, asked):
                is_last = len(answer.tokens) == answer.most
                details = answer.details | {"input_length": answer.prompt_tokens} if is_last and with_details else None
                event = {"index": len(answer.tokens), "token": token, "generated_text": answer.text if is_last else None,
                         "details": details}
                await response.write(_event(self._chunk(token, is_last) if openai else event))
            if usage:
                await response.write(_event(self._named("chat.completion.chunk", [], usage=answer.usage)))
        except RefusedError as refused:
            error = {"error": {"message": str(refused), "http_status_code": 422}} if openai else refused.as_json()
            await response.write(_event(error))
        if openai:
            await response.write(b"data: [DONE]\n\n")
        return response

    def _read(self, asked: dict) -> Answer:
        words = asked["inputs"].split()
        if len(words) > INFO["max_input_tokens"]:
            raise RefusedError(422)
        if "<overload>" in words:
            raise RefusedError(429)
        most = asked.get("parameters", {}).get("max_new_tokens", 100)
        return Answer(len(words), min(most, 5) if "<stop>" in words else most)

    async def _tokens(self, answer: Answer, asked: dict) -> AsyncIterator[dict]:
        """Generate, in turn; whoever leaves is not generated for."""
        self.waiting += 1
        try:
            await self._places.acquire()
        finally:
            self.waiting -= 1
        self.running += 1
        answer.begun_s = time.monotonic()
        try:
            for number in range(answer.most):
                await asyncio.sleep(self.token_s)
                if number == 3 and "<fail>" in asked["inputs"]:
                    raise RefusedError(424)
                ends = number == 4 and "<stop>" in asked["inputs"]
                answer.tokens.append({"id": number, "text": "</s>" if ends else f" w{number}", "logprob": -0.5, "special": ends})
                self.generated += 1
                yield answer.tokens[-1]
        except (GeneratorExit, asyncio.CancelledError, ConnectionError):
            self.left += 1
            raise
        finally:
            self.running -= 1
            self._places.release()

    def _chunk(self, token: dict, is_last: bool) -> dict:
        delta = {"role": "assistant", "content": "" if token["special"] else token["text"]}
        reason = ("stop" if token["special"] else "length") if is_last else None
        return self._named("chat.completion.chunk", [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}], usage=None)

    @staticmethod
    def _named(kind: str, choices: list, **more: object) -> dict:
        return {"object": kind, "id": "", "created": 1706270835, "model": MODEL, "system_fingerprint": "3.3.6-dev0-native",
                "choices": choices, **more}


def _event(data: dict) -> bytes:
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"
