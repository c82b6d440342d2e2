"""`perjoule meter` as people run it: its reasons, its doors, many sidecars at once, and the joules of a sidecar without a device."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from perjoule.adapters.remote import Access
from perjoule.adapters.remote.meter import MeterCounter
from perjoule.adapters.simulated import EngineCounter
from perjoule.bench.child import child
from perjoule.bench.dialect import MODEL
from perjoule.sidecar.ports import CounterError, UnavailableError
from tests.fakes.certificates import make_certificates
from tests.fakes.counter import check_contract

PATIENCE_S = 60.0
MAIN = [sys.executable, "-m", "perjoule.main"]


@pytest.mark.parametrize(("flags", "reason"), {
    "a port that others can reach": ("--listen 0.0.0.0:0 --energy simulated", "expected a unix socket, a loopback address or a token"),
    "no address": ("--listen nonsense", "--listen: got 'nonsense'"), "an unknown source": ("--energy sun", "--energy: got 'sun'"),
    "a source that is not there": ("--energy dcgm:http://127.0.0.1:1", "dcgm: http://127.0.0.1:1 does not answer"),
    "a folder that is not there": ("--listen unix:/nowhere/x --energy simulated", "cannot listen on unix:/nowhere/x"),
    "a certificate without its key": ("--tls-cert a.pem", "--tls-cert: got a file without --tls-key"),
    "a token file that is not there": ("--energy-token-file /nowhere", "--energy-token-file: cannot read /nowhere"),
    "no mode": ("--socket-mode 9", "--socket-mode: got '9'"), "too seldom": ("--poll-ms 0", "--poll-ms: got 0, expected 1 to 1000"),
}.values())
def test_what_cannot_be_done_is_refused_in_one_line(flags: str, reason: str) -> None:
    """Exit code 2, and why."""
    done = subprocess.run([*MAIN, "meter", *flags.split()], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("perjoule meter: ")
    assert reason in line


def settled(counter: MeterCounter) -> str:
    """Read until it works or fails for good."""
    for _ in range(200):
        try:
            return str(counter.read()[0].energy_uj)
        except CounterError:
            time.sleep(0.05)
    return "failing"


async def test_several_sidecars_read_one_meter(tmp_path: Path) -> None:
    """Each gets every look, and keeps the promises of the port; the meter ends with 0 and takes its socket's file along."""
    where = f"unix:{tmp_path}/meter.sock"
    async with child("perjoule.bench.engine", "--port", "0") as engine:
        meter = await asyncio.create_subprocess_exec(*MAIN, "meter", "--listen", where, "--energy", f"simulated:{engine['url']}",
                                                     stdout=subprocess.PIPE)
        try:
            assert meter.stdout is not None
            told = json.loads(await asyncio.wait_for(meter.stdout.readline(), PATIENCE_S))
            assert (told["listen"], told["energy"], told["pid"]) == (where, "simulated", meter.pid)
            counters = [MeterCounter(where) for _ in range(8)]
            for counter in counters:
                assert (counter.name, counter.status, counter.clock_uncertainty_ns) == ("simulated", "simulated", 0)
                rows = await asyncio.to_thread(check_contract, counter, held=True, pause_s=0.02)
                assert rows[-1][0].energy_uj > rows[0][0].energy_uj
                counter.close()
        finally:
            meter.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(meter.wait(), PATIENCE_S) == 0
        assert not (tmp_path / "meter.sock").exists()


async def test_a_meter_that_hangs_is_an_error_until_it_goes_on(tmp_path: Path) -> None:
    """Its socket still takes connections, so only its silence tells."""
    where = f"unix:{tmp_path}/meter.sock"
    async with child("perjoule.main", "meter", "--listen", where, "--energy", "simulated") as meter:
        counter = MeterCounter(where)

        async def fails() -> bool:
            try:
                return counter.read()[0].energy_uj < 0
            except CounterError:
                return True

        async def works() -> bool:
            return not await fails()

        os.kill(meter["pid"], signal.SIGSTOP)
        try:
            await until(fails)
        finally:
            os.kill(meter["pid"], signal.SIGCONT)
        await until(works)
        counter.close()


