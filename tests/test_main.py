"""The command `perjoule serve` as people run it: a process, its exit code, its reasons, its signals."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from tests.fakes.sidecar import post
from tests.fakes.upstream import answer, chunked, sse, stream_head

PERJOULE = [sys.executable, "-m", "perjoule.main"]
SERVE = ["serve", "--upstream", "http://127.0.0.1:9"]  # nothing listens there; `serve` starts all the same
FRAME = chunked(sse('{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}'))[:-5]
STREAM = post("/v1/chat/completions", b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}')


def environment(folder):
    """This process' environment without anything that perjoule reads, and a state folder of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PERJOULE_")}
    return kept | {"XDG_STATE_HOME": str(folder)}


def refused(command, folder):
    """Run a command that must refuse with exit code 2 and one line on standard error; answers that line."""
    done = subprocess.run([*PERJOULE, *command], capture_output=True, text=True, timeout=60, env=environment(folder))
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    (line,) = done.stderr.splitlines()
    return line


REFUSED = {
    "no upstream": (["serve"], "--upstream is required"),
    "an upstream that is no URL": (["serve", "--upstream", "localhost:8000"], "--upstream: got 'localhost:8000'"),
    "a certificate without its key": ([*SERVE, "--tls-cert", "a.pem"], "--tls-cert: got a file without --tls-key, expected both"),
    "its own unix socket": (["serve", "--upstream", "unix:///a", "--listen", "unix:/a"], "is where this sidecar itself would listen"),
    "an exporter that can be nowhere": ([*SERVE, "--energy", "dcgm:ftp://127.0.0.1:1"], "dcgm: got 'ftp://127.0.0.1:1'"),
    "an unknown source": ([*SERVE, "--energy", "sun"], "--energy: got 'sun'"),
    "a recording that is not there": ([*SERVE, "--energy", "replay:/nonexistent"], "/nonexistent"),
    "a ledger that cannot be": ([*SERVE, "--energy", "simulated", "--ledger", "/proc/folder/ledger.sqlite3"], "/proc/folder"),
    "a folder for calibrations that cannot be": ([*SERVE, "--energy", "simulated", "--ledger", "off", "--calibrations", "/proc/folder"],
                                                 "--calibrations: "),
    "a calibration that is not there": (["calibration", "show", "fitted-0"], "got 'fitted-0', expected one of none"),
}


