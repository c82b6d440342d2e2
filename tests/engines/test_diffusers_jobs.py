"""Videos as jobs of a real diffusers pipeline, through a sidecar that reads what the server says it drew: each is charged for its own
time, though nobody holds a connection meanwhile."""

import asyncio
import json
import time

import pytest

from perjoule.adapters.simulated import EngineCounter
from perjoule.sidecar.record import Outcome, Status
from tests.fakes.sidecar import body_of, post, sidecar

BUSY_W = 400.0  # of the server's counter, which has a new value every 100 ms
RIM_J = 120.0  # a window at either end


def video(steps, frames=4):
    asks = {"prompt": f"{steps} steps", "size": "128x128", "num_inference_steps": steps, "num_frames": frames, "seconds": "0.5", "fps": 8}
    return post("/v1/videos", json.dumps(asks).encode())


def get(path, *fields):
    return post(path, b"", *fields, method="GET")


async def counted(front):
    async with asyncio.timeout(30):
        while not front.service.meter.balance.idle_uj:
            await asyncio.sleep(0.05)


async def seen_completed(front, job_id):
    """When a client that asks all the time has been told so."""
    async with asyncio.timeout(120):
        while json.loads(body_of(await front.send(get(f"/v1/videos/{job_id}"))))["status"] != "completed":
            await asyncio.sleep(0.05)
    return time.monotonic()


@pytest.mark.feature("diffusers", "jobs", "real")
@pytest.mark.feature("diffusers", "joules-per-unit", "real")
async def test_three_videos_are_each_charged_their_own_time(diffusers):
    """One after the other, of one, two and one times the steps: each is charged from when the one before it was done (or seen to be) until
    it was itself, by the server's own clock, which is this machine's."""
    async with sidecar(diffusers.url, engine="openai", counter=EngineCounter(diffusers.url)) as front:
        await counted(front)
        ids = [json.loads(body_of(await front.send(video(steps))))["id"] for steps in (20, 40, 20)]
        seen_s = [await seen_completed(front, job_id) for job_id in ids]
        records = {record.facts.job_id: record for record in await front.records(3, 120)}
        jobs = json.loads(body_of(await front.send(get("/simulated/work"))))["jobs"]
        began_s, ended_s = ([next(job for job in jobs if job["id"] == job_id)[moment] / 1e9 for job_id in ids]
                            for moment in ("began_ns", "ended_ns"))
        for place, job_id in enumerate(ids):
            facts, charge = records[job_id].facts, records[job_id].charge
            assert (facts.outcome, charge.status, facts.units) == (Outcome.COMPLETED, Status.SIMULATED, 0.5)
            earliest_s, latest_s = (ended_s[place - 1], seen_s[place - 1]) if place else (began_s[0], began_s[0])
            assert charge.energy_uj / 1e6 >= BUSY_W * (ended_s[place] - latest_s) - RIM_J
            assert charge.energy_uj / 1e6 <= BUSY_W * (seen_s[place] - earliest_s) + RIM_J
            told = await front.send(get(f"/v1/videos/{job_id}", "X-Energy-Include: usage"))
            energy = json.loads(body_of(told))["energy"]
            assert energy["energy_joules"] == charge.energy_uj / 1e6
            assert energy["joules_per_unit"] == pytest.approx(charge.energy_uj / 0.5e6)
        balance = front.service.meter.balance
        assert balance.measured_uj == balance.requests_uj + balance.idle_uj + balance.unattributed_uj
        content = await front.send(get(f"/v1/videos/{ids[1]}/content"))
        assert b"X-Energy-Joules-Per-Video-Second: " in content
        assert b"\x89PNG" in content


async def test_a_video_that_is_deleted_while_it_is_made_ends_there(diffusers):
    """Its record is cancelled and has what was drawn until then, which is less than the whole would have been."""
    counter = EngineCounter(diffusers.url)
    async with sidecar(diffusers.url, engine="openai", counter=counter) as front:
        await counted(front)
        job_id = json.loads(body_of(await front.send(video(200))))["id"]
        async with asyncio.timeout(60):
            while json.loads(body_of(await front.send(get(f"/v1/videos/{job_id}"))))["progress"] < 5:
                await asyncio.sleep(0.05)
        await front.send(post(f"/v1/videos/{job_id}", b"", method="DELETE"))
        (record,) = await front.records(1)
        assert (record.facts.outcome, record.facts.units) == (Outcome.CANCELLED, None)
        assert record.charge.energy_uj > 0


async def test_a_video_that_fails_is_errored_and_has_cost_what_it_drew(diffusers):
    counter = EngineCounter(diffusers.url)
    asks = {"prompt": "x", "size": "128x128", "num_inference_steps": 40, "num_frames": 4, "fail_at_step": 30}
    async with sidecar(diffusers.url, engine="openai", counter=counter) as front:
        await counted(front)
        await front.send(post("/v1/videos", json.dumps(asks).encode()))
        (record,) = await front.records(1, 60)
        assert (record.facts.outcome, record.facts.error_type) == (Outcome.ERRORED, "generation_failed")
        assert record.charge.energy_uj > 0
