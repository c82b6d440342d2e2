"""ComfyUI as its `server.py` and `execution.py` answer: a queue by number, one prompt at a time, a history of what is over, a WebSocket.

Nothing is computed but time: a prompt runs for `took_s`, or until the test ends it. Its graph must have a node that puts something out.
"""

import asyncio
import heapq
import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from aiohttp import web

from tests.fakes.serving import serving


def graph(steps: int = 20, width: int = 1024, height: int = 1024, images: int = 1) -> dict[str, Any]:
    """The default workflow of a text-to-image model."""
    return {
        "3": {"class_type": "KSampler", "inputs": {"seed": 1, "steps": steps, "cfg": 8, "sampler_name": "euler", "scheduler": "normal",
                                                   "denoise": 1, "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0],
                                                   "latent_image": ["5", 0]}},
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd.safetensors"}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": width, "height": height, "batch_size": images}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "bad", "clip": ["4", 1]}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x", "images": ["8", 0]}},
    }


@dataclass
class ComfyUI:
    """`took_s` None: each runs until `ending` is set."""

    took_s: float | None = None
    url: str = ""
    fails: set[str] = field(default_factory=set)  # prompt ids that end in an error
    numbers: dict[str, float] = field(default_factory=dict)
    forgotten: set[str] = field(default_factory=set)
    history: dict[str, dict[str, Any]] = field(default_factory=dict)
    queue: list[tuple[float, int, str, dict[str, Any]]] = field(default_factory=list)
    running: tuple[float, int, str, dict[str, Any]] | None = None
    ending: asyncio.Event = field(default_factory=asyncio.Event)
    interrupted: bool = False
    ran: list[tuple[str, float, float]] = field(default_factory=list)  # which, from when to when, by the monotonic clock
    sockets: list[web.WebSocketResponse] = field(default_factory=list)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    _number: Any = field(default_factory=count)
    _place: Any = field(default_factory=count)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._note])
        routes = (("POST", "/prompt", self._post), ("GET", "/prompt", self._left), ("GET", "/queue", self._queue),
                  ("POST", "/queue", self._change), ("POST", "/interrupt", self._interrupt), ("GET", "/history", self._history),
                  ("GET", "/history/{id}", self._history), ("GET", "/view", self._view), ("GET", "/ws", self._socket))
        for method, path, handler in routes:
            app.router.add_route(method, path, handler)
            app.router.add_route(method, "/api" + path, handler)
        return app

    def history_of(self, prompt_id: str) -> dict[str, Any]:
        """As `GET /history/{id}` answers it."""
        answered: dict[str, Any] = json.loads(json.dumps({prompt_id: self.history[prompt_id]}))
        return answered

    def forget(self, prompt_id: str) -> None:
        """End the one that runs, and keep nothing of it."""
        self.forgotten.add(prompt_id)
        self.ending.set()

    async def work(self) -> None:
        """For ever: take the first of the queue, and run it."""
        while True:
            while not self.queue:
                self._news.clear()
                await self._news.wait()
            self.running = number, _, prompt_id, asked = heapq.heappop(self.queue)
            began = time.monotonic()
            messages: list[list[Any]] = [["execution_start", {"prompt_id": prompt_id, "timestamp": time.time_ns() // 1_000_000}]]
            await self._tell(messages[0][0], messages[0][1])
            self.ending.clear()
            self.interrupted = False
            with suppress(TimeoutError):
                await asyncio.wait_for(self.ending.wait(), self.took_s)
            word = "interrupted" if self.interrupted else "error" if prompt_id in self.fails else "success"
            messages.append([f"execution_{word}", {"prompt_id": prompt_id, "timestamp": time.time_ns() // 1_000_000}])
            self.ran.append((prompt_id, began, time.monotonic()))
            self.history[prompt_id] = {
                "prompt": [number, prompt_id, asked, {}, ["9"]], "outputs": {"9": {"images": [{"filename": "x.png"}]}},
                "status": {"status_str": "success" if word == "success" else "error", "completed": word == "success", "messages": messages}}
            if prompt_id in self.forgotten:
                del self.history[prompt_id]
            self.running = None
            await self._tell(messages[-1][0], messages[-1][1])

    async def _tell(self, kind: str, data: dict[str, Any]) -> None:
        for socket in self.sockets:
            await socket.send_json({"type": kind, "data": data})

    @web.middleware
    async def _note(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.asked.append((request.method, request.path, request.headers.get("User-Agent", "")))
        response: web.StreamResponse = await handler(request)
        return response

    async def _post(self, request: web.Request) -> web.Response:
        asks = await request.json()
        prompt = asks.get("prompt")
        if not prompt or not any(node.get("class_type", "").startswith("Save") for node in prompt.values()):
            return web.json_response({"error": {"type": "prompt_no_outputs", "message": "Prompt has no outputs"}, "node_errors": []},
                                     status=400)
        number = next(self._number)
        number = -number if asks.get("front") else number
        prompt_id = str(asks.get("prompt_id") or uuid.uuid4())
        self.numbers[prompt_id] = number
        heapq.heappush(self.queue, (number, next(self._place), prompt_id, prompt))
        self._news.set()
        return web.json_response({"prompt_id": prompt_id, "number": number, "node_errors": {}})

    async def _left(self, _: web.Request) -> web.Response:
        return web.json_response({"exec_info": {"queue_remaining": len(self.queue) + (self.running is not None)}})

    async def _queue(self, _: web.Request) -> web.Response:
        def shown(item: tuple[float, int, str, dict[str, Any]]) -> list[Any]:
            return [item[0], item[2], item[3], {}, ["9"]]

        return web.json_response({"queue_running": [shown(self.running)] if self.running else [],
                                  "queue_pending": [shown(item) for item in self.queue]})

    async def _change(self, request: web.Request) -> web.Response:
        asks = await request.json()
        if asks.get("clear"):
            self.queue.clear()
        gone = asks.get("delete", [])
        self.queue = [item for item in self.queue if item[2] not in gone]
        heapq.heapify(self.queue)
        return web.Response()

    async def _interrupt(self, _: web.Request) -> web.Response:
        self.interrupted = True
        self.ending.set()
        return web.Response()

    async def _history(self, request: web.Request) -> web.Response:
        prompt_id = request.match_info.get("id")
        if prompt_id is None:
            return web.json_response(self.history)
        return web.json_response({prompt_id: self.history[prompt_id]} if prompt_id in self.history else {})

    async def _view(self, _: web.Request) -> web.Response:
        return web.Response(body=b"\x89PNG" * 100, content_type="image/png")

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets.append(socket)
        await socket.send_json({"type": "status", "data": {"status": {"exec_info": {"queue_remaining": len(self.queue)}}, "sid": "1"}})
        async for _ in socket:
            pass
        self.sockets.remove(socket)
        return socket


@asynccontextmanager
async def comfyui(took_s: float | None = None) -> AsyncIterator[ComfyUI]:
    """Such a server, on a port of its own."""
    made = ComfyUI(took_s)
    async with serving(web.AppRunner(made.application(), access_log=None, shutdown_timeout=1.0)) as made.url:
        worker = asyncio.ensure_future(made.work())
        try:
            yield made
        finally:
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)
