"""Engines that say odd things of their jobs, and clients that ask oddly: bytes pass, each record ends once, the joules add up."""

import asyncio
import gzip
import json

import pytest

from perjoule.sidecar.record import Outcome
from tests.fakes.comfyui import comfyui, graph
from tests.fakes.sidecar import body_of, post, sidecar
from tests.fakes.upstream import CUT, answer, scripted
from tests.fakes.videos import videos

VIDEO = b'{"prompt":"a cat","seconds":"4"}'
QUEUED = b'{"id":"video_0","object":"video","status":"queued","progress":0}'


def get(path, *fields):
    return post(path, b"", *fields, method="GET")


def conserved(front):
    balance = front.service.meter.balance
    return balance.measured_uj == balance.requests_uj + balance.idle_uj + balance.unattributed_uj


@pytest.mark.parametrize("name", ['"' + "x" * 1_000_000 + '"', '"a/b"', '"a\\nb\\u0000"', '".."', '"video?x=1"', "7", '{"id": 1}', '""'])
async def test_a_job_with_a_name_that_nothing_can_be_asked_by(name):
    """Its creator gets the answer as it is; the record says why it ends here, and nobody is asked about such a thing."""
    said = b'{"id":%b,"object":"video","status":"queued"}' % name.encode()
    async with scripted([answer(said)]) as engine, sidecar(engine.url, engine="openai") as front:
        assert body_of(await front.send(post("/v1/videos", VIDEO))) == said
        (record,) = await front.records(1)
        assert (record.facts.outcome, record.facts.error_type, record.facts.job_id) == (Outcome.ERRORED, "job_unreadable", None)
        await asyncio.sleep(0.7)
        assert len(engine.requests) == 1
        assert not front.service.desk.jobs


async def test_a_creation_that_is_cut_has_created_nothing_that_we_know_of():
    async with scripted([answer(QUEUED)[:-20], CUT]) as engine, sidecar(engine.url, engine="openai") as front:
        await front.send(post("/v1/videos", VIDEO))
        (record,) = await front.records(1)
        assert (record.facts.outcome, record.facts.error_type) == (Outcome.ERRORED, "upstream_closed")


async def test_who_leaves_an_engine_that_answers_when_it_is_done_is_cancelled():
    """Some servers compute a video before they answer: for a client that has left they are not heard out for long."""
    async with scripted([30.0]) as engine, sidecar(engine.url, engine="openai") as front:
        _, writer = await front.connect()
        writer.write(post("/v1/videos", VIDEO))
        async with asyncio.timeout(10):
            while not engine.requests:
                await asyncio.sleep(0.02)
        writer.close()
        await asyncio.wait_for(engine.closed.wait(), 20)
        (record,) = await front.records(1)
        assert (record.facts.outcome, record.facts.error_type) == (Outcome.CANCELLED, "client_disconnected")


@pytest.mark.parametrize("junk", [b"", b"<html>", b"[]", b'{"id":"video_0","status":"sideways"}', b'{"id":"another","status":"completed"}',
                                  b'{"id":"video_0","status":["completed"]}', b'"completed"', b" " * 5_000_000 + QUEUED])
async def test_a_status_that_says_nothing_ends_nothing(junk):
    """Whatever it is, the client gets it byte for byte, and the job goes on until somebody says that it is over."""
    done = answer(b'{"id":"video_0","object":"video","status":"completed"}')
    async with scripted([answer(QUEUED)], [answer(junk)], [done]) as engine, sidecar(engine.url, engine="openai") as front:
        await front.send(post("/v1/videos", VIDEO))
        assert body_of(await front.send(get("/v1/videos/video_0"))) == junk
        assert not front.sink.records
        (record,) = await front.records(1)
        assert record.facts.outcome is Outcome.COMPLETED
        assert conserved(front)


