r"""Ray Serve with vLLM on the nodes of a cluster, perjoule in front of each engine, and all records in one ledger:

    serve run --working-dir . app:build model=Qwen/Qwen3-8B replicas=4 boards=1 ledger=postgresql://… \
        energy=meter:unix:/run/perjoule-meter/meter.sock

A replica is an engine on the boards that Ray gave it. It starts `vllm serve` and a sidecar beside itself, and hands requests to the
sidecar; Ray decides on which node that is, and which replica a request goes to. On each node `energy` reads the boards: `auto`, where
Ray's workers see them, or the node's meter. (`ray.serve.llm` has vLLM inside its replicas, where nothing can stand in front of it.)
"""

import asyncio
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator

import aiohttp
from ray import serve
from starlette.requests import Request
from starlette.responses import StreamingResponse

HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "host", "content-length"}
START_S = 1800.0


def boards() -> str:
    """Those that Ray gave this replica, by UUID."""
    given = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    if not given:
        return ""
    import pynvml

    pynvml.nvmlInit()
    return ",".join(name if name.startswith("GPU-") else pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(int(name)))
                    for name in given)


@serve.deployment(max_ongoing_requests=512, graceful_shutdown_timeout_s=120)
class Engine:
    """One vLLM, and the sidecar in front of it; they speak over unix sockets, so no port can be taken."""

    async def __init__(self, model: str, tensor_parallel_size: int, ledger: str, energy: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        engine, sidecar, admin = (f"{self._folder.name}/{name}.sock" for name in ("engine", "sidecar", "admin"))
        self._processes = [subprocess.Popen(
            ["vllm", "serve", model, "--uds", engine, "--tensor-parallel-size", str(tensor_parallel_size), "--enable-per-request-metrics"],
            env=os.environ | {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"})]  # as NVML and Ray count them
        self._processes.append(subprocess.Popen(
            ["perjoule", "serve", "--upstream", f"unix:{engine}", "--listen", f"unix:{sidecar}", "--admin", f"unix:{admin}",
             "--energy", energy, "--gpus", boards() or "all", "--ledger", ledger, "--calibrations", f"{self._folder.name}/learned"]))
        self._session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(sidecar, limit=0), auto_decompress=False,
                                              timeout=aiohttp.ClientTimeout(total=None))
        async with asyncio.timeout(START_S), aiohttp.ClientSession(connector=aiohttp.UnixConnector(admin)) as operator:
            while not await self._is_ready(operator):
                self.check_health()
                await asyncio.sleep(0.5)

    async def __call__(self, request: Request) -> StreamingResponse:
        """The request, to the sidecar, and what it answers."""
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        headers = [(name, value) for name, value in request.headers.items() if name not in HOP]
        answer = await self._session.request(request.method, f"http://sidecar{path}", headers=headers, data=await request.body())
        return StreamingResponse(self._body(answer), answer.status, {name: value for name, value in answer.headers.items()
                                                                     if name.lower() not in HOP})

    def check_health(self) -> None:
        """Ray starts another replica where one of the two has ended."""
        for process in self._processes:
            if process.poll() is not None:
                raise RuntimeError(f"{process.args!r} has ended with {process.returncode}")

    def __del__(self) -> None:
        """Ray has let the requests come to their end: the engine goes, then the sidecar, which stores its last records."""
        for process in getattr(self, "_processes", []):
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()

    async def _is_ready(self, operator: aiohttp.ClientSession) -> bool:
        try:
            async with operator.get("http://sidecar/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    async def _body(self, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        try:
            async for piece in answer.content.iter_any():
                yield piece
        finally:
            answer.close()  # also where the client has left: the engine then stops


def build(args: dict[str, str]) -> serve.Application:
    """What `serve run` is told after the name."""
    count = int(args.get("boards", "1"))
    engine = Engine.options(num_replicas=int(args.get("replicas", "1")), ray_actor_options={"num_cpus": 1, "num_gpus": count})
    return engine.bind(args["model"], max(count, 1), args["ledger"], args.get("energy", "auto"))
