"""An engine that speaks WebSocket with aiohttp's own server: an echo, and vLLM's `/v1/realtime` as its source has it.

The protocol is that of vllm/entrypoints/speech_to_text/realtime/connection.py (0.32): `session.created`, a model to be validated, a
commit that begins to transcribe what is appended, a delta for each token, the counts at the end. What is missing is the model.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

PROMPT_TOKENS = 39


@dataclass
class SpeakingEngine:
    """`/echo` says what it hears, `/v1/realtime` transcribes: each append becomes one token, after `step_s`."""

    step_s: float = 0.01
    port: int = 0
    handshakes: list[web.Request] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)  # a client of /v1/realtime is gone

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def echo(self, request: web.Request) -> web.WebSocketResponse:
        self.handshakes.append(request)
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        async for message in socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                await socket.send_str(message.data)
            else:
                await socket.send_bytes(message.data)
        return socket

    async def realtime(self, request: web.Request) -> web.StreamResponse:
        self.handshakes.append(request)
        if request.headers.get("Authorization") == "Bearer nobody":
            return web.json_response({"error": "Unauthorized"}, status=401)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(json.dumps({"type": "session.created", "id": "sess-1", "created": 1}))
        audio: asyncio.Queue[str | None] = asyncio.Queue()
        generation: asyncio.Task[None] | None = None
        is_validated = False
        try:
            async for message in socket:
                event = json.loads(message.data)
                if event["type"] == "session.update":
                    is_validated = True
                elif event["type"] == "input_audio_buffer.append":
                    audio.put_nowait(event["audio"])
                elif not is_validated:
                    await socket.send_str(json.dumps({"type": "error", "error": "Model not validated.", "code": "model_not_validated"}))
                elif event.get("final"):
                    audio.put_nowait(None)
                elif generation is None or generation.done():
                    generation = asyncio.create_task(self._transcribe(socket, audio))
        finally:
            if generation is not None:
                generation.cancel()
            self.ended.set()
        return socket

    async def _transcribe(self, socket: web.WebSocketResponse, audio: asyncio.Queue[str | None]) -> None:
        text = ""
        while (heard := await audio.get()) is not None:
            await asyncio.sleep(self.step_s)
            text += heard
            await socket.send_str(json.dumps({"type": "transcription.delta", "delta": heard}))
        tokens = len(text)
        usage = {"prompt_tokens": PROMPT_TOKENS, "total_tokens": PROMPT_TOKENS + tokens, "completion_tokens": tokens}
        await socket.send_str(json.dumps({"type": "transcription.done", "text": text, "usage": usage}))


@asynccontextmanager
async def speaking(step_s: float = 0.01, **more: Any) -> AsyncIterator[SpeakingEngine]:
    """A SpeakingEngine that listens on a port of its own; `more` is for its site, as TLS."""
    engine = SpeakingEngine(step_s)
    app = web.Application()
    app.router.add_get("/echo", engine.echo)
    app.router.add_get("/v1/realtime", engine.realtime)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, **more)
    await site.start()
    engine.port = runner.addresses[0][1]
    try:
        yield engine
    finally:
        await runner.cleanup()
