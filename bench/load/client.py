"""Sends requests at their time and fills a sample for each: what was sent, when what came, and how it ended. Nothing is ever sent twice."""

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus

from perjoule.bench.load.answer import StreamAnswer, WholeAnswer
from perjoule.bench.load.connection import Connection, Pool, text_of
from perjoule.bench.load.job import Job, Task
from perjoule.bench.load.request import Requests
from perjoule.bench.load.sample import Sample
from perjoule.sidecar.dialects.endpoints import Dialect, endpoint_of
from perjoule.sidecar.units import NS_PER_S


class Flight:
    """One request from its send to its end."""

    __slots__ = ("_answer", "_client", "_connection", "_limits", "_status", "first_byte_ns", "intended_ns", "outcome", "sample", "sent_ns",
                 "task")

    def __init__(self, client: "Client", task: Task, intended_ns: int) -> None:
        self._client, self.task, self.intended_ns = client, task, intended_ns
        self._answer: StreamAnswer | WholeAnswer | None = None
        self._connection: Connection | None = None
        self._limits: list[asyncio.TimerHandle] = []
        self._status = 200
        self.sent_ns = time.monotonic_ns()
        self.first_byte_ns: int | None = None
        row, turn = task
        self.sample = Sample(row.index, intended_ns, 0, wanted_input_tokens=turn.input_tokens, wanted_output_tokens=turn.output_tokens,
                             request_id=client.requests.id(row.index), session=turn.session, client=client.number)

    def send(self, connection: Connection, request: bytes) -> None:
        """On its way now; from here on it may be cancelled, and waits only so long."""
        loop = asyncio.get_running_loop()
        self._connection = connection
        self.sent_ns = time.monotonic_ns()
        connection.ask(request, self)
        self._limits.append(loop.call_later(self._client.timeout_s, self._give_up))
        if (cancel_ns := self.task.row.cancel_after_ns) is not None:
            self._limits.append(loop.call_later(cancel_ns / NS_PER_S, self.leave, "cancelled"))

    def leave(self, outcome: str, error: str | None = None) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.abandon()
        self.end(outcome, error, time.monotonic_ns())

    def _give_up(self) -> None:
        self.leave("errored", f"timeout after {self._client.timeout_s:g} s")

    # what its connection tells

    def head(self, status: int, fields: Mapping[bytes, bytes]) -> None:
        self._status = self.sample.http_status = status
        if fields.get(b"content-type", b"").lower().startswith(b"text/event-stream"):
            endpoint = endpoint_of("POST", self.task.turn.endpoint)
            self._answer = StreamAnswer(endpoint.dialect if endpoint is not None else Dialect.OTHER)
        else:
            self._answer = WholeAnswer()
        if (record := fields.get(b"x-energy-record")) is not None:
            self.sample.record_id = record.decode("latin-1").rpartition("/")[2]

    def body(self, data: bytes, now_ns: int) -> None:
        if self.first_byte_ns is None:
            self.first_byte_ns = now_ns
        assert self._answer is not None
        self._answer.feed(data, now_ns)

    def ended(self, now_ns: int) -> None:
        error = None if 200 <= self._status < 300 else phrase(self._status)
        self.end("completed" if error is None else "errored", error, now_ns)

    def lost(self, error: str, now_ns: int) -> None:
        self.end("errored", error, now_ns)

    def end(self, outcome: str, error: str | None, now_ns: int) -> None:
        """The sample is filled, and told."""
        for limit in self._limits:
            limit.cancel()
        sample, answer, start_ns = self.sample, self._answer, self._client.start_ns
        if answer is not None:
            usage = answer.finish(now_ns)
            sample.input_tokens, sample.output_tokens, sample.cached_tokens = usage.input_tokens, usage.output_tokens, usage.cached_tokens
            sample.chunk_ns = [ns - start_ns for ns in answer.chunk_ns]
            if sample.chunk_ns:
                sample.first_token_ns, sample.last_token_ns = sample.chunk_ns[0], sample.chunk_ns[-1]
            if outcome == "completed" and answer.error is not None:
                outcome, error = "errored", answer.error
            elif outcome == "completed" and not answer.is_ended:
                outcome, error = "errored", "the stream broke off"
        sample.sent_ns, sample.end_ns = self.sent_ns - start_ns, now_ns - start_ns
        sample.first_byte_ns = None if self.first_byte_ns is None else self.first_byte_ns - start_ns
        sample.outcome, sample.error = outcome, error
        self._client.landed(self)


class Client:
    """Sends one process's requests, and tells each sample to `done`, with what its request was."""

    def __init__(self, job: Job, done: Callable[[Task, Sample], None]) -> None:
        """Raises ValueError for a URL that is none, or that is a socket's."""
        self.requests = Requests(job)
        self.number, self.timeout_s = job.client, job.timeout_s
        self.start_ns = time.monotonic_ns()  # the schedule's 0; set anew when the run begins
        self._done = done
        tls = ssl.create_default_context(cafile=job.ca_file) if self.requests.is_tls else None
        self._pool = Pool(self.requests.host, self.requests.port, tls, self.requests.host if tls else None)
        self._flights: set[Flight] = set()
        self._connecting: set[asyncio.Task[None]] = set()

    async def warm(self, count: int) -> None:
        """Open so many connections, if it can."""
        await self._pool.warm(count)

    def send(self, task: Task, intended_ns: int, request: bytes) -> None:
        """Send it now; `intended_ns` is when it should have been, since the start."""
        flight = Flight(self, task, intended_ns)
        self._flights.add(flight)
        connection = self._pool.take(time.monotonic_ns())
        if connection is not None:
            flight.send(connection, request)
        else:
            connecting = asyncio.get_running_loop().create_task(self._connect(flight, request))
            self._connecting.add(connecting)
            connecting.add_done_callback(self._connecting.discard)

    async def _connect(self, flight: Flight, request: bytes) -> None:
        try:
            connection = await self._pool.connect()
        except TimeoutError:
            error = "connection timeout"
        except OSError as reason:
            error = text_of(reason)
        else:
            if flight in self._flights:
                flight.send(connection, request)
            else:
                connection.abandon()
            return
        if flight in self._flights:
            flight.end("errored", error, time.monotonic_ns())

    def landed(self, flight: Flight) -> None:
        """It has ended."""
        if flight in self._flights:
            self._flights.remove(flight)
            self._done(flight.task, flight.sample)

    @property
    def in_flight(self) -> int:
        return len(self._flights)

    def stop(self) -> None:
        """Hang up on everything: what has not ended is unfinished."""
        for flight in list(self._flights):
            flight.leave("unfinished")
        for connecting in self._connecting:
            connecting.cancel()
        self._pool.close()


def phrase(status: int) -> str:
    """`504 Gateway Timeout`, whatever the server calls it."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
