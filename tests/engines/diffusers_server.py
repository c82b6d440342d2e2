"""An OpenAI-shaped server of images and videos over a real diffusers pipeline, one job at a time, the others in a queue.

Runs in the environment of the engines: `python diffusers_server.py --port N [--pipeline sdxl] [--device cuda] [--dtype bfloat16]`.
A video is as many frames in one batch. What it answers has the shapes of OpenAI's Images and Videos APIs with vLLM-Omni's and
SGLang's further members. It draws simulated joules while it computes (`GET /simulated/counter`, for `--energy simulated:URL`), and
`GET /simulated/work` tells which job it computed from when to when, by the clock of this machine.
"""

import argparse
import asyncio
import base64
import contextlib
import io
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import torch
import uvicorn
from diffusers_pipelines import PIPELINES  # a neighbour: this file is run as a script
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

IDLE_MW, BUSY_MW = 100_000, 400_000
COUNTER_NS = 100_000_000
MOST_STEPS, MOST_IMAGES, MOST_PIXELS = 200, 10, 2048
FPS = 8


@dataclass(eq=False)
class Job:
    """One thing to compute; `done` is told from the computing thread."""

    id: str
    asked: dict[str, Any]
    images: int
    steps: int
    width: int
    height: int
    prompt: str
    seconds: float | None = None
    status: str = "queued"
    progress: int = 0
    created_at: int = field(default_factory=lambda: time.time_ns() // 10**9)
    completed_at: int | None = None
    began_ns: int | None = None
    ended_ns: int | None = None
    error: str | None = None
    gone: bool = False  # nobody wants it any more
    made: list[bytes] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def as_video(self) -> dict[str, Any]:
        """The object of the Videos API."""
        error = None if self.error is None else {"code": "generation_failed", "message": self.error}
        took_s = None if self.ended_ns is None or self.began_ns is None else (self.ended_ns - self.began_ns) / 1e9
        return {"id": self.id, "object": "video", "model": "tiny", "status": self.status, "progress": self.progress,
                "created_at": self.created_at, "completed_at": self.completed_at, "expires_at": None, "size": f"{self.width}x{self.height}",
                "seconds": f"{self.seconds:g}", "num_frames": self.images, "fps": FPS, "error": error, "inference_time_s": took_s}


class Worker:
    """The thread that computes, one job after the other in the order of arrival."""

    def __init__(self, pipeline: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._pipeline, self._loop = pipeline, loop
        self._waiting: deque[Job] = deque()
        self._wake = threading.Condition()
        self.jobs: dict[str, Job] = {}
        self.finished: list[Job] = []
        self._began_ns, self._busy_ns, self._busy_since_ns = time.monotonic_ns(), 0, 0
        threading.Thread(target=self._run, daemon=True).start()

    def put(self, job: Job) -> Job:
        with self._wake:
            self.jobs[job.id] = job
            self._waiting.append(job)
            self._wake.notify()
        return job

    def counter_uj(self) -> tuple[int, int]:
        """What has been drawn up to the last tick of 100 ms, and the power now in milliwatts."""
        with self._wake:
            now_ns = (time.monotonic_ns() - self._began_ns) // COUNTER_NS * COUNTER_NS + self._began_ns
            busy_ns = self._busy_ns + (max(0, now_ns - self._busy_since_ns) if self._busy_since_ns else 0)
            is_busy = bool(self._busy_since_ns)
        return (IDLE_MW * (now_ns - self._began_ns) + (BUSY_MW - IDLE_MW) * busy_ns) // 1_000_000, BUSY_MW if is_busy else IDLE_MW

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._waiting:
                    self._wake.wait()
                job = self._waiting.popleft()
                if not job.gone:
                    job.status, job.began_ns = "in_progress", time.monotonic_ns()
                    self._busy_since_ns = job.began_ns
            if not job.gone:
                self._compute(job)
            self._loop.call_soon_threadsafe(job.done.set)

    def _compute(self, job: Job) -> None:
        def step(pipeline: Any, number: int, _time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            job.progress = round(100 * (number + 1) / job.steps)
            pipeline._interrupt = job.gone
            if job.asked.get("fail_at_step") == number + 1:
                raise RuntimeError("asked to fail")
            return tensors

        try:
            seed = torch.Generator().manual_seed(int(job.asked.get("seed") or 0))
            images = self._pipeline(job.prompt, num_inference_steps=job.steps, width=job.width, height=job.height, generator=seed,
                                    num_images_per_prompt=job.images, callback_on_step_end=step).images
            job.made, ended = [_png(image) for image in images], "completed"
        except Exception as error:
            job.error, ended = str(error), "failed"
        if not job.gone:
            job.status = ended
        with self._wake:
            job.ended_ns, job.completed_at = time.monotonic_ns(), time.time_ns() // 10**9
            assert job.began_ns is not None
            self._busy_ns, self._busy_since_ns = self._busy_ns + job.ended_ns - job.began_ns, 0
            self.finished.append(job)


def _png(image: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


class Refused(HTTPException):
    """An answer in the shape of OpenAI's errors."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}})


def job_of(worker: Worker, asked: dict[str, Any], *, video: bool = False) -> Job:
    """What a request asks for. Raises Refused."""
    try:
        width, height = (int(number) for number in str(asked.get("size") or "128x128").split("x"))
        steps = int(asked.get("num_inference_steps") or 10)
        seconds = float(asked.get("seconds") or 1) if video else None
        images = int(asked.get("num_frames") or round((seconds or 0) * FPS)) if video else int(asked.get("n") or 1)
        prompt = str(asked["prompt"])
    except (KeyError, ValueError) as error:
        raise Refused(400, f"got a request that cannot be read: {error!r}") from error
    if not (1 <= steps <= MOST_STEPS and 1 <= images <= MOST_IMAGES * (FPS if video else 1)):
        raise Refused(400, f"got {steps} steps and {images} images, expected 1 to {MOST_STEPS} and 1 to {MOST_IMAGES}")
    if not all(0 < side <= MOST_PIXELS and side % 16 == 0 for side in (width, height)):
        raise Refused(400, f"got {width}x{height}, expected multiples of 16 up to {MOST_PIXELS}")
    name = f"{'video' if video else 'img'}_{len(worker.jobs)}"
    return Job(name, asked, images, steps, width, height, prompt, images / FPS if video else None)


async def fields_of(request: Request) -> dict[str, Any]:
    """A JSON body, or the texts of a form."""
    if request.headers.get("content-type", "").startswith("multipart/"):
        return {name: value for name, value in (await request.form()).items() if isinstance(value, str)}
    with contextlib.suppress(ValueError):
        if isinstance(body := await request.json(), dict):
            return body
    raise Refused(400, "got no JSON object")


def application(name: str, device: str, dtype: str) -> FastAPI:
    """The server, which makes its pipeline while it starts."""
    workers: list[Worker] = []

    @contextlib.asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        torch.set_num_threads(1)
        pipeline = PIPELINES[name](device, getattr(torch, dtype))
        pipeline.set_progress_bar_config(disable=True)
        workers.append(Worker(pipeline, asyncio.get_running_loop()))
        yield

    app = FastAPI(lifespan=life)

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return JSONResponse(error.detail, error.status_code)

    @app.get("/health")
    async def health() -> Response:
        return Response()

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": name, "object": "model", "created": 0, "owned_by": "diffusers"}]}

    @app.get("/simulated/counter")
    def counter() -> dict[str, Any]:
        energy_uj, power_mw = workers[0].counter_uj()
        return {"energy_uj": energy_uj, "power_mw": power_mw, "uuid": "diffusers", "name": "400 W while it computes"}

    @app.get("/simulated/work")
    async def work() -> dict[str, Any]:
        return {"jobs": [{"id": job.id, "prompt": job.prompt, "images": job.images, "steps": job.steps, "status": job.status,
                          "began_ns": job.began_ns, "ended_ns": job.ended_ns} for job in workers[0].finished]}

    add_images(app, workers)
    add_videos(app, workers)
    return app


def add_images(app: FastAPI, workers: list[Worker]) -> None:
    """The Images API: an answer when it is computed, or a stream of events; nothing more is computed for a client that has left."""

    @app.post("/v1/images/generations")
    @app.post("/v1/images/edits")
    async def images(request: Request) -> Response:
        asked = await fields_of(request)
        job = workers[0].put(job_of(workers[0], asked))
        if asked.get("stream") is True:
            return StreamingResponse(_events(job, request), media_type="text/event-stream")
        while not await _done(job, 0.05):
            if await request.is_disconnected():
                job.gone, job.status = True, "cancelled"
                return Response(status_code=499)
        if job.error is not None:
            return JSONResponse({"error": {"message": job.error, "type": "server_error", "param": None, "code": None}}, 500)
        data = [{"b64_json": base64.b64encode(png).decode(), "url": None, "revised_prompt": None} for png in job.made]
        return JSONResponse({"created": job.created_at, "data": data, "output_format": "png", "size": f"{job.width}x{job.height}",
                             "num_inference_steps": job.steps})


async def _events(job: Job, request: Request) -> AsyncIterator[str]:
    try:
        while not await _done(job, 0.2):
            yield ": computing\n\n"
        for png in job.made:
            text = base64.b64encode(png).decode()
            size = f"{job.width}x{job.height}"
            yield ('event: image_generation.completed\ndata: {"type":"image_generation.completed","b64_json":"' + text + '","created_at":'
                   + str(job.created_at) + ',"size":"' + size + '","output_format":"png"}\n\n')
        if job.error is not None:
            yield 'event: error\ndata: {"type":"error","error":{"type":"server_error","message":"it failed"}}\n\n'
    finally:
        if not job.done.is_set():
            job.gone, job.status = True, "cancelled"


async def _done(job: Job, for_s: float) -> bool:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(job.done.wait(), for_s)
    return job.done.is_set()


def add_videos(app: FastAPI, workers: list[Worker]) -> None:
    """The Videos API: a job is created, asked for, fetched and deleted; it is computed whether or not anybody asks."""

    def find(video_id: str) -> Job:
        if (job := workers[0].jobs.get(video_id)) is None or job.seconds is None or job.status == "deleted":
            raise Refused(404, f"got {video_id!r}, expected the id of a video")
        return job

    @app.post("/v1/videos")
    async def create(request: Request) -> dict[str, Any]:
        return workers[0].put(job_of(workers[0], await fields_of(request), video=True)).as_video()

    @app.post("/v1/videos/sync")
    async def at_once(request: Request) -> Response:
        job = workers[0].put(job_of(workers[0], await fields_of(request), video=True))
        while not await _done(job, 0.05):
            job.gone = job.gone or await request.is_disconnected()
        return Response(b"".join(job.made), 200 if job.made else 500, media_type="video/mp4")

    @app.get("/v1/videos/{video_id}")
    async def look(video_id: str) -> dict[str, Any]:
        return find(video_id).as_video()

    @app.get("/v1/videos/{video_id}/content")
    async def content(video_id: str) -> Response:
        job = find(video_id)
        if job.status != "completed":
            raise Refused(404, f"got a video that is {job.status}, expected a completed one")
        return Response(b"".join(job.made), media_type="video/mp4")

    @app.delete("/v1/videos/{video_id}")
    async def delete(video_id: str) -> dict[str, Any]:
        job = find(video_id)
        job.gone, job.status = True, "deleted"
        return {"id": video_id, "object": "video.deleted", "deleted": True}


if __name__ == "__main__":
    flags = argparse.ArgumentParser()
    flags.add_argument("--host", default="127.0.0.1")
    flags.add_argument("--port", type=int, required=True)
    flags.add_argument("--pipeline", choices=PIPELINES, default="tiny")
    flags.add_argument("--device", default="cpu")
    flags.add_argument("--dtype", default="float32")
    given = flags.parse_args()
    app = application(given.pipeline, given.device, given.dtype)
    uvicorn.run(app, host=given.host, port=given.port, access_log=False)
