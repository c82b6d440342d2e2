"""T41–T44: doors that the engine leaves open, what gets into logs, clients that hold connections, and what is installed with us."""

import asyncio
import contextlib
import logging
import re
import subprocess
import sys
from importlib.metadata import packages_distributions, requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from perjoule.sidecar.access.doors import Doors
from perjoule.sidecar.access.keys import entry_for, read_keys
from perjoule.sidecar.settings.credentials import Credentials
from tests.fakes.sidecar import body_of, post, sidecar
from tests.fakes.upstream import answer, scripted
from tests.hostile.wire import CHAT, INFER, serving, until

KEYS = Credentials(Doors(read_keys(entry_for("tenant-a", "pj-a"), "keys.toml")))
UNGUARDED = (  # by vLLM's own --api-key: open to everybody there, to whoever has a key here
    "/invocations", "/tokenize", "/detokenize", "/pooling", "/score", "/rerank", "/classify", "/generative_scoring", "/version",
)
FOR_OPERATORS = (
    "/metrics", "/load", "/start_profile", "/stop_profile", "/server_info", "/reset_prefix_cache", "/reset_mm_cache", "/collective_rpc",
    "/sleep", "/wake_up", "/is_sleeping", "/pause", "/resume", "/abort_requests", "/inference/v1/abort_requests", "/scale_elastic_ep",
    "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/update_weights", "/docs", "/openapi.json",
)
DISGUISES = ("{}", "{}/", "/{}", "/v1/..{}", "/.{}", "{}?x=/v1/models", "{}%3f", "/%2e{}", "http://h{}", "/v1/..;{}", "{}#")


@pytest.mark.parametrize("path", UNGUARDED)
async def test_t41_what_the_engine_guards_badly_is_guarded(path):
    """Without a key 401, with one it is the engine's to answer."""
    async with scripted([answer(b"{}")]) as engine, sidecar(engine.url, credentials=KEYS) as front:
        assert (await front.send(post(path, INFER))).startswith(b"HTTP/1.1 401 ")
        assert engine.requests == []
        assert (await front.send(post(path, INFER, "Authorization: Bearer pj-a"))).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("path", FOR_OPERATORS)
async def test_t41_an_operator_s_route_is_closed_to_clients_in_every_disguise(path):
    """A key does not open it, however the path is spelled and whatever the method; without a key nobody learns that it is there."""
    async with scripted([answer(b"{}")]) as engine, sidecar(engine.url, credentials=KEYS) as front:
        for disguise in DISGUISES:
            for method in ("GET", "POST"):
                target = disguise.format(path)
                assert re.match(rb"HTTP/1\.1 (403|404|400) ",
                                await front.send(post(target, b"", "Authorization: Bearer pj-a", method=method))), target
                assert re.match(rb"HTTP/1\.1 (401|400) ", await front.send(post(target, b"", method=method))), target
        assert engine.requests == []


IDS = ["two\twords", "a; rm -rf /", '"}\\', "%0a%0dERROR root: all is lost", "ü\u2028ERROR", "x" * 5000, "${jndi:ldap://h/a}", "<script>"]


@pytest.mark.parametrize("given", IDS)
async def test_t42_what_a_client_calls_its_request_cannot_write_into_a_log(given, caplog):
    """An id that is no id goes on to the engine, whose it is, but neither into the log nor into the record."""
    caplog.set_level(logging.DEBUG)
    async with scripted([answer(b"{}")]) as engine, sidecar(engine.url, log_level="debug") as front:
        raw_id = given.encode()
        await front.send(post(CHAT, INFER).replace(b"Host: sidecar", b"Host: sidecar\r\nX-Request-Id: " + raw_id))
        (record,) = await front.records(1)
        assert re.fullmatch(r"[0-9a-f]{32}", record.facts.request_id)
        assert raw_id in engine.requests[0]
        assert given not in caplog.text


@pytest.mark.parametrize("text", [b"\r\nX: ERROR root: all is lost", b"a\0b", b"a\x1b[31mb", b"a\nX: b"])
async def test_t42_a_control_character_in_an_id_is_refused(text):
    """The head would be another one with it: 400, or it is another field."""
    async with scripted([answer(b"{}")]) as engine, sidecar(engine.url) as front:
        raw = await front.send(post(CHAT, INFER).replace(b"Host: sidecar", b"Host: sidecar\r\nX-Request-Id: a" + text))
        if raw.startswith(b"HTTP/1.1 200 "):
            (record,) = await front.records(1)
            assert record.facts.request_id == "a"
        else:
            assert (raw[:13], engine.requests) == (b"HTTP/1.1 400 ", [])


