"""`perjoule replay` from flags to page, through a real sidecar in front of an engine whose joules are known."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from perjoule.bench import replay
from perjoule.bench.child import child
from perjoule.bench.runs import operator
from perjoule.bench.runs.operator import Operator, default_admin

MODEL = "perjoule/simulated-8b"
HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


@dataclass
class Rig:
    url: str
    admin: str


@asynccontextmanager
async def rig(folder, *flags):
    """A simulated engine and `perjoule serve` in front of it, which reads that engine's counter."""
    async with child("perjoule.bench.engine", "--port", "0", "--speed", "4") as engine:
        serve = ["serve", "--upstream", engine["url"], "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--energy",
                 f"simulated:{engine['url']}", "--ledger", str(folder / "ledger.sqlite3"), "--calibrations", "off", *flags]
        async with child("perjoule.main", *serve) as sidecar:
            await asyncio.sleep(0.5)  # its counter has changed by then
            yield Rig(sidecar["listen"], sidecar["admin"])


def flags_for(it, out, *more):
    return ["--url", it.url, "--admin", it.admin, "--model", MODEL, "--out", str(out), "--quiet", *more]


async def replayed(*flags):
    """A run of the command in a thread of its own process; its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "perjoule.main", "replay", *flags, stdout=subprocess.PIPE,
                                                   stderr=subprocess.PIPE)
    out, err = await asyncio.wait_for(process.communicate(), 120)
    return process.returncode, out.decode(), err.decode()


@pytest.fixture
def trace(tmp_path):
    """Six seconds of an Azure trace: forty requests, one of them longer than the engine takes."""
    rows = [f"2023-11-16 18:00:{number * 0.15:010.7f},{40 + number},{8 + number % 5}\n" for number in range(40)]
    file = tmp_path / "trace.csv"
    file.write_text(HEADER + "".join(rows))
    return f"azure2023:{file}"


@pytest.mark.slow
async def test_a_trace_from_flags_to_page(tmp_path, trace):
    """Every request as the schedule had it, with its record; the joules of all records are the counter's; the same schedule again."""
    async with rig(tmp_path) as it:
        flags = flags_for(it, tmp_path / "a", "--trace", trace, "--steady-min", "1", "--slo", "ttft:1s", "--json", "-")
        code, out, err = await replayed(*flags)
        assert code == 0, err
        again, _, _ = await replayed(*flags_for(it, tmp_path / "b", "--trace", trace))
    result = json.loads(out)
    assert result == json.loads((tmp_path / "a" / "result.json").read_text())
    assert result["outcomes"]["completed"] == len(result["requests"]["index"]) == 40
    assert result["closure"]["exact"]
    assert (result["closure"]["missing"], result["closure"]["unsettled"], result["closure"]["difference_uj"]) == (0, 0, 0)
    assert result["closure"]["counter_j"] > result["closure"]["records_j"] > 0
    assert [got == wanted for got, wanted in zip(result["requests"]["output_tokens"], (8 + n % 5 for n in range(40)), strict=True)]
    assert result["client"]["token_mismatches"] == 0
    assert result["setting"]["model_id"] == MODEL
    assert result["setting"]["energy_status"] == "simulated"
    assert "simulated_energy" in {warning["code"] for warning in result["warnings"]}
    assert "<!doctype html>" in (tmp_path / "a" / "page.html").read_text()[:200].lower()
    assert (tmp_path / "a" / "schedule.jsonl").read_bytes() == (tmp_path / "b" / "schedule.jsonl").read_bytes()
    assert again == 0


@pytest.mark.slow
async def test_a_sweep_with_repeats_has_a_page_of_its_own(tmp_path):
    """Runs in turns, each with its folder, and no sidecar ledger: the records are asked for one by one."""
    async with rig(tmp_path, "--ledger", "off") as it:
        code, out, err = await replayed(*flags_for(it, tmp_path / "s", "--trace", "fixed:30,10,900", "--duration", "1",
                                                   "--sweep", "concurrency=1,4", "--repeats", "2", "--json", "-", "--require-valid"))
    assert code == 1, err  # valid it cannot be in a second
    results = json.loads(out)
    assert [result["load"]["concurrency"] for result in results] == [1, 4, 1, 4]
    assert [result["load"]["seed"] for result in results] == [0, 0, 1, 1]
    assert all(0 < len(result["requests"]["index"]) < 900 and not result["partial"] for result in results)
    assert "partial" not in {reason["code"] for result in results for reason in result["reasons"]}
    assert all(result["closure"]["exact"] and not result["closure"]["missing"] for result in results)
    listed = json.loads((tmp_path / "s" / "sweep.json").read_text())["runs"]
    assert [(run["folder"], run["repeat"], run["seed"]) for run in listed] == [
        ("concurrency=1/1", 1, 0), ("concurrency=4/1", 1, 0), ("concurrency=1/2", 2, 1), ("concurrency=4/2", 2, 1)]
    assert (tmp_path / "s" / "page.html").exists()