@pytest.mark.parametrize(("command", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_done_is_refused_in_one_line(command, reason, tmp_path):
    """Exit code 2, and a line that says what was got."""
    assert reason in refused(command, tmp_path)


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a GPU here")
def test_a_named_source_that_is_not_there_is_refused(tmp_path):
    """Who asks for nvml by name on a machine without a GPU hears so, instead of getting no joules."""
    assert "nvml" in refused([*SERVE, "--energy", "nvml"], tmp_path)


def test_a_busy_port_is_refused(tmp_path):
    """The reason names the address that is taken."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        quietly = ["--admin", "127.0.0.1:0", "--energy", "simulated", "--ledger", "off"]
        assert listen.rpartition(":")[2] in refused([*SERVE, "--listen", listen, *quietly], tmp_path)


def test_an_unknown_key_in_the_file_is_refused(tmp_path):
    """A typing mistake in a setting's name is not a default."""
    file = tmp_path / "perjoule.toml"
    file.write_text('upstream = "http://127.0.0.1:9"\nlisen = "127.0.0.1:0"\n')
    assert "unknown setting 'lisen'" in refused(["serve", "--config", str(file)], tmp_path)


class Serving:
    """A `perjoule serve` in a process of its own, in front of an engine whose streams go on until `go` is set."""

    def __init__(self, folder):
        self.ledger, self.folder = folder / "ledger.sqlite3", folder
        self.go = asyncio.Event()

    async def engine(self, reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                if not head.startswith(b"POST"):  # it asks what we are
                    writer.write(answer(b"", status="404 Not Found"))
                    continue
                writer.write(stream_head() + FRAME)
                await self.go.wait()
                writer.write(chunked(sse("[DONE]")))
        writer.close()

    async def start(self, upstream, *flags):
        command = ["serve", "--upstream", upstream, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--energy", "simulated",
                   "--ledger", str(self.ledger), *flags]
        with (self.folder / "log").open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(*PERJOULE, *command, env=environment(self.folder),
                                                                stdout=subprocess.PIPE, stderr=log)
        where = json.loads(await asyncio.wait_for(self.process.stdout.readline(), 60))
        self.port, self.admin = (int(where[name].rpartition(":")[2]) for name in ("listen", "admin"))

    async def stream(self):
        """A client that has got the first frame of a stream."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(STREAM)
        await asyncio.wait_for(reader.readuntil(FRAME), 20)
        return reader, writer

    async def ready(self):
        """The status of /readyz."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.admin)
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        status = (await reader.read()).split(b" ", 2)[1]
        writer.close()
        return int(status)

    async def until_not_ready(self):
        async with asyncio.timeout(20):
            while await self.ready() != 503:
                await asyncio.sleep(0.02)

    async def until_refused(self):
        async with asyncio.timeout(20):
            while True:
                try:
                    (await asyncio.open_connection("127.0.0.1", self.port))[1].close()
                except ConnectionRefusedError:
                    return
                except ConnectionResetError:
                    pass  # it was in the queue of the socket that was just closed

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    async def exit_code(self):
        return await asyncio.wait_for(self.process.wait(), 20)

    def outcomes(self):
        """The outcome of every record in the ledger."""
        with closing(sqlite3.connect(self.ledger)) as rows:
            return [outcome for (outcome,) in rows.execute("SELECT outcome FROM records")]


@asynccontextmanager
async def serving(folder, *flags):
    """A Serving that is up; whatever it ends like, it must not have raised."""
    it = Serving(folder)
    server = await asyncio.start_server(it.engine, "127.0.0.1", 0)
    try:
        await it.start(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", *flags)
        yield it
        assert "Traceback" not in (folder / "log").read_text()
    finally:
        if it.process.returncode is None:
            it.process.kill()
            await it.process.wait()
        it.go.set()
        server.close()


async def test_sigterm_ends_an_idle_sidecar(tmp_path):
    """Nothing to wait for, nothing to report: exit code 0."""
    async with serving(tmp_path, "--drain-s", "600") as it:
        assert await it.ready() == 200
        it.terminate()
        assert await it.exit_code() == 0


async def test_sigterm_lets_a_stream_come_to_its_end(tmp_path):
    """Meanwhile not ready and not to be connected to; then a clean end for the client, a record in the ledger, exit code 0."""
    async with serving(tmp_path, "--drain-s", "600") as it:
        reader, writer = await it.stream()
        it.terminate()
        await it.until_not_ready()
        await it.until_refused()
        it.go.set()
        assert (await asyncio.wait_for(reader.read(), 20)).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        writer.close()
        assert await it.exit_code() == 0
        assert it.outcomes() == ["completed"]


@pytest.mark.parametrize("again", [False, True], ids=["after --drain-s", "when asked twice"])
async def test_a_stream_that_does_not_end_is_cut(again, tmp_path):
    """When its time is up, or at the second SIGTERM: no clean end for the client, and one record that says so."""
    async with serving(tmp_path, "--drain-s", "600" if again else "1") as it:
        reader, writer = await it.stream()
        it.terminate()
        await it.until_not_ready()
        if again:
            it.terminate()
        assert not (await asyncio.wait_for(reader.read(), 20)).endswith(b"0\r\n\r\n")
        writer.close()
        assert await it.exit_code() == 0
        assert len(it.outcomes()) == 1
        assert it.outcomes()[0] in ("cancelled", "errored")