async def test_over_tcp_it_asks_for_its_token_and_shows_its_certificate(tmp_path: Path) -> None:
    """Whoever has another token, or none, or believes another authority, gets no joule."""
    made, token = make_certificates(tmp_path), tmp_path / "token"
    token.write_text("right\n")
    async with child("perjoule.main", "meter", "--listen", "127.0.0.1:0", "--energy", "simulated", "--energy-token-file", str(token),
                     "--tls-cert", made("server.pem"), "--tls-key", made("server.key")) as meter:
        where = f"tls://{meter['listen']}"
        counter = await asyncio.to_thread(MeterCounter, where, "all", Access("right", made("ca.pem")))
        assert await asyncio.to_thread(settled, counter) != "failing"
        counter.close()
        for place, access, reason in ((where, Access("wrong", made("ca.pem")), "it refused: the token"),
                                      (where, Access(None, made("ca.pem")), "it refused: the token"),
                                      (where, Access("right", made("other.pem")), "CERTIFICATE_VERIFY_FAILED"),
                                      (meter["listen"], Access("right"), "hung up|timed out|reset")):
            with pytest.raises(UnavailableError, match=reason):
                await asyncio.to_thread(MeterCounter, place, "all", access)


async def test_who_is_no_sidecar_does_no_harm() -> None:
    """Bytes that mean nothing, half a line, a flood: the meter goes on, and says why to who can hear it."""
    async with child("perjoule.main", "meter", "--listen", "127.0.0.1:0", "--energy", "simulated") as meter:
        host, port = meter["listen"].split(":")
        for said in (b"GET / HTTP/1.1\r\n\r\n", b"\xff\n", b"[1]\n", b'{"perjoule_meter":2}\n', b"x" * (1 << 22), b"", b"{" * 9999 + b"\n"):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(said)
            if not said:
                writer.close()
                continue
            got = b""
            with suppress(ConnectionError):
                got = await asyncio.wait_for(reader.read(), PATIENCE_S)
            assert (b"refused" in got) == (said == b'{"perjoule_meter":2}\n')
            writer.close()
        counter = await asyncio.to_thread(MeterCounter, meter["listen"])
        assert await asyncio.to_thread(settled, counter) != "failing"
        counter.close()


@contextmanager
def watched(url: str) -> Iterator[list[tuple[float, int]]]:
    """Every value of the engine's counter, and when it was seen."""
    counter, seen, stop = EngineCounter(url), list[tuple[float, int]](), threading.Event()

    def watch() -> None:
        while not stop.wait(0.01):
            value = counter.read()[0].energy_uj
            if not seen or seen[-1][1] != value:
                seen.append((time.monotonic(), value))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()
        counter.close()


