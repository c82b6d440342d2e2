"""The relays that bench/relay.py compares, each started as its own people would: nginx, two bare ones, LiteLLM, perjoule."""

import asyncio
import os
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from perjoule import __version__
from perjoule.bench.child import FailedError, child, program
from perjoule.bench.relay_upstream import MODEL
from perjoule.sidecar import telemetry
from perjoule.sidecar.telemetry import OUTBOX_DROPPED, OUTBOX_PENDING, OUTBOX_STORED

SETTLE_S = 30.0  # within so long every request has its record, and every record is where it belongs
LOOK_S = 0.2
START_S = 180.0  # LiteLLM imports for ten seconds, and for a minute where the machine is busy
GET_NGINX = "apt-get install nginx-light, or --nginx FILE"
GET_LITELLM = "python -m venv VENV && VENV/bin/pip install 'litellm[proxy]', then --litellm-python VENV/bin/python"

NGINX = """
{user} daemon off; worker_processes 1; pid {folder}/pid; error_log stderr crit;
events {{ worker_connections 8192; }}
http {{
  access_log off; client_max_body_size 0; client_body_buffer_size 2m; keepalive_requests 1000000000;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c; uwsgi_temp_path {folder}/d;
  scgi_temp_path {folder}/e;
  upstream engine {{ server {engine}; keepalive 2048; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{ proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }}
  }}
}}
"""
LITELLM = """
model_list:
  - model_name: {model}
    litellm_params: {{model: openai/{model}, api_base: "{url}/v1", api_key: none}}
litellm_settings: {{telemetry: false}}
general_settings: {{dangerously_permit_weak_or_unset_master_key: true}}
"""


class MissingError(Exception):
    """A peer that is not installed here; the text says how to get it."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A relay that runs: where it listens, its process (None: there is none), and for ours where the operator looks."""

    name: str
    about: str
    port: int
    pid: int | None
    admin: str | None = None


@dataclass(frozen=True, slots=True)
class Setting:
    """What relays are started with: the engine, the collector of spans, a folder for their files, and what the flags say."""

    engine: str
    spans: str
    folder: Path
    nginx: str | None
    litellm_python: str | None
    workers: int


@asynccontextmanager
async def direct(setting: Setting) -> AsyncIterator[Peer]:
    """No relay: what the others' latencies are compared with."""
    yield Peer("direct", "the engine alone", port_of(setting.engine), None)


@asynccontextmanager
async def nginx(setting: Setting) -> AsyncIterator[Peer]:
    """One worker, no buffering, connections to the engine kept; large bodies are held in memory, not in files."""
    path = setting.nginx or shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if path is None or shutil.which(path) is None:
        raise MissingError(GET_NGINX)
    said = await asyncio.to_thread(subprocess.run, [path, "-v"], capture_output=True, text=True, check=True)
    folder, port = setting.folder / "nginx", free_port()
    folder.mkdir()
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(user="user root;" if os.geteuid() == 0 else "", folder=folder, port=port,
                                   engine=setting.engine.removeprefix("http://")))
    async with listening("nginx", port, path, "-p", str(folder), "-c", str(config)) as pid:
        yield Peer("nginx", said.stderr.strip().removeprefix("nginx version: "), port, pid)


@asynccontextmanager
async def plain(setting: Setting) -> AsyncIterator[Peer]:
    """What `perjoule.bench.plain_relay` is."""
    async with child("perjoule.bench.plain_relay", "--upstream", setting.engine) as said:
        yield Peer("aiohttp", f"aiohttp {version('aiohttp')}, uvloop {version('uvloop')}", port_of(said["listen"]), said["pid"])


@asynccontextmanager
async def skeleton(setting: Setting) -> AsyncIterator[Peer]:
    """What `perjoule.bench.skeleton_relay` is: the floor under a relay in Python."""
    async with child("perjoule.bench.skeleton_relay", "--upstream", setting.engine) as said:
        yield Peer("skeleton", f"httptools {version('httptools')}, uvloop {version('uvloop')}", port_of(said["listen"]), said["pid"])


