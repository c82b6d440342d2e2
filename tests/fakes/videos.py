"""A server of videos by the published shapes: OpenAI's Videos API, vLLM-Omni's with its measured times, SGLang's that says `deleted`.

Nothing is computed: a test moves each job on. It counts who asked, and may ask for a key itself.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from aiohttp import web

from tests.fakes.serving import serving

KINDS = ("openai-images", "vllm-omni", "sglang-diffusion")  # the last word on each: POST /v1/videos and what follows


@dataclass
class Videos:
    """`jobs` by id, as GET answers them; `asked` are the (method, path, user agent) of requests so far."""

    kind: str = "openai-images"
    key: str | None = None
    answers_after_s: float = 0.0  # a creation
    runner: web.AppRunner | None = None
    url: str = ""
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    ids: Any = field(default_factory=lambda: (f"video_{number}" for number in count()))

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._note])
        app.add_routes([web.post("/v1/videos", self._create), web.get("/v1/videos/{id}", self._look),
                        web.get("/v1/videos/{id}/content", self._content), web.delete("/v1/videos/{id}", self._delete),
                        web.post("/v1/responses", self._create), web.get("/v1/responses/{id}", self._look)])
        return app

    def begin(self, job_id: str) -> None:
        """Compute it."""
        self.jobs[job_id] |= {"status": "in_progress", "progress": 5, "began": time.monotonic()}

    def end(self, job_id: str, status: str = "completed") -> None:
        """It is over."""
        job, now = self.jobs[job_id], time.monotonic()
        job |= {"status": status, "progress": 100, "completed_at": _unix_s()}
        if status == "failed":
            job["error"] = {"message": "out of memory"} if self.kind == "sglang-diffusion" else {"code": "oom", "message": "out of memory"}
        elif self.kind != "openai-images":
            job["inference_time_s"] = now - job.get("began", now)

    async def close(self) -> None:
        """It dies."""
        assert self.runner is not None
        await self.runner.cleanup()

    def polls(self, agent: str) -> int:
        """How often that user agent has asked after jobs."""
        return sum(method == "GET" and who.startswith(agent) for method, _, who in self.asked)

    @web.middleware
    async def _note(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.asked.append((request.method, request.path, request.headers.get("User-Agent", "")))
        if self.key is not None and request.headers.get("Authorization") != f"Bearer {self.key}":
            return web.json_response({"error": {"message": "no such key"}}, status=401)
        response: web.StreamResponse = await handler(request)
        return response

    async def _create(self, request: web.Request) -> web.Response:
        asks = await request.json()
        await asyncio.sleep(self.answers_after_s)
        job_id = next(self.ids)
        self.jobs[job_id] = {"id": job_id, "object": "video", "model": asks.get("model", "m"), "status": "queued", "progress": 0,
                             "created_at": _unix_s(), "completed_at": None, "size": asks.get("size", "720x1280"),
                             "seconds": str(asks.get("seconds", "4")), "error": None}
        return self._said(job_id)

    def _said(self, job_id: str) -> web.Response:
        return web.json_response({name: value for name, value in self.jobs[job_id].items() if name != "began"})

    async def _look(self, request: web.Request) -> web.Response:
        job_id = request.match_info["id"]
        return self._said(job_id) if job_id in self.jobs else web.json_response({"error": {"message": "not found"}}, status=404)

    async def _content(self, request: web.Request) -> web.Response:
        job = self.jobs.get(request.match_info["id"])
        if job is None or job["status"] != "completed":
            return web.json_response({"error": {"message": "not ready"}}, status=404)
        return web.Response(body=b"\0mp4" * 1000, content_type="video/mp4")

    async def _delete(self, request: web.Request) -> web.Response:
        job = self.jobs.pop(request.match_info["id"], None)
        if job is None:
            return web.json_response({"error": {"message": "not found"}}, status=404)
        if self.kind == "sglang-diffusion":
            return web.json_response({name: value for name, value in job.items() if name != "began"} | {"status": "deleted"})
        return web.json_response({"id": job["id"], "object": "video.deleted", "deleted": True})


def _unix_s() -> int:
    return time.time_ns() // 1_000_000_000


@asynccontextmanager
async def videos(kind: str = "openai-images", **more: Any) -> AsyncIterator[Videos]:
    """Such a server, on a port of its own."""
    made = Videos(kind, **more)
    made.runner = web.AppRunner(made.application(), access_log=None, shutdown_timeout=1.0, handler_cancellation=False)
    async with serving(made.runner) as made.url:
        yield made
