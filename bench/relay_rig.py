"""Everything that a run of bench/relay.py needs, running: engine, collector, load, and the relays between them, each on its cores."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from perjoule.bench.child import FailedError, child
from perjoule.bench.relay_load import Job
from perjoule.bench.relay_machine import Cores, on_cores
from perjoule.bench.relay_peers import PEERS, MissingError, Peer, Setting, port_of


@dataclass(slots=True)
class Rig:
    """What runs. `loads` are the ports of the load processes."""

    engine_pid: int
    spans_url: str
    loads: list[int]
    setting: Setting
    peers: list[Peer] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    async def put(self, peer: Peer, fields: dict[str, Any], load: int = 0) -> dict[str, Any]:
        """One load on one relay: what was measured. Raises FailedError."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.loads[load])
        writer.write(json.dumps(asdict(Job(peer.port, peer.pid, self.engine_pid, **fields))).encode() + b"\n")
        line = await reader.readline()
        writer.close()
        if not line:
            raise FailedError(f"the load on {peer.name} broke off")
        measured: dict[str, Any] = json.loads(line)
        return measured


@asynccontextmanager
async def rig(cores: Cores, nginx: str | None = None, litellm_python: str | None = None, workers: int = 1,
              processes: int = 1) -> AsyncIterator[Rig]:
    """Engine, collector and load, so many processes of the first and the last; no relay yet. This process stays on the load's cores."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="perjoule-relay-")))
        stack.enter_context(on_cores(cores.load))
        with on_cores(cores.engine):
            engine = await stack.enter_async_context(child("perjoule.bench.relay_upstream"))
            for _ in range(processes - 1):
                await stack.enter_async_context(child("perjoule.bench.relay_upstream", "--port", str(port_of(engine["url"]))))
            spans = await stack.enter_async_context(child("perjoule.bench.relay_spans"))
        loads = [(await stack.enter_async_context(child("perjoule.bench.relay_load")))["port"] for _ in range(processes)]
        yield Rig(engine["pid"], spans["url"], loads, Setting(engine["url"], spans["url"], folder, nginx, litellm_python, workers))


@asynccontextmanager
async def relays(it: Rig, names: Sequence[str], cores: Sequence[int]) -> AsyncIterator[None]:
    """The relays of those names while the block runs, in `it.peers`; those that are not installed are in `it.missing`."""
    async with AsyncExitStack() as stack:
        for name in names:
            try:
                with on_cores(cores):
                    it.peers.append(await stack.enter_async_context(PEERS[name](it.setting)))
            except MissingError as error:
                it.missing[name] = str(error)
        yield