@asynccontextmanager
async def litellm(setting: Setting) -> AsyncIterator[Peer]:
    """LiteLLM's proxy, one worker, no database."""
    python = setting.litellm_python
    if python is None or shutil.which(python) is None or not (command := Path(python).with_name("litellm")).exists():
        raise MissingError(GET_LITELLM)
    asked = [python, "-c", "from importlib.metadata import version; print('litellm', version('litellm'))"]
    said = await asyncio.to_thread(subprocess.run, asked, capture_output=True, text=True, check=True)
    config, port = setting.folder / "litellm.yaml", free_port()
    config.write_text(LITELLM.format(model=MODEL, url=setting.engine))
    local = "LITELLM_LOCAL_MODEL_COST_MAP=True"  # it would ask the internet for prices, and wait
    flags = ["--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    async with listening("litellm", port, "env", local, str(command), *flags) as pid:
        yield Peer("litellm", said.stdout.strip(), port, pid)


@asynccontextmanager
async def perjoule(setting: Setting) -> AsyncIterator[Peer]:
    """As `perjoule serve` comes, with everything on: a counter that moves, the ledger, calibrations, spans."""
    folder = setting.folder / "perjoule"
    folder.mkdir()
    flags = ["--upstream", setting.engine, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--energy", "simulated",
             "--ledger", str(folder / "ledger.sqlite3"), "--calibrations", str(folder / "calibrations"), "--otlp", setting.spans,
             "--workers", str(setting.workers)]
    async with child("perjoule.main", "serve", *flags) as said:
        core = "compiled" if Path(telemetry.__file__).suffix == ".so" else "interpreted (installed with PERJOULE_COMPILE=1 it is compiled)"
        about = f"perjoule {__version__}, its core {core}" + (f", {setting.workers} workers" if setting.workers > 1 else "")
        yield Peer("perjoule", about, port_of(said["listen"]), said["pid"], said["admin"])


PEERS = {"direct": direct, "nginx": nginx, "skeleton": skeleton, "aiohttp": plain, "litellm": litellm, "perjoule": perjoule}


@asynccontextmanager
async def listening(name: str, port: int, *command: str) -> AsyncIterator[int]:
    """A program that does not say when it is ready: it is when it accepts connections. Yields its process id. Raises FailedError."""
    async with program(*command) as (process, last_words):
        give_up_s = time.monotonic() + START_S
        while not accepts(port):
            if process.returncode is not None or time.monotonic() > give_up_s:
                raise FailedError(f"{name} did not start: {last_words()}")
            await asyncio.sleep(0.05)
        yield process.pid


def accepts(port: int) -> bool:
    """Whether anybody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """A port that nobody listens at now, for programs that cannot choose one and tell."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def port_of(url: str) -> int:
    """The port of http://HOST:PORT."""
    return int(url.rpartition(":")[2])


async def kept_by(peer: Peer, spans_url: str, requests: int) -> dict[str, Any]:
    """What perjoule stored and sent of so many requests, once it has come to the last: proof that everything was on."""
    async with aiohttp.ClientSession() as session:
        give_up_s = time.monotonic() + SETTLE_S
        now = await _outboxes(session, peer)
        while min(now["stored"][sink] + now["dropped"][sink] for sink in now["stored"]) < requests and time.monotonic() < give_up_s:
            await asyncio.sleep(LOOK_S)
            now = await _outboxes(session, peer)
        async with session.get(f"{peer.admin}/energy/balance") as answer:
            balance = await answer.json()
        async with session.get(f"{spans_url}/spans") as answer:
            received = (await answer.json())["spans"]
    return {"requests": requests, **now, "spans_received": received, "balance": balance}


async def _outboxes(session: aiohttp.ClientSession, peer: Peer) -> dict[str, dict[str, int]]:
    """Records that were stored, dropped and wait, by where they go."""
    async with session.get(f"{peer.admin}/metrics") as answer:
        families = text_string_to_metric_families(await answer.text())
    found = sorted((sample.labels["sink"], sample.name, int(sample.value)) for family in families for sample in family.samples
                   if "sink" in sample.labels)
    return {word: {sink: count for sink, name, count in found if name == metric.name}
            for word, metric in (("stored", OUTBOX_STORED), ("dropped", OUTBOX_DROPPED), ("waiting", OUTBOX_PENDING))}