@pytest.mark.slow
async def test_a_sweep_over_settings_of_the_server(tmp_path):
    """The command starts the engine anew for each value, leaves it running, and is not waited for any longer than it runs."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    pid = tmp_path / "pid"
    engine = f"{sys.executable} -m perjoule.bench.engine --port {port} --speed 4 --max-num-seqs {{server}}"
    script = f"[ -f {pid} ] && kill $(cat {pid}); sleep 0.3; {engine} & echo $! > {pid}"
    serve = ["serve", "--upstream", f"http://127.0.0.1:{port}", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0",
             "--energy", "simulated", "--ledger", str(tmp_path / "ledger.sqlite3"), "--calibrations", "off"]
    try:
        async with child("perjoule.main", *serve) as sidecar:
            it = Rig(sidecar["listen"], sidecar["admin"])
            code, out, err = await replayed(*flags_for(it, tmp_path / "s", "--trace", "fixed:30,10,8", "--concurrency", "4",
                                                       "--sweep", "server=1,4", "--restart", script, "--json", "-"))
    finally:
        os.kill(int(pid.read_text()), signal.SIGTERM)
    assert code == 0, err
    one, four = json.loads(out)
    assert [result["setting"]["engine_flags"] for result in (one, four)] == [{"server": "1"}, {"server": "4"}]
    assert one["windows"]["whole"]["output_throughput"] < four["windows"]["whole"]["output_throughput"]


@pytest.mark.slow
async def test_what_is_broken_off_is_kept_marked_and_gone_on_with(tmp_path, trace):
    """Ctrl-C in the middle: what was done is a result that says so; with --resume the rest is sent, and every request is there once."""
    async with rig(tmp_path) as it:
        flags = flags_for(it, tmp_path / "r", "--trace", trace)
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "perjoule.main", "replay", *flags, stdout=subprocess.DEVNULL)
        samples = tmp_path / "r" / "samples.jsonl"
        async with asyncio.timeout(30):
            while not (samples.exists() and samples.read_bytes().count(b"\n") >= 1):
                await asyncio.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 30) == 130
        partial = json.loads((tmp_path / "r" / "result.json").read_text())
        assert partial["partial"]
        assert "partial" in {reason["code"] for reason in partial["reasons"]}
        assert 0 < partial["outcomes"]["completed"] < 40
        other, _, err = await replayed(*flags, "--resume", "--seed", "9", "--thin", "0.5")
        assert other == 2
        assert "got the schedule of another run" in err
        code, _, err = await replayed(*flags, "--resume")
        assert code == 0, err
    whole = json.loads((tmp_path / "r" / "result.json").read_text())
    assert not whole["partial"]
    assert (whole["outcomes"]["completed"], whole["run_id"]) == (40, partial["run_id"])
    assert whole["requests"]["index"] == list(range(40))
    assert whole["closure"]["exact"]


@pytest.mark.slow
async def test_what_cannot_be_run_is_said_before_anything_is_sent(tmp_path):
    """Another model, no engine, a workload without times."""
    async with rig(tmp_path) as it:
        code, _, err = await replayed(*flags_for(it, tmp_path / "x", "--trace", "fixed:8,8", "--concurrency", "1", "--model", "other"))
        assert (code, f"expected one that {it.url} has: {MODEL}" in err) == (2, True)
        code, _, err = await replayed(*flags_for(it, tmp_path / "x", "--trace", "fixed:8,8"))
        assert (code, "has no times; expected --concurrency or --request-rate" in err) == (2, True)
    code, _, err = await replayed(*flags_for(it, tmp_path / "x", "--trace", "fixed:8,8", "--concurrency", "1"))
    assert (code, "expected an inference server" in err) == (2, True)


async def test_lengths_that_do_not_fit_are_scaled_and_it_is_said(tmp_path):
    """To the engine's context, where the flags say nothing of lengths; and left alone where they do."""
    from perjoule.bench.runs.flags import fitted, read_flags, workload_for

    flags = ["--url", "http://h", "--model", "m", "--out", str(tmp_path), "--trace", "fixed:3000,1000,2", "--concurrency", "1"]
    args = read_flags(flags)
    scaled = fitted(workload_for(args), args, 2016)
    assert [(turn.input_tokens, turn.output_tokens) for turn in scaled.turns] == [(1500, 500)] * 2
    assert "the longest request had 4000 tokens, the engine takes 2016: all lengths were scaled to fit" in scaled.notes
    assert args.said == ["--scale-lengths 0.5000"]
    told = read_flags([*flags, "--max-context", "5000"])
    assert fitted(workload_for(told), told, 2016).turns[0].input_tokens == 3000


async def test_a_sidecar_that_is_not_there_says_nothing():
    """And stops nothing: its records are simply missing."""
    async with Operator("http://127.0.0.1:1", "http://127.0.0.1:1") as nobody:
        assert not nobody.reached
        assert (await nobody.setting(), await nobody.balance(), await nobody.boards()) == ({}, None, [])
        assert await nobody.records(time.time_ns(), {"a": "b"}) == []


def test_the_operators_port_is_where_serve_has_it():
    assert default_admin("http://10.0.0.1:8080/v1") == "http://10.0.0.1:9464"


@pytest.mark.slow
async def test_records_are_read_page_by_page(tmp_path, monkeypatch):
    """However many there are, each once."""
    monkeypatch.setattr(operator, "PAGE", 12)
    async with rig(tmp_path) as it:
        code, _, err = await replayed(*flags_for(it, tmp_path / "p", "--trace", "fixed:8,2,30", "--concurrency", "8"))
        assert code == 0, err
        async with Operator(it.url, it.admin) as there:
            records = await there.records(time.time_ns() - 10**11, {})
    assert len({record["record_id"] for record in records}) == len(records) == 31  # and one that asked which token ids are taken
    assert (tmp_path / "p" / "records.jsonl").exists()


def test_calibrate_needs_no_url(capsys):
    """`--calibrate` measures the client, and has flags of its own."""
    with pytest.raises(SystemExit) as said:
        replay.run(["--calibrate", "--help"])
    assert said.value.code == 0
    assert "--seconds" in capsys.readouterr().out
