"""Jobs through the whole sidecar, in front of servers of videos and of ComfyUI's by their contracts: charged from creation to completion,
though the HTTP request is long gone, whoever asks, and told to who asks."""

import asyncio
import json
import re
import time

import aiohttp
import pytest

from perjoule.adapters.ledger.store import Ledger
from perjoule.sidecar.access.doors import Doors
from perjoule.sidecar.access.keys import entry_for, read_keys
from perjoule.sidecar.dialects.jobs import Kind, State
from perjoule.sidecar.record import Outcome, Status
from perjoule.sidecar.settings.credentials import Credentials
from tests.fakes.comfyui import comfyui, graph
from tests.fakes.sidecar import body_of, post, sidecar
from tests.fakes.videos import KINDS, videos

WATTS = 400.0  # of SteadyCounter
RIM_J = 100.0  # windows at either end: the counter's beat is 20 ms, and a busy machine looks late
VIDEO = b'{"prompt":"a cat","seconds":"4","size":"1280x720","model":"m"}'
OURS = "perjoule"  # how the sidecar's own questions name themselves


def get(path, *fields):
    return post(path, b"", *fields, method="GET")


def fields_of(raw):
    """The X-Energy-* fields of an answer."""
    return {name.lower(): value for name, value in re.findall(rb"\r\n(X-Energy-[A-Za-z-]+): ([^\r]*)", raw.partition(b"\r\n\r\n")[0])}


async def until(condition, patience_s=20.0):
    async with asyncio.timeout(patience_s):
        while not condition():
            await asyncio.sleep(0.02)


async def counted(front):
    """The counter has shown a window: from now on it covers all."""
    await until(lambda: front.service.meter.balance.idle_uj)


async def create(front, path="/v1/videos", body=VIDEO, *fields):
    """The id of a new job, and its record's."""
    raw = await front.send(post(path, body, *fields))
    payload = json.loads(body_of(raw))
    return payload.get("prompt_id") or payload["id"], fields_of(raw)[b"x-energy-record"].decode().removeprefix("/energy/")


def prompt(**more):
    return json.dumps({"prompt": graph(**more), "client_id": "c"}).encode()


async def made(front, api, job_id, in_s):
    """ComfyUI makes this one, in so many seconds; when it was done, and when a client had heard so."""
    await until(lambda: api.running and api.running[2] == job_id)
    await asyncio.sleep(in_s)
    done_s = time.monotonic()
    api.ending.set()
    await until(lambda: job_id in api.history)
    await front.send(get(f"/history/{job_id}"))
    return done_s, time.monotonic()


def conserved(front):
    balance = front.service.meter.balance
    return balance.measured_uj == balance.requests_uj + balance.idle_uj + balance.unattributed_uj


def shows(*features, kinds=KINDS):
    return pytest.mark.parametrize("kind", [
        pytest.param(kind, marks=[pytest.mark.feature(kind, feature, "contract") for feature in features]) for kind in kinds])


@shows("jobs", "joules-per-unit")
async def test_a_video_is_charged_from_creation_to_completion(kind):
    """Nobody asks while it is made; the record has the energy of all that time, and whoever asks afterwards is told it."""
    async with videos(kind) as api, sidecar(api.url, engine="openai") as front:
        await counted(front)
        before_s = time.monotonic()
        raw = await front.send(post("/v1/videos", VIDEO, "X-Energy-Include: usage, settled"))
        answered_s = time.monotonic()
        assert set(fields_of(raw)) == {b"x-energy-record"}  # nothing has been computed yet
        job_id = json.loads(body_of(raw))["id"]
        api.begin(job_id)
        await asyncio.sleep(1.0)
        api.end(job_id)
        done_s = time.monotonic()
        (record,) = await front.records(1)
        facts, charge = record.facts, record.charge
        assert (facts.outcome, facts.error_type, facts.http_status, facts.job_id) == (Outcome.COMPLETED, None, 200, job_id)
        assert (facts.unit, facts.units, facts.endpoint) == ("video_second", 4, "videos")
        assert charge.status is Status.MEASURED
        assert WATTS * (done_s - answered_s) - RIM_J <= charge.energy_uj / 1e6 <= WATTS * (time.monotonic() - before_s) + RIM_J
        assert record.as_json()["energy_per_unit_joules"] == pytest.approx(charge.energy_uj / 4e6)
        assert api.polls(OURS) >= 2
        for path in (f"/v1/videos/{job_id}", f"/v1/videos/{job_id}/content"):
            told = fields_of(await front.send(get(path)))
            assert told[b"x-energy-status"] == b"measured"
            assert told[b"x-energy-joules"].decode() == f"{charge.energy_uj / 1e6:.6f}"
            assert told[b"x-energy-record"].decode() == f"/energy/{facts.record_id}"
        for any_id in (facts.record_id, facts.request_id, job_id):
            assert json.loads(body_of(await front.send(get(f"/energy/{any_id}"))))["record_id"] == facts.record_id
        assert conserved(front)
        assert len(front.sink.records) == 1


