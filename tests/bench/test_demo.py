"""`perjoule demo` itself: the real command, the real sidecar, and what happens when something does not start."""

import asyncio
import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time

import aiohttp
import openai
import pytest

from perjoule.bench.child import FailedError, child
from perjoule.bench.demo import INTERRUPTED, run
from perjoule.bench.demo_play import get, see
from perjoule.bench.visits import Kind, Visit

DEMO = [sys.executable, "-m", "perjoule.main", "demo"]


def test_the_demo_works():
    """It ends with 0: a simulated record for each request, conserved, nearer to the truth than rules of thumb."""
    done = subprocess.run([*DEMO, "--requests", "7", "--seed", "45", "--json"], capture_output=True, timeout=60)
    told = json.loads(done.stdout)
    assert (done.returncode, told["problems"]) == (0, [])
    assert len({row["record_id"] for row in told["requests"]}) == 7
    assert {row["status"] for row in told["requests"]} == {"simulated"}
    assert [row["outcome"] for row in told["requests"] if row["kind"] == "leaves halfway"] == ["cancelled"]
    balance = told["balance"]
    assert balance["measured_uj"] == balance["requests_uj"] + balance["idle_uj"] + balance["unattributed_uj"]
    distance = told["distance_from_truth"]
    assert distance["perjoule"] < min(distance["equal_split"], distance["by_output_tokens"], distance["by_all_tokens"])


def test_bad_flags_are_refused(capsys):
    """Zero requests is an error that says what was got and what was expected."""
    with pytest.raises(SystemExit) as ended:
        run(["--requests", "0"])
    assert ended.value.code == 2
    assert "got 0, expected at least 1" in capsys.readouterr().err


def test_it_is_held_or_reported(capsys):
    """What has no end has no report."""
    with pytest.raises(SystemExit) as ended:
        run(["--hold", "--json"])
    assert ended.value.code == 2
    assert "--hold: got --json too" in capsys.readouterr().err


async def test_held_it_shows_the_live_page_and_goes_on_until_ctrl_c(tmp_path):
    """The address is printed and given to the browser; there the tenants are, with simulated joules; Ctrl-C ends all of it."""
    browser, given = tmp_path / "browser", tmp_path / "given"
    browser.write_text(f'#!/bin/sh\necho "$1" > {given}.part && mv {given}.part {given}\n')
    browser.chmod(0o755)
    command = [*DEMO, "--hold", "--open"]
    demo = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
                                                env={**os.environ, "BROWSER": f"{browser} %s"})
    try:
        async with asyncio.timeout(60):
            url = (await demo.stdout.readline()).decode().split()[-1]
            while not given.exists():
                await asyncio.sleep(0.05)
            assert given.read_text().strip() == url
            seen = set()
            async with aiohttp.ClientSession() as http:
                async with http.get(url) as page:
                    assert "<title>perjoule live</title>" in await page.text()
                while not {"support", "search", "writers", "nightly-batch"} <= seen:
                    seen |= {one["tenant"] for one in (await get(http, url + "energy/in-flight"))["requests"]}
                assert (await get(http, url + "energy/setting"))["energy_status"] == "simulated"
    finally:
        os.killpg(demo.pid, signal.SIGINT)
        _, said = await demo.communicate()
    assert (demo.returncode, said.decode()) == (INTERRUPTED, "perjoule demo: interrupted\n")
    with pytest.raises(ProcessLookupError):
        os.killpg(demo.pid, 0)


def read_until(file, marks):
    """What was read up to and with the last of the marks, each looked for after the one before."""
    read = b""
    for mark in marks:
        begin = len(read)
        while mark not in read[begin:]:
            part = os.read(file, 4096)
            assert part, f"ended before {mark!r}: {read!r}"
            read += part
    return read


def drain(file):
    """Keep a terminal from filling up, so that nobody waits to write to it."""
    with contextlib.suppress(OSError):  # EIO: the other end has closed
        while os.read(file, 4096):
            pass


@pytest.mark.parametrize(("loading", "shown"), [
    (b"| rich.console", []),
    (b"| perjoule.bench.demo_play", []),
], ids=["while modules load", "while children start"])
def test_ctrl_c_is_one_line(loading, shown):
    """Ctrl-C, to everybody on the terminal as a terminal sends it: one line, 130, no traceback, no child left."""
    terminal, ours = pty.openpty()
    # Who runs the tests in the background has a shell that has them ignore Ctrl-C.
    command = ["env", "--default-signal=INT", sys.executable, "-X", "importtime", *DEMO[1:]]
    with subprocess.Popen(command, stdout=ours, stderr=subprocess.PIPE, start_new_session=True) as demo:
        os.close(ours)
        said = read_until(demo.stderr.fileno(), [loading])
        read_until(terminal, shown)
        drained = threading.Thread(target=drain, args=(terminal,))
        drained.start()
        time.sleep(0.1)  # into the midst of it: loading takes longer, and so does the start of a child
        os.killpg(demo.pid, signal.SIGINT)
        said += demo.stderr.read()
    drained.join()
    os.close(terminal)
    lines = [line for line in said.decode().splitlines() if not line.startswith("import time:")]
    assert (demo.returncode, lines) == (INTERRUPTED, ["perjoule demo: interrupted"])
    with pytest.raises(ProcessLookupError):
        os.killpg(demo.pid, 0)


async def test_a_child_that_does_not_start_is_told():
    """The error carries what the child said on standard error."""
    with pytest.raises(FailedError, match=r"did not start[\s\S]*unrecognized arguments: --no-such-flag"):
        async with child("perjoule.bench.engine", "--no-such-flag"):
            pass


async def test_a_child_lives_as_long_as_the_block():
    """It is ready when the block begins and gone when it has ended, also by an error."""
    async def health():
        async with aiohttp.ClientSession() as http, http.get(url + "/health") as response:
            return response.status

    with contextlib.suppress(ZeroDivisionError):
        async with child("perjoule.bench.engine", "--port", "0") as engine:
            url = engine["url"]
            assert await health() == 200
            1 / 0  # noqa: B018
    with pytest.raises(aiohttp.ClientConnectionError):
        await health()


async def test_a_sidecar_that_is_gone_is_told(unused_tcp_port):
    """Nobody answers: an error that names the address for who asks for the balance, a failed visit for who visits."""
    gone = f"http://127.0.0.1:{unused_tcp_port}"
    visit = Visit("v", Kind.CHAT, 0.0, prompt_tokens=10, max_tokens=5)
    async with aiohttp.ClientSession() as http, openai.AsyncOpenAI(base_url=gone, api_key="none",
                                                                   max_retries=0) as client:
        with pytest.raises(FailedError, match=f"GET {gone}/energy/balance: ClientConnectorError"):
            await get(http, gone + "/energy/balance")
        await see(visit, client, http, gone)
    assert "APIConnectionError" in visit.failure
