"""`perjoule serve` in front of the embedded engine, as processes: what a newcomer sees first."""

import asyncio
import contextlib
import json
import re
import subprocess
import sys
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
    """The embedded engine and the sidecar in front of it, which knows it and has seen its counter change: what ran before has no joules.
    Yields the sidecar's two addresses."""
    async with contextlib.AsyncExitStack() as stack:
        is_ours = engine is None
        if engine is None:
            engine = (await stack.enter_async_context(child("perjoule.bench.engine", "--port", "0")))["url"]
        ports = ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--ledger", "off", "--calibrations", "off")
        serving = await stack.enter_async_context(child("perjoule.main", "serve", "--upstream", engine, *ports, *flags))
        while is_ours and json.loads((await ask(serving["admin"] + "/readyz"))[1])["engine"] == "unknown":  # a busy machine takes its time
            await asyncio.sleep(0.05)
        while json.loads((await ask(serving["admin"] + "/energy/balance"))[1]).get("measured_uj") == 0:
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
        collector = stack.enter_context(http_collector() if protocol == "http" else grpc_collector())
        serving = await stack.enter_async_context(served("--energy", "simulated", "--otlp", collector.url))
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


@pytest.mark.parametrize("protocol", ["http", "grpc"])
async def test_the_environment_alone_turns_spans_and_metrics_on(protocol, monkeypatch):
    """OTEL_* without --otlp: both signals come, of one resource; the last metrics say what the spans add up to, and the law."""
    with (http_collector() if protocol == "http" else grpc_collector()) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.replace("grpc", "http"))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc" if protocol == "grpc" else "http/protobuf")
        monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "200")
        async with served("--energy", "simulated") as serving:
            while not collector.metrics:  # at once, not only at the end
                await asyncio.sleep(0.02)
            for _ in range(3):
                await ask(serving["listen"] + "/v1/chat/completions", CHAT | {"stream": True})
    spans = [attributes_of(span) for span in collector.spans]
    assert [said["perjoule.record.sequence"] for said in spans] == [1, 2, 3]
    [own] = {attributes_of(request.resource_metrics[0].resource)["service.instance.id"] for request in collector.metrics}
    assert collector.resource["service.instance.id"] == own

    def values(name):
        metric = collector.newest()[name]
        return [point.as_double or point.as_int for point in getattr(metric, metric.WhichOneof("data")).data_points]
    joules = sum(said["perjoule.energy.microjoules"] for said in spans) / 1e6
    assert joules > 0
    for name in ("perjoule.energy.settled.joules", "perjoule.tenant.joules", "perjoule.request.joules"):
        assert sum(values(name)) == pytest.approx(joules)
    parts = sum(sum(values(f"perjoule.energy.{part}.joules")) for part in ("requests", "idle", "unattributed"))
    assert values("perjoule.energy.measured.joules") == [pytest.approx(parts)]
    assert sum(point.count for point in collector.newest()["gen_ai.server.request.duration"].histogram.data_points) == 3


@pytest.mark.parametrize("protocol", ["http", "grpc"])
async def test_a_collector_that_dies_and_a_tenant_explosion_lose_nothing(protocol):
    """300 keys, the collector away for most of it: metrics, spans and the account end at the same count and the same joules, the tenants'
    series stay bounded, and each span is there once."""
    receiver = http_collector if protocol == "http" else grpc_collector

    async def scraped():
        lines = (await ask(serving["admin"] + "/metrics"))[1].splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))}

    def total(shown, name):
        return sum(value for series, value in shown.items() if series.startswith(name))

    async def chat(key):
        await ask(serving["listen"] + "/v1/chat/completions", CHAT | {"max_tokens": 2}, Authorization=f"Bearer key-{key}")

    async with contextlib.AsyncExitStack() as stack:
        with receiver() as first:
            port = int(first.url.rpartition(":")[2])
            serving = await stack.enter_async_context(served("--energy", "simulated", "--otlp", first.url))
            await asyncio.gather(*map(chat, range(60)))
            while not first.spans:
                await asyncio.sleep(0.02)
        for begin in range(60, 300, 60):
            await asyncio.gather(*map(chat, range(begin, begin + 60)))
        with receiver(port) as second:
            while (shown := await scraped())['perjoule_outbox_stored_records_total{sink="otlp"}'] < 300:
                await asyncio.sleep(0.05)
            spans = [attributes_of(span) for span in first.spans + second.spans]
    assert sorted(said["perjoule.record.sequence"] for said in spans) == list(range(1, 301))
    assert shown['perjoule_outbox_dropped_records_total{sink="otlp"}'] == 0
    assert total(shown, "perjoule_requests_total") == total(shown, "perjoule_tenant_requests_total") == 300
    assert len([series for series in shown if series.startswith("perjoule_tenant_requests_total")]) == 201
    joules = sum(said["perjoule.energy.microjoules"] for said in spans) / 1e6
    for name in ("perjoule_energy_settled_joules_total", "perjoule_tenant_joules_total", "perjoule_request_energy_joules_sum"):
        assert total(shown, name) == pytest.approx(joules)


async def test_telemetry_that_cannot_be_is_refused_at_the_start(monkeypatch):
    """Exit code 2, and the variable by its name."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318")
    command = [sys.executable, "-m", "perjoule.main", "serve", "--upstream", "http://127.0.0.1:9", "--ledger", "off"]
    command += ["--energy", "simulated"]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "OTEL_EXPORTER_OTLP_ENDPOINT: got 'collector:4318', expected http(s)://HOST:4318" in done.stderr


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