async def test_who_asks_is_told_how_much_it_is_by_now():
    """The status as the engine sent it, headers in front; with X-Energy-Include an `energy` object in it; and then the settled value."""
    async with videos() as api, sidecar(api.url, engine="openai") as front:
        await counted(front)
        job_id, record_id = await create(front)
        api.begin(job_id)
        await asyncio.sleep(0.3)
        first = await front.send(get(f"/v1/videos/{job_id}"))
        assert fields_of(first)[b"x-energy-status"] == b"provisional"
        await asyncio.sleep(0.5)
        second = await front.send(get(f"/v1/videos/{job_id}", "X-Energy-Include: usage"))
        assert float(fields_of(second)[b"x-energy-joules"]) > float(fields_of(first)[b"x-energy-joules"]) > 0
        said = json.loads(body_of(second))
        energy = said.pop("energy")
        assert json.loads(body_of(first)) == said
        assert energy["record"] == f"/energy/{record_id}"
        silent = await front.send(get(f"/v1/videos/{job_id}", "X-Energy-Include: none"))
        assert not fields_of(silent)
        api.end(job_id)
        last = fields_of(await front.send(get(f"/v1/videos/{job_id}", "X-Energy-Include: settled")))
        assert last[b"x-energy-status"] == b"measured"
        (record,) = await front.records(1)
        assert last[b"x-energy-joules"].decode() == f"{record.charge.energy_uj / 1e6:.6f}"


async def test_a_job_of_long_ago_is_told_from_the_ledger(tmp_path):
    """When its record is no longer in memory."""
    ledger = Ledger(str(tmp_path / "ledger.sqlite3"))
    async with videos() as api, sidecar(api.url, engine="openai", ledger=ledger) as front:
        job_id, record_id = await create(front)
        api.end(job_id)
        (record,) = await front.records(1)
        await until(lambda: front.service.desk.recent.get(record_id).charge.settled)
        front.service.desk.recent._records.clear()
        told = fields_of(await front.send(get(f"/v1/videos/{job_id}")))
        assert told[b"x-energy-joules"].decode() == f"{record.charge.energy_uj / 1e6:.6f}"
        assert json.loads(body_of(await front.send(get(f"/energy/{job_id}"))))["record_id"] == record_id


async def test_a_client_that_asks_often_spares_the_sidecar_s_own_questions():
    async with videos() as api, sidecar(api.url, engine="openai") as front:
        job_id, _ = await create(front)
        for _ in range(15):
            await front.send(get(f"/v1/videos/{job_id}"))
            await asyncio.sleep(0.05)
        others = api.polls("") - api.polls(OURS)
        assert api.polls(OURS) * 3 < others


