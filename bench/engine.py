"""A server that speaks vLLM's dialect over a simulated GPU, so that all can be tried and checked without one.

`GET /simulated/counter` is its energy counter; `GET /simulated/energy` tells what each request truly cost, which no
real engine can. `python -m perjoule.bench.engine` prints `{"url": ...}` when it listens, and ends on SIGTERM.
"""

import argparse
import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from random import Random
from typing import Any

import orjson
import uvloop
from aiohttp import web

from perjoule.bench import dialect
from perjoule.bench.answers import Answer, Chat, Completion, embeddings
from perjoule.bench.dialect import Asked
from perjoule.bench.generation import Generation
from perjoule.bench.named_events import Messages, Responses
from perjoule.bench.pages import created, health, id_of, json, models, refusing, tokenize, version
from perjoule.bench.simulator import PHYSICS, Sequence, Simulator, Token
from perjoule.sidecar.units import NS_PER_S

ANSWERS: dict[str, type[Answer]] = {dialect.CHAT: Chat, dialect.COMPLETIONS: Completion, dialect.MESSAGES: Messages,
                                    dialect.RESPONSES: Responses}


class Engine:
    """The server. `url` is where it listens, once it does."""

    url = ""

    def __init__(self, *, seed: int = 0, speed: float = 1.0, max_num_seqs: int = 64, per_request_metrics: bool = False,
                 physics: str = "linear") -> None:
        self.simulator = Simulator(time.monotonic_ns(), PHYSICS[physics].at_speed(speed), max_num_seqs=max_num_seqs)
        self._seed, self._per_request_metrics = seed, per_request_metrics
        self._uuid = f"SIM-{Random(seed).getrandbits(64):016x}"
        self._truth: dict[str, list[Sequence]] = {}
        self._queues: dict[Sequence, asyncio.Queue[Token]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def app(self) -> web.Application:
        """Its routes."""
        app = web.Application(middlewares=[refusing], client_max_size=1 << 28)
        app.add_routes([web.post(path, self.generate) for path in ANSWERS])
        app.add_routes([
            web.post(dialect.EMBEDDINGS, self.embed), web.post("/tokenize", tokenize), web.get("/v1/models", models),
            web.get("/health", health), web.get("/version", version), web.get("/metrics", self.metrics),
            web.get("/simulated/counter", self.counter), web.get("/simulated/energy", self.energy),
        ])
        return app

    def turn(self) -> int:
        """Bring the simulation up to now, hand out the tokens, and be back when the next are due. Returns now."""
        now_ns = time.monotonic_ns()
        for token in self.simulator.advance(now_ns):
            self._queues[token.sequence].put_nowait(token)
        if self._timer:
            self._timer.cancel()
        due_ns = self.simulator.next_ns
        self._timer = None if due_ns is None else asyncio.get_running_loop().call_later(
            (due_ns - now_ns) / NS_PER_S, self.turn)
        return now_ns

    @contextmanager
    def generating(self, request_id: str, asked: Asked) -> Iterator[Generation]:
        """The request in the simulator until the block ends: a client who leaves ends it at once."""
        generation = Generation(asked, Random(f"{self._seed} {request_id}"), self.simulator, self.turn())
        self._truth.setdefault(request_id, []).extend(generation.sequences)
        self._queues.update((sequence, generation.tokens) for sequence in generation.sequences)
        self.turn()
        try:
            yield generation
        finally:
            for sequence in generation.sequences:
                if not sequence.finished:
                    self.simulator.abort(sequence)
                del self._queues[sequence]

    async def generate(self, request: web.Request) -> web.StreamResponse:
        """Chat, completions, messages and responses, whole or streamed."""
        asked = dialect.read(request.path, await request.read())
        request_id = id_of(request)
        answer = ANSWERS[request.path](asked, request_id, created())
        with self.generating(request_id, asked) as generation:
            if asked.stream:
                return await self._stream(request, answer, generation)
            async for _ in generation.choices():
                pass
            return json(answer.whole(generation.whole(), self._metrics_of(generation)))

    async def _stream(self, request: web.Request, answer: Answer, generation: Generation) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        opening = list(answer.opening())  # goes out with the first token, as in vLLM
        async for choice in generation.choices():
            for event in (*opening, *answer.delta(choice)):
                await response.write(event)
            opening = []
        for event in answer.closing(generation.whole(), self._metrics_of(generation)):
            await response.write(event)
        await response.write_eof()
        return response

    def _metrics_of(self, generation: Generation) -> dict[str, float | None] | None:
        return generation.metrics() if self._per_request_metrics else None

    async def embed(self, request: web.Request) -> web.Response:
        """Vectors; each prompt is one prefill."""
        asked = dialect.read(request.path, await request.read())
        request_id = id_of(request)
        with self.generating(request_id, asked) as generation:
            async for _ in generation.choices():
                pass
        return json(embeddings(asked, request_id, created()))

    async def metrics(self, request: web.Request) -> web.Response:
        """The part of vLLM's Prometheus page that an observer of load needs."""
        self.turn()
        labels = f'{{engine="0",model_name="{dialect.MODEL}"}}'
        rows = (("gauge", "num_requests_running", len(self.simulator.running)),
                ("gauge", "num_requests_waiting", len(self.simulator.waiting)),
                ("counter", "prompt_tokens_total", self.simulator.prompt_tokens),
                ("counter", "generation_tokens_total", self.simulator.generation_tokens))
        text = "".join(f"# TYPE vllm:{name} {kind}\nvllm:{name}{labels} {float(value)}\n" for kind, name, value in rows)
        return web.Response(text=text)

    async def counter(self, request: web.Request) -> web.Response:
        """The board's cumulative energy and power, as of its last 100 ms tick."""
        now_ns = self.turn()
        energy_uj, power_mw = self.simulator.board.read(now_ns)
        return json(orjson.dumps({"t_ns": now_ns, "energy_uj": energy_uj, "power_mw": power_mw, "uuid": self._uuid,
                                  "name": "simulated H200"}))

    async def energy(self, request: web.Request) -> web.Response:
        """What each request truly cost (an equal part of what its steps shared, which is the truth where the physics are linear);
        `total_uj` is their sum and the idle joules."""
        self.turn()
        requests = {request_id: truth(sequences) for request_id, sequences in self._truth.items()}
        return json(orjson.dumps({"requests": requests, "idle_uj": self.simulator.idle_uj,
                                  "total_uj": self.simulator.board.total_uj}))


def truth(sequences: list[Sequence]) -> dict[str, int]:
    """One request's true cost and its tokens."""
    prefill_uj, decode_uj = sum(s.prefill_uj for s in sequences), sum(s.decode_uj for s in sequences)
    return {"energy_uj": prefill_uj + decode_uj, "prefill_uj": prefill_uj, "decode_uj": decode_uj,
            "input_tokens": sum(s.input_tokens for s in sequences),
            "output_tokens": sum(s.generated for s in sequences)}


@asynccontextmanager
async def running_engine(host: str = "127.0.0.1", port: int = 0, **settings: Any) -> AsyncIterator[Engine]:
    """An engine that listens while the block runs; the settings are those of Engine."""
    engine = Engine(**settings)
    runner = web.AppRunner(engine.app(), access_log=None, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        engine.url = "http://{}:{}".format(*runner.addresses[0][:2])
        yield engine
    finally:
        await runner.cleanup()


async def serve(settings: dict[str, Any]) -> None:
    """Run an engine until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with running_engine(**settings) as engine:
        print(orjson.dumps({"url": engine.url}).decode(), flush=True)
        await stop.wait()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m perjoule.bench.engine", description=__doc__.partition("\n")[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0 takes any free one")
    parser.add_argument("--seed", type=int, default=0, help="of the lengths and words of the answers")
    parser.add_argument("--speed", type=float, default=1.0, help="0.25: everything takes four times longer")
    parser.add_argument("--max-num-seqs", type=int, default=64, help="sequences that run at once")
    parser.add_argument("--physics", choices=PHYSICS, default="linear", help="what a step takes and draws (default: linear)")
    parser.add_argument("--per-request-metrics", action="store_true", help="as vLLM's --enable-per-request-metrics")
    uvloop.run(serve(vars(parser.parse_args())))


if __name__ == "__main__":
    main()