class Front:
    """A `perjoule serve` that has no device, and its clients."""

    def __init__(self, where: dict[str, Any], session: aiohttp.ClientSession) -> None:
        self.where, self.session, self.ids = where, session, list[str]()

    async def ask(self, request_id: str, tokens: int = 12) -> None:
        """One streamed request."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hello " * 20}], "max_tokens": tokens, "stream": True}
        url, named = self.where["listen"] + "/v1/chat/completions", {"X-Request-Id": request_id}
        async with self.session.post(url, json=body, headers=named) as answer:
            assert answer.status == 200
            assert b"[DONE]" in await answer.read()
        self.ids.append(request_id)

    async def get(self, path: str) -> Any:
        async with self.session.get(self.where["admin"] + path) as answer:
            return await answer.json()

    async def records(self) -> list[dict[str, Any]]:
        """Those of all requests, settled."""
        found: list[dict[str, Any]] = []
        for request_id in self.ids:
            async with asyncio.timeout(PATIENCE_S):
                while not (record := await self.get(f"/energy/{request_id}")).get("settled"):
                    await asyncio.sleep(0.05)
            found.append(record)
        return found


@asynccontextmanager
async def front(upstream: str, energy: str, ledger: Path, *flags: str) -> AsyncIterator[Front]:
    command = ["serve", "--upstream", upstream, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--energy", energy,
               "--ledger", str(ledger), "--calibrations", "off", *flags]
    async with child("perjoule.main", *command) as where, aiohttp.ClientSession() as session:
        yield Front(where, session)


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await true():
            await asyncio.sleep(0.05)


async def test_the_joules_of_a_sidecar_without_a_device_add_up(tmp_path: Path) -> None:
    """Under load, with the meter killed and started again in the middle: measured is what the counter advanced, to the microjoule, and
    all of it is in records, in idle or in unattributed. What ran while nobody looked costs what was seen of it, or is not known."""
    where = f"unix:{tmp_path}/meter.sock"
    async with child("perjoule.bench.engine", "--port", "0", "--speed", "4") as engine:
        with watched(engine["url"]) as seen:
            flags = ["perjoule.main", "meter", "--listen", where, "--energy", f"simulated:{engine['url']}"]
            async with child(*flags) as meter, front(engine["url"], f"meter:{where}", tmp_path / "ledger") as sidecar:
                started_s = time.monotonic()
                await asyncio.gather(*(sidecar.ask(f"before-{n}") for n in range(8)))
                await sidecar.records()
                os.kill(meter["pid"], signal.SIGKILL)

                async def failing() -> bool:
                    return bool((await sidecar.get("/readyz"))["energy_failing"])

                await until(failing)
                during = asyncio.gather(*(sidecar.ask(f"during-{n}", 200) for n in range(3)))
                await asyncio.sleep(1.5)  # long enough that what was drawn meanwhile cannot be dated
                async with child(*flags):
                    async def works() -> bool:
                        return not await failing()

                    await until(works)
                    await during
                    await asyncio.gather(*(sidecar.ask(f"after-{n}") for n in range(8)))
                    records = {record["request_id"]: record for record in await sidecar.records()}
                    balance = await sidecar.get("/energy/balance")
                    asked_s = time.monotonic()
                    await asyncio.sleep(0.3)  # until what the balance has is surely seen by us, too
    assert balance["conserved"], balance
    assert balance["unattributed_uj"] > 0
    first = {value for seen_s, value in seen if seen_s < started_s + 2.0}
    last = {value for seen_s, value in seen if asked_s - 3.0 < seen_s}
    assert balance["measured_uj"] in {end - begin for begin in first for end in last}
    assert sum(record["energy_uj"] or 0 for record in records.values()) == balance["requests_uj"]
    statuses = {name: record["status"] for name, record in records.items()}
    assert {statuses[name] for name in statuses if not name.startswith("during")} == {"simulated"}
    assert all((record["status"] == "unavailable") == (record["energy_uj"] is None) for record in records.values())
    assert len(records) == 19


async def test_it_is_as_good_as_a_counter_of_our_own(tmp_path: Path) -> None:
    """Two sidecars in front of one engine, one that reads the counter and one that is told: over all that both saw, the same joules."""
    where = f"unix:{tmp_path}/meter.sock"
    async with child("perjoule.bench.engine", "--port", "0", "--speed", "4") as engine:
        source = f"simulated:{engine['url']}"
        async with (child("perjoule.main", "meter", "--listen", where, "--energy", source),
                    front(engine["url"], source, tmp_path / "near") as near,
                    front(near.where["listen"], f"meter:{where}", tmp_path / "far", "--engine", "vllm") as far):
            for _ in range(3):
                await asyncio.gather(*(far.ask(f"{_}-{n}", 60) for n in range(4)))
            near.ids = far.ids
            theirs, ours = [{record["request_id"]: record["energy_uj"] for record in await side.records()} for side in (far, near)]
    period_uj = 69_000_000  # what a board draws in a period at the most
    for name, uj in theirs.items():
        assert uj == pytest.approx(ours[name], abs=period_uj), name
    assert sum(theirs.values()) == pytest.approx(sum(ours.values()), rel=0.2)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None
                    or subprocess.run(["ip", "netns", "add", "perjoule-try"], capture_output=True, check=False).returncode != 0
                    or subprocess.run(["ip", "netns", "del", "perjoule-try"], capture_output=True, check=False).returncode != 0,
                    reason="no network namespaces here")
async def test_a_sidecar_in_another_network_namespace(tmp_path: Path) -> None:
    """A unix socket needs no network at all; over a pair of veths, TCP with a token."""
    space, token = f"perjoule-{os.getpid()}", tmp_path / "token"
    token.write_text("secret")
    setup = [f"ip netns add {space}", f"ip link add pj{os.getpid() % 9999} type veth peer name eth0 netns {space}",
             f"ip addr add 10.213.7.1/30 dev pj{os.getpid() % 9999}", f"ip link set pj{os.getpid() % 9999} up",
             f"ip -n {space} addr add 10.213.7.2/30 dev eth0", f"ip -n {space} link set eth0 up"]
    look = ("import sys, json; from perjoule.adapters.remote import Access; from perjoule.adapters.remote.meter import MeterCounter\n"
            "c = MeterCounter(sys.argv[1], 'all', Access('secret')); print(json.dumps([c.read()[0].energy_uj, c.clock_uncertainty_ns]))")
    try:
        for command in setup:
            subprocess.run(command.split(), check=True, capture_output=True)
        for listen in ("10.213.7.1:0", f"unix:{tmp_path}/meter.sock"):
            async with child("perjoule.main", "meter", "--listen", listen, "--energy", "simulated",
                             "--energy-token-file", str(token)) as meter:
                done = await asyncio.to_thread(subprocess.run, ["ip", "netns", "exec", space, sys.executable, "-c", look, meter["listen"]],
                                               capture_output=True, text=True, timeout=PATIENCE_S, check=False)
                assert done.returncode == 0, done.stderr
                uj, off_ns = json.loads(done.stdout)
                assert uj >= 0
                assert off_ns == 0  # one kernel, one clock
    finally:
        subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", f"pj{os.getpid() % 9999}"], capture_output=True, check=False)
