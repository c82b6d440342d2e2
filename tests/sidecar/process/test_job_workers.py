"""Jobs with several workers: whichever a client asks, it is told of the same record, and a worker that dies takes no job with it."""

import asyncio
import json
import os
import signal
from pathlib import Path

import aiohttp

from perjoule.bench.child import child
from tests.fakes.videos import videos


def workers_of(pid):
    return [int(child_pid) for child_pid in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            if b"process.worker" in Path(f"/proc/{child_pid}/cmdline").read_bytes()]


async def ask(method, url, **more):
    """On a connection of its own, so that any worker may get it."""
    async with aiohttp.ClientSession() as session, session.request(method, url, **more) as answer:
        return dict(answer.headers), await answer.read()


async def counted(front):
    """The counter has shown a window."""
    async with asyncio.timeout(30):
        while not json.loads((await ask("GET", front["admin"] + "/energy/balance"))[1])["measured_uj"]:
            await asyncio.sleep(0.05)


async def test_any_worker_knows_every_job_and_none_is_lost_with_one():
    """Created by one, asked about through both; both are killed; it is completed once, and then told as settled by whoever is asked."""
    async with videos() as api, child("perjoule.main", "serve", "--upstream", api.url, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0",
                                      "--engine", "openai", "--energy", "simulated", "--ledger", "off", "--calibrations", "off",
                                      "--workers", "2") as front:
        url = front["listen"]
        await counted(front)
        headers, body = await ask("POST", url + "/v1/videos", json={"prompt": "a", "seconds": "4"})
        job_id, record = json.loads(body)["id"], headers["X-Energy-Record"]
        assert "X-Energy-Joules" not in headers
        api.begin(job_id)
        for _ in range(12):
            headers, body = await ask("GET", f"{url}/v1/videos/{job_id}", headers={"X-Energy-Include": "usage, settled"})
            assert headers["X-Energy-Record"] == record
            assert json.loads(body)["energy"]["status"] == "simulated"
        before = workers_of(front["pid"])
        assert len(before) == 2
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            while len(set(workers_of(front["pid"])) - set(before)) < 2:
                await asyncio.sleep(0.05)
        api.end(job_id)
        async with asyncio.timeout(30):
            while not (found := json.loads((await ask("GET", f"{url}/energy/{job_id}"))[1])).get("settled"):
                await asyncio.sleep(0.05)
        assert (found["outcome"], found["error_type"], record) == ("completed", None, f"/energy/{found['record_id']}")
        for _ in range(6):
            headers, _ = await ask("GET", f"{url}/v1/videos/{job_id}/content")
            assert headers["X-Energy-Joules"] == f"{found['energy_uj'] / 1e6:.6f}"
        _, body = await ask("GET", front["admin"] + "/energy/balance")
        assert json.loads(body)["conserved"] is True


async def test_a_question_through_a_worker_ends_a_job_and_is_told_its_charge():
    """The answer that says that it is done, and the charge beside it, in one."""
    async with videos() as api, child("perjoule.main", "serve", "--upstream", api.url, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0",
                                      "--engine", "openai", "--energy", "simulated", "--ledger", "off", "--calibrations", "off",
                                      "--workers", "2") as front:
        url = front["listen"]
        await counted(front)
        _, body = await ask("POST", url + "/v1/videos", json={"prompt": "a"})
        job_id = json.loads(body)["id"]
        api.begin(job_id)
        await asyncio.sleep(0.3)
        api.end(job_id)
        headers, _ = await ask("GET", f"{url}/v1/videos/{job_id}", headers={"X-Energy-Include": "settled"})
        assert float(headers["X-Energy-Joules"]) > 0
        _, body = await ask("GET", f"{url}/energy/{job_id}")
        found = json.loads(body)
        assert found["settled"]
        assert headers["X-Energy-Joules"] == f"{found['energy_uj'] / 1e6:.6f}"
