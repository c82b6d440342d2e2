"""Every coalition on an engine, with the counter beside: what is written can be read, through a sidecar or not."""

import argparse
import asyncio
import sys
from collections import Counter
from itertools import pairwise

import pytest

from perjoule.bench.child import child
from perjoule.bench.coalitions import Kind, kind, schedule, traffic
from perjoule.bench.dialect import MODEL
from perjoule.bench.engine import running_engine
from perjoule.bench.recording import Recording
from perjoule.bench.truth import Game

A, B = Kind("a", 10, 4), Kind("b", 5, 8, 0.1)


def test_every_count_vector_is_run():
    """Each coalition, the largest and the nearly largest as often as asked, in an order that the seed decides."""
    runs = schedule([A, B], 2, 5, 3, seed=1)
    often = Counter(tuple(run.count(one) for one in (A, B)) for run in runs)
    assert often == {(0, 1): 1, (0, 2): 1, (1, 0): 1, (1, 1): 1, (2, 0): 1, (1, 2): 3, (2, 1): 3, (2, 2): 5}
    assert runs == schedule([A, B], 2, 5, 3, seed=1) != schedule([A, B], 2, 5, 3, seed=2)


def test_what_is_asked_for():
    """A kind and traffic, with and without what may be left out."""
    assert kind("chat:300/150@0.45") == Kind("chat", 300, 150, 0.45)
    assert kind("gen:48/320") == Kind("gen", 48, 320, 0.0)
    assert traffic("mix:35") == (35.0, 9.0)
    assert traffic("mix:2.5@4") == (2.5, 4.0)


@pytest.mark.parametrize(("read", "text"), [(kind, "chat"), (kind, "chat:0/3"), (kind, "chat:3/4@-1"), (traffic, "mix"), (traffic, "mix:0"),
                                            (traffic, "sat:3"), (traffic, "mix:3@0")])
def test_what_cannot_be_asked_for(read, text):
    """Said with what was got and what was expected."""
    with pytest.raises(argparse.ArgumentTypeError, match=r"got .*, expected"):
        read(text)


async def coalitions(*flags):
    """The command as a process: exit code and what it said on standard error."""
    command = [sys.executable, "-m", "perjoule.bench.coalitions", "--model", MODEL, "--kind", "a:40/6", "--kind", "b:20/10@0.05",
               "--each", "1", "--repeat-largest", "1", "--repeat-nearly", "1", "--warm-up", "0", "--poll-ms", "20", *map(str, flags)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()
    return process.returncode, said.decode()


async def test_a_game_and_traffic_before_it(tmp_path):
    """Two recordings: one with all three coalitions, whose truth can be computed, one with none."""
    async with running_engine(speed=4) as engine:
        code, said = await coalitions("--engine", engine.url, "--energy", f"simulated:{engine.url}", "--out", tmp_path / "game.json.gz",
                                      "--traffic", "mix:1@3")
    assert code == 0, said
    game, mix = Recording(tmp_path / "game.json.gz"), Recording(tmp_path / "game-traffic.json.gz")
    assert sorted(mark.classes for mark in game.marks) == [("a",), ("a", "b"), ("b",)]
    assert Game(game).players == "requests"
    assert {(r["cls"], r["in"], sum(r["n"])) for r in game.requests} == {("a", 40, 6), ("b", 20, 10)}
    assert all(r["usage"] == {"in": r["in"], "out": r["want"]} for r in game.requests)
    assert all(after > before for before, after in pairwise(uj for _, _, uj in game.counter))
    together = next(i for i, mark in enumerate(game.marks) if len(mark.classes) == 2)
    sent = {r["cls"]: r["t0"] for r in game.requests if r["coal"] == together}
    assert sent["b"] - sent["a"] >= 45_000_000
    assert mix.marks == []
    assert (game.gpu, game.engine, game.model) == (mix.gpu, mix.engine, mix.model) == ("simulated H200", "vllm 0.32.0", MODEL)
    assert game.board == mix.board


async def test_through_a_sidecar(tmp_path):
    """What it said of each request is kept beside the request, settled."""
    async with running_engine() as engine:
        serve = ("serve", "--upstream", engine.url, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--ledger", "off",
                 "--calibrations", "off", "--energy", f"simulated:{engine.url}")
        async with child("perjoule.main", *serve) as sidecar:
            code, said = await coalitions("--engine", engine.url, "--through", sidecar["listen"], "--energy", f"simulated:{engine.url}",
                                          "--out", tmp_path / "game.json.gz")
    assert code == 0, said
    game = Recording(tmp_path / "game.json.gz")
    records = [game.records[request["record"]] for request in game.requests]
    assert [record["output_tokens"] for record in records] == [request["want"] for request in game.requests]
    assert all(record["settled"] and record["energy_uj"] > 0 for record in records)


async def test_what_cannot_be_recorded_is_said(tmp_path):
    """No engine, another model, no counter: exit code 1 and the reason, no file."""
    out = tmp_path / "game.json.gz"
    async with running_engine(speed=20) as engine:
        asked = (
            (("--engine", "http://127.0.0.1:9", "--energy", "simulated"), "expected an inference server"),
            (("--engine", engine.url, "--energy", f"simulated:{engine.url}", "--model", "other"), "status 404"),
            (("--engine", engine.url, "--energy", "simulated:http://127.0.0.1:9"), "does not answer"),
        )
        answers = await asyncio.gather(*(coalitions("--out", out, *flags) for flags, _ in asked))
    for (code, said), (_, reason) in zip(answers, asked, strict=True):
        assert (code, reason in " ".join(said.split())) == (1, True), said
    assert not out.exists()


async def test_a_file_that_no_one_would_find_is_refused(tmp_path):
    """Exit code 2 before anything runs."""
    code, said = await coalitions("--engine", "http://127.0.0.1:9", "--out", tmp_path / "game.json")
    assert (code, "expected a file that ends in .json.gz" in " ".join(said.split())) == (2, True)