async def test_t43_a_head_that_trickles_is_cut_off():
    """A byte now and then is progress for nobody: 408 at the deadline, which the whole head has; the next client is served."""
    async with scripted([answer(b"fine")]) as engine, sidecar(engine.url, slow_sender_s=0.5) as front:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)

        async def trickle():
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nX-A: ")
            while True:
                writer.write(b"a")
                await asyncio.sleep(0.02)

        trickling = asyncio.ensure_future(trickle())
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n"), 10)).startswith(b"HTTP/1.1 408 ")
        trickling.cancel()
        writer.close()
        assert body_of(await front.send(post("/", b"", method="GET"))) == b"fine"
        assert len(engine.requests) == 1


async def test_t43_a_body_that_trickles_is_cut_off():
    """So is a request whose body comes a byte at a time; the engine has not heard of it, and there is no record."""
    async with scripted([answer(b"fine")]) as engine, sidecar(engine.url, slow_sender_s=0.5) as front:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)

        async def trickle():
            writer.write(post(CHAT, b"").replace(b"Content-Length: 0", b"Content-Length: 1000"))
            while True:
                writer.write(b"a")
                await asyncio.sleep(0.02)

        trickling = asyncio.ensure_future(trickle())
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n"), 10)).startswith(b"HTTP/1.1 408 ")
        trickling.cancel()
        writer.close()
        await until(lambda: front.service.traffic.active == 0)
        assert engine.requests == front.sink.records == []


async def test_t43_connections_are_counted():
    """With room for three, the fourth is told so and closed at once; when one leaves there is room again, and those inside go on."""
    async with scripted([answer(b"fine")]) as engine, sidecar(engine.url, max_connections=3) as front:
        inside = [await asyncio.open_connection("127.0.0.1", front.port) for _ in range(3)]
        assert (await front.send(b"")).startswith(b"HTTP/1.1 503 ")
        for reader, writer in inside:
            writer.write(post("/", b"", method="GET").replace(b"Connection: close\r\n", b""))
            assert (await asyncio.wait_for(reader.readuntil(b"fine"), 10)).startswith(b"HTTP/1.1 200 ")
        inside[0][1].close()
        async with asyncio.timeout(10):
            while not (await front.send(post("/", b"", method="GET"))).startswith(b"HTTP/1.1 200 "):
                await asyncio.sleep(0.01)
        for _, writer in inside[1:]:
            writer.close()


async def test_t43_one_who_is_refused_does_not_send_on_for_ever():
    """Behind a refusal what a client still sends is not read for long, and not kept."""
    async with scripted([answer(b"")]) as engine, sidecar(engine.url) as front:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n")
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n"), 10)).startswith(b"HTTP/1.1 400 ")
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionError):
                while True:
                    writer.write(b"x" * 65536)
                    await writer.drain()
        writer.close()
        assert engine.requests == []


def closure(name, seen):
    """The distributions that come with one, without extras."""
    name = canonicalize_name(name)
    if name not in seen:
        seen.add(name)
        for text in requires(name) or []:
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                closure(needed.name, seen)
    return seen


def top_level(importtime):
    """The names of the packages and modules that `python -X importtime` has reported."""
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in importtime.splitlines() if line.startswith("import time")}


async def test_t44_it_runs_on_what_it_declares_and_on_nothing_else(tmp_path):
    """Every module that a serving process has loaded is Python's own or of a distribution that the base install asks for."""
    log, how = tmp_path / "imports", ("-X", "importtime")
    async with scripted([answer(b"{}")]) as engine, serving(engine.url, python=how, log=log) as front:
        reader, writer = await asyncio.open_connection("127.0.0.1", front["port"])
        writer.write(post(CHAT, INFER))
        assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 200 ")
        writer.close()
    bare = subprocess.run([sys.executable, *how, "-c", ""], capture_output=True, text=True, check=True).stderr
    loaded, declared, owners = top_level(log.read_text()) - top_level(bare), closure("perjoule", set()), packages_distributions()
    foreign = {name: owners[name] for name in loaded if name in owners and declared.isdisjoint(map(canonicalize_name, owners[name]))}
    assert {"httptools", "orjson", "uvloop"} <= loaded
    assert foreign == {}


def test_t44_no_dependency_is_taken_in_any_version():
    """Each has the oldest version that works, so that no resolver may choose one with a hole that we know of."""
    needed = [Requirement(text) for text in requires("perjoule")]
    assert [str(one) for one in needed if one.name != "perjoule" and ">=" not in str(one.specifier)] == []