@pytest.mark.feature("comfyui", "jobs", "contract")
@pytest.mark.feature("comfyui", "joules-per-unit", "contract")
@pytest.mark.feature("comfyui", "queue-known", "contract")
async def test_prompts_that_wait_in_comfyui_s_queue_cost_nothing():
    """Three at once, one after the other is made: each is charged its own time, all together what was drawn."""
    async with comfyui() as api, sidecar(api.url, engine="openai") as front:
        await counted(front)
        begun = [time.monotonic()]
        ids = [(await create(front, path, prompt()))[0] for path in ("/prompt", "/api/prompt", "/prompt")]
        ended = [await made(front, api, job_id, 1.0) for job_id in ids]
        records = {record.facts.job_id: record for record in await front.records(3, 30)}
        for job_id, first_s, (_, seen_s) in zip(ids, [*begun, ended[0][0], ended[1][0]], ended, strict=True):
            facts, charge = records[job_id].facts, records[job_id].charge
            assert facts.outcome is Outcome.COMPLETED
            assert charge.energy_uj / 1e6 <= WATTS * (seen_s - first_s) + RIM_J
            assert charge.energy_uj / 1e6 >= WATTS * 1.0 - RIM_J
            assert (facts.unit, facts.units, facts.model, facts.work_tokens) == ("image", 1, "sd.safetensors", 64 * 64 * 20)
        waits = [records[job_id].facts.queue_ns for job_id in ids]
        assert waits == sorted(waits)
        assert waits[2] >= 1.9e9
        whole = sum(record.charge.energy_uj for record in records.values()) / 1e6
        assert WATTS * (ended[2][0] - begun[0]) - RIM_J <= whole + WATTS * 0.5  # the first was not there at once
        assert whole <= WATTS * (ended[2][1] - begun[0]) + RIM_J
        assert conserved(front)


async def test_a_prompt_that_jumps_the_queue_is_charged_its_own_time():
    """The second waits while the third, which came last and goes first, is made: from when ComfyUI was seen to name it, that one pays."""
    async with comfyui() as api, sidecar(api.url, engine="openai") as front:
        await counted(front)
        first, second, third = [(await create(front, "/prompt", json.dumps({"prompt": graph(), **more}).encode()))[0]
                                for more in ({}, {}, {"front": True})]
        first_s, _ = await made(front, api, first, 0.2)
        jobs = front.service.desk.jobs
        await until(lambda: jobs._open[Kind.COMFYUI, third].state is State.RUNNING)
        named_s = time.monotonic()
        third_s, _ = await made(front, api, third, 1.5)
        _, seen_s = await made(front, api, second, 0.5)
        joules = {record.facts.job_id: record.charge.energy_uj / 1e6 for record in await front.records(3, 40)}
        assert joules[third] >= WATTS * (third_s - named_s) - RIM_J
        assert joules[second] <= WATTS * ((seen_s - third_s) + (named_s - first_s)) + RIM_J
        assert conserved(front)


@pytest.mark.feature("comfyui", "non-stream", "contract")
@pytest.mark.feature("comfyui", "non-stream", "contract")
async def test_a_prompt_in_comfyui_s_history():
    """The energy object stands in the prompt's entry; while there is none, nothing is added to the `{}` that says so."""
    async with comfyui() as api, sidecar(api.url, engine="openai") as front:
        await counted(front)
        job_id, record_id = await create(front, "/prompt", prompt())
        waiting = await front.send(get(f"/history/{job_id}", "X-Energy-Include: usage"))
        assert body_of(waiting) == b"{}"
        assert fields_of(waiting)[b"x-energy-record"].decode() == f"/energy/{record_id}"
        await until(lambda: api.running)
        api.ending.set()
        await until(lambda: job_id in api.history)
        over = await front.send(get(f"/api/history/{job_id}", "X-Energy-Include: usage, settled"))
        entry = json.loads(body_of(over))
        assert entry[job_id].pop("energy")["status"] == "measured"
        assert entry == api.history_of(job_id)
        assert body_of(await front.send(get("/view?filename=x.png"))).startswith(b"\x89PNG")


@pytest.mark.feature("comfyui", "stream", "contract")
async def test_comfyui_s_socket_passes():
    """What the page of ComfyUI listens to goes through, and its prompts are metered all the same."""
    async with comfyui(0.3) as api, sidecar(api.url, engine="openai") as front, aiohttp.ClientSession() as session:
        async with session.ws_connect(front.url + "/ws?clientId=c") as socket:
            assert (await socket.receive_json())["type"] == "status"
            job_id, _ = await create(front, "/prompt", prompt())
            assert (await socket.receive_json(timeout=10))["type"] == "execution_start"
            assert (await socket.receive_json(timeout=10))["data"]["prompt_id"] == job_id
        (record,) = await front.records(1)
        assert record.facts.outcome is Outcome.COMPLETED


