"""What becomes of a request is told as it was: whole, cancelled, or failed for a reason that can be counted; and nothing is sent twice."""

import asyncio
import ssl
from contextlib import asynccontextmanager

import orjson
import pytest

from perjoule.bench.load.client import Client, phrase
from perjoule.bench.load.golden import Golden, Script
from perjoule.bench.load.job import AsGiven, Job, Task
from perjoule.bench.load.request import streamed
from perjoule.bench.load.schedule import Row
from perjoule.bench.workloads.workload import Turn
from tests.fakes.certificates import make_certificates
from tests.fakes.upstream import CUT, PAUSE, RESET, answer, chunked, scripted, sse, stream_head

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


@asynccontextmanager
async def golden(tls=None, scheme="http"):
    """Its URL, and its log."""
    log = []
    server = await asyncio.get_running_loop().create_server(lambda: Golden(Script(gap_ms=1), log), "127.0.0.1", 0, ssl=tls, backlog=4096)
    async with server:
        yield f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}", log


class Sent:
    """A client, and the samples of what it was told to send."""

    def __init__(self, url, **of):
        self.samples, self._came = [], asyncio.Event()
        self.client = Client(Job(url, "run", 0, [], AsGiven(), **of), self._landed)

    def _landed(self, task, sample):
        self.samples.append(sample)
        self._came.set()

    async def send(self, body, endpoint=CHAT, cancel_after_ns=None, count=1):
        """So many at once; the sample of the last one."""
        for _ in range(count):
            task = Task(Row(len(self.samples), 0, 0, 0, 0, cancel_after_ns), Turn(body=body, endpoint=endpoint, output_tokens=3))
            self.client.send(task, 0, self.client.requests(task))
        while self.client.in_flight:
            self._came.clear()
            await asyncio.wait_for(self._came.wait(), 20)
        return self.samples[-1]


async def told(body=None, endpoint=CHAT, cancel_after_ns=None, of=None, **script):
    """The sample and the server's own account of one request of a script."""
    async with golden() as (url, log):
        sent = Sent(url, **(of or {}))
        sample = await sent.send({"model": "m", "golden": script, **(body or {})}, endpoint, cancel_after_ns)
        sent.client.stop()
        await asyncio.sleep(0.01)
        assert len(log) == 1
        return sample, log[0], sent


@pytest.mark.parametrize("script", [
    {}, {"role_first": False}, {"tokens": 1}, {"tokens": 7, "per_chunk": 3}, {"empty_each": True}, {"splits_utf8": True}, {"burst": 4},
    {"stall_at": 3, "stall_ms": 30}, {"first_ms": 20}, {"tokens": 300, "gap_ms": 0}], ids=str)
@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
async def test_chunks_and_tokens_are_exact(script, endpoint):
    """As many chunks with content as the server wrote, each stamped after it was written, and the tokens that it counts."""
    sample, there, sent = await told(endpoint=endpoint, **script)
    start_ns = sent.client.start_ns
    assert (sample.outcome, sample.error, sample.http_status) == ("completed", None, 200)
    assert (sample.output_tokens, sample.input_tokens) == (there.tokens, 16) == (script.get("tokens", 16), 16)
    assert len(sample.chunk_ns) == len(there.sent_ns)
    assert all(came + start_ns >= went for came, went in zip(sample.chunk_ns, there.sent_ns, strict=True))
    assert sample.sent_ns + start_ns <= there.arrived_ns
    assert sample.sent_ns <= sample.first_byte_ns <= sample.first_token_ns == sample.chunk_ns[0]
    assert sample.last_token_ns == sample.chunk_ns[-1] <= sample.end_ns
    assert (sample.request_id, there.request_id, sample.record_id) == ("run-0", "run-0", "g-run-0")


async def test_the_first_token_is_not_the_role():
    """A role comes at once, the token later."""
    sample, _, _ = await told(first_ms=50, role_first=True)
    assert sample.first_token_ns - sample.first_byte_ns > 40e6


