"""`perjoule serve` with a sink of events and a grid, as processes: what the ledger has leaves it, whatever dies meanwhile."""

import asyncio
import contextlib
import json
import os
import signal
import socket

import pytest

from perjoule.adapters.ledger.database import open_database
from perjoule.adapters.ledger.queries import Queries
from perjoule.bench.child import child
from perjoule.main import main
from tests.fakes.events import event_sink
from tests.test_serve import CHAT, ask

PORTS = ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--calibrations", "off", "--energy", "simulated", "--grid", "fixed:400")


def serving(engine, ledger, url):
    return child("perjoule.main", "serve", "--upstream", engine, "--ledger", str(ledger), "--events", url, *PORTS)


def stored(ledger):
    """The records that the ledger has, by id."""
    database = open_database(ledger, create=False)
    try:
        return {record["record_id"]: record for record in map(json.loads, Queries(database).walk())}
    finally:
        database.close()


@pytest.mark.slow
async def test_events_survive_a_sink_that_is_away_and_a_sidecar_that_is_killed(tmp_path, capsys):
    """Requests while the sink is down, kill -9, another run, the sink comes up: every record's event is there, with its joules. The grid's
    intensity is in the ledger, and a report has carbon."""
    ledger = tmp_path / "ledger"
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api/v1/events"
    async with child("perjoule.bench.engine", "--port", "0") as engine:
        with contextlib.suppress(Exception):  # a child that is killed does not end well
            async with serving(engine["url"], ledger, url) as first:
                for _ in range(3):
                    await ask(first["listen"] + "/v1/chat/completions", CHAT, **{"X-Energy-Include": "settled"})
                while "events" not in json.loads((await ask(first["admin"] + "/readyz"))[1])["sinks_failing"]:
                    await asyncio.sleep(0.05)
                os.kill(first["pid"], signal.SIGKILL)
        assert len(stored(ledger)) == 3
        async with event_sink(port) as sink, serving(engine["url"], ledger, url) as second:
            await ask(second["listen"] + "/v1/chat/completions", CHAT, **{"X-Energy-Include": "settled"})
            async with asyncio.timeout(90):  # the turn of the run that was killed must end
                while len(sink.ids) < 4:
                    await asyncio.sleep(0.05)
    records = stored(ledger)
    assert {event_id: {event["data"]["energy_uj"] for event in events} for (_, event_id), events in sink.seen.items()} == {
        record_id: {record["energy_uj"]} for record_id, record in records.items()}
    assert {source for source, _ in sink.seen} == {f"perjoule/{record['instance_id']}" for record in records.values()}
    assert main(["ledger", str(ledger), "report", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (line,) = (line for line in told["lines"] if line["what"] == "requests")
    assert (line["statuses"], line["carbon"][0]["known_uj"]) == (["simulated"], line["energy_uj"])
    assert {"idle", "unattributed"} <= {line["what"] for line in told["lines"]}


@pytest.mark.parametrize(("flags", "said"), [
    (("--events", "gopher://x"), "--events: expected"), (("--grid", "coal:1"), "--grid: got 'coal:1'"),
    (("--grid", "electricitymaps:DE"), "expected --grid-token-file"),
    (("--grid", "fixed:1", "--ledger", "off"), "--grid: there is no ledger"),
    (("--events-token-file", "/nowhere"), "--events-token-file: cannot read")])
def test_what_cannot_be_used_stops_the_start(tmp_path, capsys, flags, said):
    """Exit code 2, and what was got and expected."""
    ledger = () if "--ledger" in flags else ("--ledger", str(tmp_path / "ledger"))
    assert main(["serve", "--upstream", "http://127.0.0.1:9", "--energy", "simulated", *ledger, *flags]) == 2
    assert said in capsys.readouterr().err