async def test_a_status_that_goes_back_from_completed():
    """Over is over: the second thoughts of the engine reach the client and no record."""
    async with videos() as api, sidecar(api.url, engine="openai") as front:
        await front.send(post("/v1/videos", VIDEO))
        for status in ("in_progress", "completed", "in_progress", "failed", "completed"):
            api.jobs["video_0"]["status"] = status
            assert json.loads(body_of(await front.send(get("/v1/videos/video_0"))))["status"] == status
        (record,) = await front.records(1)
        assert record.facts.outcome is Outcome.COMPLETED
        await asyncio.sleep(0.5)
        assert len(front.sink.records) == 1
        assert conserved(front)


async def test_compressed_answers_are_read_and_pass_as_they_are():
    """An engine that compresses unasked."""
    queued, done = gzip.compress(QUEUED), gzip.compress(b'{"id":"video_0","status":"completed"}')
    script = [answer(queued, "content-encoding: gzip")], [answer(done, "content-encoding: gzip")]
    async with scripted(*script) as engine, sidecar(engine.url, engine="openai") as front:
        assert body_of(await front.send(post("/v1/videos", VIDEO, "Accept-Encoding: gzip"))) == queued
        asked = await front.send(get("/v1/videos/video_0", "Accept-Encoding: gzip, br", "X-Energy-Include: usage"))
        assert body_of(asked) == done  # nothing can be put into it
        assert b"X-Energy-Record" in asked
        (record,) = await front.records(1)
        assert record.facts.outcome is Outcome.COMPLETED


@pytest.mark.parametrize("path", ["/v1/videos/%76ideo_0", "/v1/videos/video_0/", "/v1/videos/video_0?x=%2F", "/v1/videos//video_0",
                                  "/v1/videos/x%2Fvideo_0", "/v1/videos/%2e%2e/videos/video_0", "/v1/videos/video_0%00"])
async def test_a_path_goes_on_as_it_came_however_it_is_written(path):
    async with scripted([answer(QUEUED)]) as engine, sidecar(engine.url, engine="openai") as front:
        await front.send(post("/v1/videos", VIDEO))
        assert body_of(await front.send(get(path))) == QUEUED
        assert any(request.startswith(f"GET {path} HTTP/1.1\r\n".encode()) for request in engine.requests)


async def test_two_prompts_of_one_name_are_two_records():
    """ComfyUI takes a name that the client chose: the earlier record ends when the name is given again, the later one when it is done."""
    body = json.dumps({"prompt": graph(), "prompt_id": "mine"}).encode()
    async with comfyui(0.4) as api, sidecar(api.url, engine="openai") as front:
        for _ in range(2):
            await front.send(post("/prompt", body))
        records = await front.records(2)
        assert [(record.facts.outcome, record.facts.error_type) for record in records] == [
            (Outcome.ERRORED, "job_id_reused"), (Outcome.COMPLETED, None)]
        assert len({record.facts.record_id for record in records}) == 2
        assert conserved(front)


async def test_hundreds_of_jobs_at_once_each_end_once():
    """Created together, done together, half of them asked about by clients, and a flood of other requests about ids that are nobody's."""
    async with videos() as api, sidecar(api.url, engine="openai") as front:
        await asyncio.gather(*(front.send(post("/v1/videos", VIDEO)) for _ in range(150)))
        assert len(api.jobs) == len(front.service.desk.jobs) == 150
        for job_id in api.jobs:
            api.begin(job_id)
        await asyncio.gather(*(front.send(get(f"/v1/videos/video_{number}")) for number in range(0, 300, 2)))
        for job_id in api.jobs:
            api.end(job_id)
        await asyncio.gather(*(front.send(get(f"/v1/videos/video_{number}")) for number in range(0, 300, 2)))
        records = await front.records(150, 40)
        assert {record.facts.outcome for record in records} == {Outcome.COMPLETED}
        assert sorted(record.facts.job_id for record in records) == sorted(api.jobs)
        assert conserved(front)