@pytest.mark.parametrize(("script", "error"), [
    ({"status": 504}, "504 Gateway Timeout"), ({"status": 503}, "503 Service Unavailable"), ({"status": 599}, "599"),
    ({"status": 307}, "307 Temporary Redirect"),
    ({"resets_at": 0}, "connection reset"), ({"resets_at": 5}, "connection reset"), ({"cuts_at": 5}, "connection closed in the answer"),
    ({"without_end": True}, "the stream broke off"), ({"fails_at": 2}, "error in the stream: golden")], ids=str)
@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
async def test_faults_are_told_apart(script, error, endpoint):
    """Each by a short text, the same for the same thing."""
    sample, _, _ = await told(endpoint=endpoint, **script)
    assert (sample.outcome, sample.error) == ("errored", error)
    assert sample.end_ns is not None
    assert sample.http_status == script.get("status", 200)


async def test_what_came_before_a_fault_is_kept():
    """Four tokens, and then a reset."""
    sample, there, _ = await told(resets_at=4, gap_ms=20)
    assert len(sample.chunk_ns) == len(there.sent_ns) == 4
    assert sample.output_tokens is None


async def test_an_answer_that_does_not_come_is_given_up():
    """After the limit, and the connection is closed."""
    sample, there, _ = await told(hangs=True, of={"timeout_s": 0.1})
    assert (sample.outcome, sample.error, there.ended) == ("errored", "timeout after 0.1 s", "left")


async def test_a_planned_cancellation_hangs_up():
    """The server sees that, and what had come is kept."""
    sample, there, _ = await told(tokens=1000, gap_ms=5, cancel_after_ns=100_000_000)
    assert (sample.outcome, sample.error, there.ended) == ("cancelled", None, "left")
    assert 0 < len(sample.chunk_ns) < 1000


async def test_an_answer_that_is_whole_before_its_cancellation_is_completed():
    """It was nothing to cancel any more."""
    sample, _, _ = await told(tokens=2, cancel_after_ns=10_000_000_000)
    assert sample.outcome == "completed"


async def test_usage_that_is_missing_is_missing():
    """And the answer is complete all the same."""
    sample, there, _ = await told(without_usage=True)
    assert (sample.outcome, sample.output_tokens, sample.input_tokens, there.tokens) == ("completed", None, None, 16)


@pytest.mark.parametrize(("endpoint", "body"), [(CHAT, {"stream": False}), ("/v1/embeddings", {}), ("/v1/images/generations", {})])
async def test_what_is_not_streamed_has_counts_and_no_chunks(endpoint, body):
    """Neither is a stream asked for."""
    sample, _, _ = await told(body, endpoint)
    assert (sample.outcome, sample.output_tokens, sample.chunk_ns, sample.first_token_ns) == ("completed", 16, [], None)
    assert sample.first_byte_ns is not None


async def test_stopping_leaves_what_is_in_flight_unfinished():
    """With what had come."""
    async with golden() as (url, _):
        sent = Sent(url)
        sending = asyncio.create_task(sent.send({"golden": {"tokens": 1000, "gap_ms": 5}}, count=3))
        await asyncio.sleep(0.1)
        sent.client.stop()
        await sending
    assert [sample.outcome for sample in sent.samples] == ["unfinished"] * 3
    assert all(sample.chunk_ns for sample in sent.samples)


@pytest.mark.parametrize(("script", "outcome", "error"), [
    ([CUT], "errored", "connection closed before the answer"), ([RESET], "errored", "connection reset"),
    ([b"nonsense\r\n\r\n"], "errored", "the answer is not HTTP/1.1"),
    ([stream_head() + b"5\r\ndata:"], "errored", "connection closed in the answer"),
    ([b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + sse('{"choices":[{"text":"a"}]}', "[DONE]")], "completed", None),
    ([b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + sse('{"choices":[{"text":"a"}]}')],
     "errored", "the stream broke off"),
    ([b"HTTP/1.1 100 Continue\r\n\r\n", PAUSE, stream_head() + chunked(sse('{"choices":[{"text":"a"}]}', "[DONE]"))], "completed", None)])
