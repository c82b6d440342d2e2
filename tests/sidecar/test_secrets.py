"""No key and no word of a prompt or an answer comes out anywhere: planted secrets are looked for in everything that the sidecar says."""

import asyncio
import base64
import contextlib
import json
import os
import sys
from pathlib import Path

import aiohttp
import pytest

from perjoule.sidecar.access.keys import entry_for
from tests.fakes.collector import http_collector
from tests.fakes.sidecar import post
from tests.fakes.upstream import CUT, answer, chunked, sse, stream_head

PLANTED = {name: f"planted{name}5ecret" for name in (
    "Key", "WrongKey", "EngineKey", "AdminToken", "Query", "Cookie", "Prompt", "System", "Image", "Tool", "Answer", "Reasoning", "Header",
    "ErrorText", "StreamError", "Head", "Malformed", "Agent", "Trailer", "Basic", "Path", "User")}
KEY, ENGINE_KEY, TOKEN = PLANTED["Key"], PLANTED["EngineKey"], PLANTED["AdminToken"]
PROMPT = json.dumps({
    "model": "m", "user": PLANTED["User"], "tools": [{"type": "function", "function": {"name": PLANTED["Tool"]}}], "messages": [
        {"role": "system", "content": PLANTED["System"]},
        {"role": "user", "content": [{"type": "text", "text": PLANTED["Prompt"]},
                                     {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PLANTED['Image']}"}}]}]}).encode()
STREAMED = PROMPT[:-1] + b', "stream": true}'
FIELDS = (f"Cookie: session={PLANTED['Cookie']}", f"X-Custom: {PLANTED['Header']}", f"User-Agent: {PLANTED['Agent']}",
          f"Proxy-Authorization: Basic {PLANTED['Basic']}")
TEXT = json.dumps({"content": PLANTED["Answer"], "reasoning_content": PLANTED["Reasoning"]})
WHOLE = answer(b'{"id":"c-1","model":"m","choices":[{"index":0,"message":' + TEXT.encode() + b',"finish_reason":"stop"}],"usage":'
               b'{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}', f"Set-Cookie: a={PLANTED['Cookie']}")
FRAME = sse('{"id":"c-2","model":"m","choices":[{"index":0,"delta":' + TEXT + "}]}")
ERROR = sse(json.dumps({"error": {"message": PLANTED["StreamError"], "type": "BadRequestError", "code": 400}}), "[DONE]")
SCRIPTS = [
    [WHOLE],
    [stream_head(), chunked(FRAME)[:-5], 1.0, chunked(FRAME, ERROR)],
    [answer(json.dumps({"error": {"message": f"no such token: {PLANTED['ErrorText']}", "type": "BadRequestError", "code": 400}}).encode(),
            status=f"400 {PLANTED['Head']}")],
    [f"HTTP/1.1 200 OK\r\nX: {PLANTED['Head']}\r\nBad Name {PLANTED['Head']}: x\r\n\r\n".encode()],
    [stream_head(), chunked(FRAME)[:-5], CUT],
    [stream_head("trailer: x-note"), chunked(FRAME, sse("[DONE]"))[:-2] + f"x-note: {PLANTED['Trailer']}\r\n\r\n".encode()],
]


def chat(body, *fields, key=KEY, path="/v1/chat/completions"):
    return post(f"{path}?key={PLANTED['Query']}", body, *((f"Authorization: Bearer {key}",) if key else ()), *FIELDS, *fields)


REFUSED = {
    "no key": chat(PROMPT, key=None),
    "a wrong key": chat(PROMPT, key=PLANTED["WrongKey"]),
    "two keys": chat(PROMPT, f"X-Api-Key: {PLANTED['WrongKey']}"),
    "a route that is not open": chat(PROMPT, path=f"/{PLANTED['Path']}"),
    "no such record": post(f"/energy/none?key={PLANTED['Query']}", b"", f"X-Api-Key: {KEY}", *FIELDS, method="GET"),
    "too large a body": chat(PROMPT).replace(b"Content-Length: %d" % len(PROMPT), b"Content-Length: 99000000"),
    "a malformed field": chat(PROMPT, f"Bad Name {PLANTED['Malformed']}: {PLANTED['Malformed']}"),
    "a malformed target": post(f"/v1/ {PLANTED['Malformed']}", b"", f"X-Api-Key: {KEY}"),
    "too long a field": chat(PROMPT, f"X-Long: {PLANTED['Malformed'] * 9000}"),
    "two lengths": chat(PROMPT, "Content-Length: 3"),
}


async def send(port, request, *, until=None, patience_s=20):
    """What comes back to raw bytes, up to the end of the connection or to `until`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    got = b""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(patience_s):
            while (until is None or until not in got) and (piece := await reader.read(65536)):
                got += piece
    writer.close()
    return got


@contextlib.asynccontextmanager
async def engine_of(scripts):
    """An engine that plays a script for each POST, and knows nothing of what the sidecar asks beside the traffic; yields its port and
    what it was sent."""
    requests = []

    async def serve(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError), contextlib.closing(writer):
            while head := await reader.readuntil(b"\r\n\r\n"):
                if not head.startswith(b"POST"):
                    writer.write(answer(b"", status="404 Not Found"))
                    continue
                length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
                requests.append(head + await reader.readexactly(length))
                for step in scripts[len(requests) - 1]:
                    if step is CUT:
                        return
                    if isinstance(step, float):
                        await asyncio.sleep(step)
                    else:
                        writer.write(step)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], requests


@contextlib.asynccontextmanager
async def serving(folder, upstream, collector):
    """The real command with everything on that could tell something, at level debug; yields its two ports and its process."""
    budget = "interval_s = 86400\nrequests = 7\n"  # six, and the one that was too large
    (folder / "keys.toml").write_text(entry_for("tenant-a", KEY) + budget)
    (folder / "token").write_text(TOKEN)
    command = [sys.executable, "-m", "perjoule.main", "serve", "--upstream", upstream, "--listen", "127.0.0.1:0",
               "--admin", "127.0.0.1:0", "--energy", "simulated", "--ledger", str(folder / "ledger.sqlite3"), "--log-level", "debug",
               "--otlp", collector.url, "--keys", str(folder / "keys.toml"), "--admin-token-file", str(folder / "token"),
               "--calibrations", str(folder / "calibrations"), "--engine", "vllm"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PERJOULE_", "OTEL_"))}
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=log,
                                                       env=kept | {"PERJOULE_UPSTREAM_KEY": ENGINE_KEY})
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 60)
        where = json.loads(line)
        yield *(int(where[name].rpartition(":")[2]) for name in ("listen", "admin")), process, line
    finally:
        if process.returncode is None:
            process.terminate()
            await asyncio.wait_for(process.wait(), 60)


async def everything_said(folder):
    """Drive all of it once, and collect every byte that comes out beside the answers themselves."""
    with http_collector() as collector:
        return await everything_told(folder, collector)


async def everything_told(folder, collector):
    """The same, with spans and metrics sent to this collector."""
    said = {}
    async with engine_of(SCRIPTS) as (engine, requests), \
            serving(folder, f"http://127.0.0.1:{engine}", collector) as (port, admin, process, line):
        said["standard output"] = line
        said["arguments"] = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        for name, request in REFUSED.items():
            raw = await send(port, request, until=b"}}")
            assert raw.startswith(b"HTTP/1.1 4"), (name, raw)
            said[f"refusal of {name}"] = raw
        async with aiohttp.ClientSession(f"http://127.0.0.1:{admin}") as operator:
            async def ask(path, **fields):
                async with operator.get(path, headers=fields) as response:
                    return await response.read()

            shown = {"Authorization": f"Bearer {TOKEN}"}
            assert PLANTED["Answer"].encode() in await send(port, chat(PROMPT))  # the answer itself, of course
            stream = asyncio.ensure_future(send(port, chat(STREAMED)))
            while b"record_id" not in (in_flight := await ask("/energy/in-flight", **shown)):
                await asyncio.sleep(0.02)
            said["/energy/in-flight"] = in_flight
            assert PLANTED["StreamError"].encode() in await stream
            await send(port, chat(PROMPT))
            said["an engine that speaks no HTTP"] = await send(port, chat(PROMPT))
            await send(port, chat(STREAMED))
            await send(port, chat(STREAMED))
            said["a budget that is spent"] = await send(port, chat(PROMPT))
            assert b" 429 " in said["a budget that is spent"]
            async with asyncio.timeout(20):  # for the last records to be stored
                while len(collector.spans) < 6 or (await ask("/energy", **shown)).count(b'"record_id"') < 6:
                    await asyncio.sleep(0.05)
            for path in ("/metrics", "/energy", "/energy?by=tenant,model,outcome", "/energy/balance", "/readyz"):
                said[path] = await ask(path, **shown)
            said["without the token"] = await ask(f"/energy?token={PLANTED['Query']}")
            said["a wrong token"] = await ask("/energy", Authorization=f"Bearer {PLANTED['WrongKey']}")
            said["an unknown page"] = await ask("/nothing", **shown)
        said["spans"] = b"".join(request.SerializeToString() for request in collector.requests)
        for name in ("ledger.sqlite3", "ledger.sqlite3-wal"):
            said[f"{name} while it runs"] = (folder / name).read_bytes()
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 60) == 0
    for path in (folder / "ledger.sqlite3", folder / "log", *(folder / "calibrations").glob("**/*")):
        said[path.name] = path.read_bytes()
    return said, b"".join(requests)


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """Everything that came out of one run."""
    return asyncio.run(everything_said(tmp_path_factory.mktemp("secrets")))


def test_the_secrets_were_there(said):
    """The engine got the prompt and its own key, and the sidecar said enough for a search to mean something."""
    out, requests = said
    for name in ("Prompt", "System", "Image", "Query", "Cookie", "Header", "EngineKey"):
        assert PLANTED[name].encode() in requests, name
    for name in ("Key", "Basic"):
        assert PLANTED[name].encode() not in requests
    assert b"tenant-a" in out["spans"]
    assert b"tenant-a" in out["ledger.sqlite3"]
    assert out["/energy"].count(b'"record_id"') == 6
    assert b"DEBUG" in out["log"]
    assert b"Traceback" not in out["log"]


@pytest.mark.parametrize("name", PLANTED)
def test_no_secret_comes_out(said, name):
    """Neither as it is nor in base64, in whatever place."""
    out, _ = said
    secret = PLANTED[name].encode()
    spelled = [secret.lower(), *(base64.b64encode(b"x" * shift + secret)[4:-4].lower() for shift in range(3))]
    assert {place for place, text in out.items() for spelling in spelled if spelling in text.lower()} == set()
