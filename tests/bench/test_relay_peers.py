"""Each relay of the bench relays, and one that is not installed says how to get it."""

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from perjoule.bench.child import FailedError, child
from perjoule.bench.process_tree import memory
from perjoule.bench.relay_client import Client, Tally, chat
from perjoule.bench.relay_peers import PEERS, MissingError, Setting, kept_by, listening
from perjoule.bench.relay_upstream import Wish

FRAMES = 20
HAS_NGINX = shutil.which("nginx", path="/usr/bin:/usr/sbin:/usr/local/sbin")


@pytest.fixture
async def setting(tmp_path):
    async with child("perjoule.bench.relay_upstream") as engine, child("perjoule.bench.relay_spans") as spans:
        yield Setting(engine["url"], spans["url"], tmp_path, None, None, 1)


async def driven(port, frames, times=3):
    """What a client sees of so many requests on one connection."""
    left = iter([True] * (times - 1) + [False])
    seen = Tally(chat(port, Wish(frames, 0, 600), 1000), frames, again=lambda: next(left))
    _, client = await asyncio.get_running_loop().create_connection(lambda: Client(seen), "127.0.0.1", port)
    await asyncio.wait_for(client.done, 30)
    client.hang_up()
    return seen


@pytest.mark.parametrize("frames", [0, FRAMES], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", [
    "direct", "aiohttp", "perjoule",
    pytest.param("nginx", marks=pytest.mark.skipif(HAS_NGINX is None, reason="nginx is not installed")),
])
async def test_a_relay_keeps_its_connection_and_loses_nothing(name, frames, setting):
    """Three answers on one connection, every frame in them; but for no relay at all there is a process to measure."""
    async with PEERS[name](setting) as peer:
        seen = await driven(peer.port, frames)
        assert (peer.pid is None) == (name == "direct")
        assert peer.pid is None or memory(peer.pid).rss > 1_000_000
    assert (seen.requests, seen.frames, seen.lost, seen.failed) == (3, 3 * frames, 0, 0)


async def test_ours_runs_with_everything_on(setting):
    """Each request is a record in the ledger and a span at the collector, and the joules move and are conserved."""
    async with PEERS["perjoule"](setting) as peer:
        await driven(peer.port, FRAMES, 5)
        kept = await kept_by(peer, setting.spans, 5)
    assert kept["stored"] == {"ledger": 5, "otlp": 5}
    assert kept["dropped"] == {"ledger": 0, "otlp": 0}
    assert kept["spans_received"] == 5
    balance = kept["balance"]
    assert balance["measured_uj"] == balance["requests_uj"] + balance["idle_uj"] + balance["unattributed_uj"] > 0


@pytest.mark.parametrize(("name", "field", "hint"), [("nginx", "nginx", "--nginx FILE"), ("litellm", "litellm_python", "litellm[proxy]")])
async def test_what_is_not_installed_says_how_to_get_it(name, field, hint, setting):
    """It is missing, with a way to get it, and no crash."""
    absent = replace(setting, **{field: "/nonexistent"})
    with pytest.raises(MissingError) as error:
        async with PEERS[name](absent):
            pass
    assert hint in str(error.value)


async def test_a_program_that_ends_instead_of_listening_says_why():
    """Its last words are in the error."""
    with pytest.raises(FailedError, match="it did not start: no, I will not"):
        async with listening("it", 1, "sh", "-c", "echo 'no, I will not' >&2"):
            pass


async def test_files_stay_in_the_folder(setting):
    """What ours stores lies where it was told, and goes with the folder."""
    async with PEERS["perjoule"](setting) as peer:
        await driven(peer.port, 0)
    assert [path.name for path in (Path(setting.folder) / "perjoule").glob("ledger.sqlite3")] == ["ledger.sqlite3"]