async def test_what_is_on_the_wire_decides(script, outcome, error):
    """Bodies that end with their connection, interim answers, and what is no HTTP."""
    async with scripted([*script, CUT]) as engine:
        sample = await Sent(engine.url).send({"x": 1})
        assert len(engine.requests) == 1  # never again
    assert (sample.outcome, sample.error) == (outcome, error)


async def test_nobody_there():
    """A port that nobody listens at."""
    async with golden() as (url, _):
        pass
    sample = await Sent(url).send({})
    assert (sample.outcome, sample.error) == ("errored", "connection refused")


async def test_connections_are_kept():
    """Twenty requests, one after the other: the one that was first, and the spares."""
    async with scripted([answer(b"{}")]) as engine:
        sent = Sent(engine.url)
        for _ in range(20):
            await sent.send({"stream": False})
        sent.client.stop()
        assert len(engine.requests) == 20
        assert engine.connections <= 4


async def test_as_many_as_wanted_are_under_way_at_once():
    """300 at a time are on the server at a time: no pool holds them back."""
    async with golden() as (url, log):
        sent = Sent(url)
        await sent.send({"golden": {"tokens": 1, "first_ms": 500}}, count=300)
        sent.client.stop()
    assert len(log) == 300
    assert max(one.arrived_ns for one in log) < min(one.sent_ns[0] for one in log)


async def test_https_is_checked(tmp_path):
    """With the authority it is known, without it the request fails and says so."""
    certificates = make_certificates(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificates("server.pem"), certificates("server.key"))
    async with golden(tls, "https") as (url, _):
        known, stranger = Sent(url, ca_file=certificates("ca.pem")), Sent(url)
        assert (await known.send({})).outcome == "completed"
        assert (await stranger.send({})).error == "TLS: CERTIFICATE_VERIFY_FAILED"
        known.client.stop()


async def test_keys_and_paths_are_sent():
    """Headers as given, the path behind the URL's own."""
    async with scripted([answer(b"{}")]) as engine:
        await Sent(engine.url + "/llm", headers={"Authorization": "Bearer k"}).send({"stream": False})
        head, _, body = engine.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /llm/v1/chat/completions HTTP/1.1\r\n")
    assert b"\r\nAuthorization: Bearer k\r\n" in head
    assert orjson.loads(body) == {"stream": False}


def test_what_is_asked_for():
    """Streams and usage where there are such; what a body says itself stays."""
    assert streamed(CHAT, {"a": 1}) == {"a": 1, "stream": True, "stream_options": {"include_usage": True}}
    assert streamed(CHAT, {"stream_options": {"x": 1}})["stream_options"] == {"x": 1, "include_usage": True}
    assert streamed("/v1/messages", {}) == {"stream": True}
    assert streamed("/v1/images/generations", {"n": 1}) == {"n": 1}
    assert streamed(CHAT, {"stream": False}) == {"stream": False}


def test_a_url_that_is_none_is_refused():
    """Before anything is sent."""
    with pytest.raises(ValueError, match="ftp"):
        Client(Job("ftp://x", "run", 0, [], AsGiven()), lambda task, sample: None)
    assert phrase(404) == "404 Not Found"


async def test_connections_may_be_opened_ahead():
    """Then no request waits for a handshake; that nobody is there is told by the requests."""
    async with scripted([answer(b"{}")]) as engine:
        sent = Sent(engine.url.replace("127.0.0.1", "localhost"))
        await sent.client.warm(20)
        await sent.send({"stream": False}, count=17)
        sent.client.stop()
        assert (len(engine.requests), engine.connections) == (17, 20)
    away = Sent(engine.url)
    await away.client.warm(3)
    assert (await away.send({})).error == "connection refused"