async def test_a_prompt_that_comfyui_refuses_is_no_job():
    async with comfyui() as api, sidecar(api.url, engine="openai") as front:
        raw = await front.send(post("/prompt", b'{"prompt": {}}'))
        assert raw.startswith(b"HTTP/1.1 400")
        (record,) = await front.records(1)
        assert (record.facts.outcome, record.facts.error_type, record.facts.job_id) == (Outcome.ERRORED, "400", None)


async def ends_as(front, outcome, error_type, count=1):
    records = await front.records(count, 30)
    assert [(record.facts.outcome, record.facts.error_type) for record in records] == [(outcome, error_type)] * count
    assert conserved(front)
    return records


@shows("abort-seen")
async def test_a_video_that_is_deleted_is_cancelled(kind):
    async with videos(kind) as api, sidecar(api.url, engine="openai") as front:
        job_id, _ = await create(front)
        raw = await front.send(post(f"/v1/videos/{job_id}", b"", method="DELETE"))
        assert raw.startswith(b"HTTP/1.1 200")
        await ends_as(front, Outcome.CANCELLED, None)


async def test_a_video_that_fails_is_errored():
    async with videos("vllm-omni") as api, sidecar(api.url, engine="openai") as front:
        job_id, _ = await create(front)
        api.end(job_id, "failed")
        (record,) = await ends_as(front, Outcome.ERRORED, "oom")
        assert record.facts.units is None
        assert record.charge.energy_uj > 0  # what it drew until then


@pytest.mark.feature("comfyui", "abort-seen", "contract")
async def test_a_prompt_that_fails_is_interrupted_or_taken_out_of_the_queue():
    """One each: errored, cancelled, cancelled; and one that ComfyUI does not know any more, errored."""
    async with comfyui() as api, sidecar(api.url, engine="openai") as front:
        ids = [(await create(front, "/prompt", prompt()))[0] for _ in range(4)]
        await until(lambda: api.running)
        api.fails.add(ids[0])
        api.ending.set()
        await until(lambda: api.running and api.running[2] == ids[1])
        await front.send(post("/interrupt", b""))
        await until(lambda: api.running and api.running[2] == ids[2])
        await front.send(post("/queue", json.dumps({"delete": [ids[3]]}).encode()))
        await until(lambda: not api.queue)
        api.forget(ids[2])  # as a restart would
        records = {record.facts.job_id: record.facts for record in await front.records(4, 40)}
        assert [(records[job_id].outcome, records[job_id].error_type) for job_id in ids] == [
            (Outcome.ERRORED, "execution_error"), (Outcome.CANCELLED, "execution_interrupted"), (Outcome.ERRORED, "job_lost"),
            (Outcome.CANCELLED, None)]


async def test_an_engine_that_comes_back_without_its_jobs_has_lost_them():
    async with videos() as api, sidecar(api.url, engine="openai") as front:
        await create(front)
        api.jobs.clear()
        await ends_as(front, Outcome.ERRORED, "job_lost")


async def test_an_engine_that_dies_loses_its_jobs():
    """Connections are refused for some seconds: then all its jobs end, each once."""
    async with videos() as api, sidecar(api.url, engine="openai") as front:
        for _ in range(3):
            await create(front)
        await api.close()
        await ends_as(front, Outcome.ERRORED, "upstream_lost", 3)


async def test_the_sidecar_waits_for_jobs_as_for_requests_and_then_ends_them():
    """Drained: one that is done in time is completed, one that is not is errored, with what it cost by then."""
    async with videos() as api:
        async with sidecar(api.url, engine="openai") as front:
            done, _ = await create(front)
            await create(front)
            api.begin(done)
            asyncio.get_running_loop().call_later(0.2, api.end, done)
            service = front.service
        outcomes = {record.facts.job_id: (record.facts.outcome, record.facts.error_type) for record in front.sink.records}
        assert outcomes == {"video_0": (Outcome.COMPLETED, None), "video_1": (Outcome.ERRORED, "shutdown")}
        assert service.meter.unsettled == 0
        assert conserved(front)


async def test_a_job_is_given_up_after_so_many_hours():
    async with videos() as api, sidecar(api.url, engine="openai", job_hours=0.001) as front:
        await create(front)
        front.service.desk.jobs.longest_ns //= 10  # 0.36 s
        await ends_as(front, Outcome.ERRORED, "job_timeout")


