"""`perjoule serve` in front of the embedded engine, as processes: what a newcomer sees first."""

import asyncio
import contextlib
import json
import re
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from perjoule.bench.child import child
from perjoule.bench.dialect import MODEL
from tests.fakes.collector import attributes_of, grpc_collector, http_collector

CHAT = {"model": MODEL, "max_tokens": 12, "messages": [{"role": "user", "content": "What does this cost?"}]}
MEMORY_KB = 80_000  # design, section 6


@asynccontextmanager
async def served(*flags, engine=None):
    """The embedded engine and the sidecar in front of it, which knows it; yields the sidecar's two addresses."""
    async with contextlib.AsyncExitStack() as stack:
        is_ours = engine is None
        if engine is None:
            engine = (await stack.enter_async_context(child("perjoule.bench.engine", "--port", "0")))["url"]
        ports = ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--ledger", "off", "--calibrations", "off")
        serving = await stack.enter_async_context(child("perjoule.main", "serve", "--upstream", engine, *ports, *flags))
        while is_ours and json.loads((await ask(serving["admin"] + "/readyz"))[1])["engine"] == "unknown":  # a busy machine takes its time
            await asyncio.sleep(0.05)
        yield serving


async def ask(url, body=None, **headers):
    """POST a body, or GET; answers headers and text."""
    method = "GET" if body is None else "POST"
    async with aiohttp.ClientSession(headers=headers) as session, session.request(method, url, json=body) as answer:
        return answer.headers, await answer.text()


async def settled(served, headers):
    """The settled record of an answer."""
    for _ in range(100):
        record = json.loads((await ask(served["listen"] + headers["X-Energy-Record"]))[1])
        if record.get("settled"):
            return record
        await asyncio.sleep(0.05)
    raise AssertionError("never settled")


@pytest.mark.parametrize("protocol", ["http", "grpc"])
async def test_one_request_is_the_same_joules_everywhere(protocol):
    """Header, record and span of one request agree, and each says that the joules are simulated."""
    async with contextlib.AsyncExitStack() as stack:
        is_http = protocol == "http"
        collector = await stack.enter_async_context(http_collector()) if is_http else stack.enter_context(grpc_collector())
        serving = await stack.enter_async_context(served("--energy", "simulated", "--otlp", collector.url))
        await asyncio.sleep(0.3)  # the first windows
        headers, text = await ask(serving["listen"] + "/v1/chat/completions", CHAT, **{"X-Energy-Include": "settled"})
        record = await settled(serving, headers)
        assert headers["X-Energy-Status"] == record["status"] == "simulated"
        assert headers["X-Energy-Joules"] == f"{record['energy_uj'] / 1e6:.6f}"
        assert record["energy_uj"] > 0
        assert record["output_tokens"] == json.loads(text)["usage"]["completion_tokens"] == 12
        while not collector.spans:  # the collector is told within a second
            await asyncio.sleep(0.02)
        (span,) = collector.spans
        said = attributes_of(span)
        assert said["perjoule.energy.microjoules"] == record["energy_uj"]
        assert said["perjoule.energy.status"] == "simulated"
        assert said["perjoule.record.id"] == record["record_id"]


async def test_a_stream_tells_its_energy_before_done():
    """The comment comes just before [DONE], and the memory of the process stays within its budget."""
    async with served("--energy", "simulated") as serving:
        await asyncio.sleep(0.3)
        headers, text = await ask(serving["listen"] + "/v1/chat/completions", CHAT | {"stream": True})
        energy = json.loads(re.search(r"\n\n: energy (\{.*\})\n\ndata: \[DONE\]\n\n$", text)[1])
        assert energy["status"] == "simulated"
        assert energy["record"] == headers["X-Energy-Record"]
        assert '"usage"' not in text
        assert (await settled(serving, headers))["output_tokens"] == 12


async def test_without_a_sensor_there_is_no_joule_anywhere():
    """Nothing but a status: headers, stream, record, balance and metrics name no amount."""
    async with served("--energy", "auto") as serving:
        if serving["energy"] != "unavailable":
            pytest.skip(f"this machine has a sensor: {serving['energy']}")
        headers, _ = await ask(serving["listen"] + "/v1/chat/completions", CHAT)
        assert headers["X-Energy-Status"] == "unavailable"
        assert not [name for name in headers if "joules" in name.lower()]
        _, text = await ask(serving["listen"] + "/v1/chat/completions", CHAT | {"stream": True})
        assert "_joules" not in text
        record = await settled(serving, headers)
        assert {record[name] for name in record if name.endswith(("_uj", "joules"))} == {None}
        assert json.loads((await ask(serving["admin"] + "/energy/balance"))[1])["error"]["code"] == "no_energy_source"
        assert "joules_total{" not in (await ask(serving["admin"] + "/metrics"))[1]


async def test_memory_of_an_idle_sidecar_is_within_its_budget():
    """80 MB with metrics and a simulated sensor on (design, section 6)."""
    async with served("--energy", "simulated", engine="http://127.0.0.1:9") as serving:
        status = Path(f"/proc/{serving['pid']}/status").read_text()
        assert int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) < MEMORY_KB