async def test_who_leaves_before_the_answer_has_begun_a_job_all_the_same():
    """The engine computes it whether or not its creator has heard its name: it is charged, too."""
    async with videos(answers_after_s=0.5) as api, sidecar(api.url, engine="openai") as front:
        _, writer = await front.connect()
        writer.write(post("/v1/videos", VIDEO))
        await until(lambda: api.asked)
        writer.close()
        await until(lambda: api.jobs)
        api.begin("video_0")
        await asyncio.sleep(0.3)
        api.end("video_0")
        (record,) = await ends_as(front, Outcome.COMPLETED, None)
        assert record.facts.job_id == "video_0"


@pytest.mark.feature("sglang", "jobs", "contract")
async def test_a_response_in_the_background_is_a_job():
    """Its usage is told when it is done; one in the foreground is none."""
    async with videos() as api, sidecar(api.url, engine="openai") as front:
        body = b'{"model":"m","input":"hello","background":true}'
        job_id, _ = await create(front, "/v1/responses", body)
        api.jobs[job_id] |= {"status": "completed", "usage": {"input_tokens": 7, "output_tokens": 5, "total_tokens": 12}}
        (record,) = await ends_as(front, Outcome.COMPLETED, None)
        facts = record.facts
        assert (facts.job_id, facts.input_tokens, facts.output_tokens, facts.endpoint) == (job_id, 7, 5, "responses")


def keys(**more):
    return Credentials(doors=Doors(read_keys(entry_for("ann", "key-ann") + entry_for("bob", "key-bob"), "keys.toml"), **more))


async def test_only_the_key_that_created_a_job_sees_its_joules():
    """Bob may ask the engine about Ann's job, which is the engine's to answer, and is told nothing of what it cost; nor does his 404 end
    it. The sidecar asks with the engine's own key."""
    async with videos(key="engine-key") as api, sidecar(api.url, engine="openai", credentials=keys(upstream_key="engine-key")) as front:
        ann, bob = "Authorization: Bearer key-ann", "X-Api-Key: key-bob"
        job_id, record_id = await create(front, "/v1/videos", VIDEO, ann)
        api.begin(job_id)
        await asyncio.sleep(0.7)
        assert api.polls(OURS) >= 1
        assert b"x-energy-joules" in fields_of(await front.send(get(f"/v1/videos/{job_id}", ann)))
        theirs = await front.send(get(f"/v1/videos/{job_id}", bob))
        assert theirs.startswith(b"HTTP/1.1 200")
        assert not fields_of(theirs)
        api.end(job_id)
        (record,) = await front.records(1)
        assert (record.facts.outcome, record.facts.tenant) == (Outcome.COMPLETED, "ann")
        for any_id in (job_id, record_id):
            assert (await front.send(get(f"/energy/{any_id}", bob))).startswith(b"HTTP/1.1 404")
            assert (await front.send(get(f"/energy/{any_id}", ann))).startswith(b"HTTP/1.1 200")


async def test_with_keys_comfyui_s_jobs_are_open_and_its_queue_is_not():
    async with comfyui(0.2) as api, sidecar(api.url, engine="openai", credentials=keys()) as front:
        ann = "Authorization: Bearer key-ann"
        job_id, _ = await create(front, "/prompt", prompt(), ann)
        assert (await front.send(get(f"/history/{job_id}", ann))).startswith(b"HTTP/1.1 200")
        for path in ("/history", "/queue", "/interrupt", "/api/queue", "/ws"):
            assert (await front.send(get(path, ann))).startswith(b"HTTP/1.1 403"), path
        await ends_as(front, Outcome.COMPLETED, None)


async def test_the_engine_is_asked_with_the_key_that_created_the_job():
    """Without keys of our own, the client's passes, and is what we ask with; it is in no record and no log."""
    async with videos(key="theirs") as api, sidecar(api.url, engine="openai") as front:
        job_id, _ = await create(front, "/v1/videos", VIDEO, "Authorization: Bearer theirs")
        (job,) = front.service.desk.jobs._open.values()
        assert job.opened.credential == (("Authorization", "Bearer theirs"),)
        assert "theirs" not in repr(job)
        api.end(job_id)
        (record,) = await ends_as(front, Outcome.COMPLETED, None)
        assert "theirs" not in record.as_text().decode()
