"""Many runs from one command: every point of a sweep, several times over, in turns, with the server started anew where a point says so."""

import argparse
import asyncio
import itertools
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perjoule.bench.runs.engine import EngineError, Found, look

SERVER = "server"  # the name of what `--restart` is given
START_S, ASK_S = 900.0, 1.0


@dataclass(frozen=True, slots=True)
class Point:
    """One run: what it has instead of the command's flags, which repeat it is, from 1 on, and the name of its folder."""

    values: Mapping[str, str]
    repeat: int
    folder: str


def axis(text: str) -> tuple[str, tuple[str, ...]]:
    """`NAME=V,V,…`. Raises argparse.ArgumentTypeError."""
    name, equals, values = text.partition("=")
    found = tuple(filter(None, (value.strip() for value in values.split(","))))
    if not equals or not name.strip() or not found:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected NAME=VALUE,VALUE,…")
    return name.strip().replace("_", "-"), found


def points(axes: Sequence[tuple[str, Sequence[str]]], repeats: int) -> list[Point]:
    """All of them, repeats in turns, so that what drifts (heat, neighbours) meets every point; a server is started as seldom as that
    allows: points of one server follow each other."""
    ordered = sorted(axes, key=lambda axis: axis[0] != SERVER)
    names = [name for name, _ in ordered]
    every = [dict(zip(names, values, strict=True)) for values in itertools.product(*(values for _, values in ordered))]
    servers = [list(group) for _, group in itertools.groupby(every, key=lambda values: values.get(SERVER))]
    return [Point(values, repeat, _folder(values, repeat, repeats))
            for server in servers for repeat in range(1, repeats + 1) for values in server]


def _folder(values: Mapping[str, str], repeat: int, repeats: int) -> str:
    name = "+".join(f"{key}={_safe(value)}" for key, value in values.items())
    return "/".join(filter(None, (name, str(repeat) if repeats > 1 else "")))


def _safe(value: str) -> str:
    """As part of a file's name."""
    return "".join(letter if letter.isalnum() or letter in ".-_" else "_" for letter in value)[:60]


def flags_of(argv: Sequence[str], point: Point, read: Callable[[Sequence[str]], argparse.Namespace]) -> argparse.Namespace:
    """The command's flags with the point's in their place: what a flag may be is said by the flag itself."""
    more = [word for name, value in point.values.items() if name != SERVER for word in (f"--{name}", value)]
    args = read([*argv, *more])
    args.seed += point.repeat - 1
    return args


async def restart(command: str, server: str, url: str, model: str, headers: Mapping[str, str]) -> Found:
    """Start the server anew: a shell command, `{server}` in it replaced, which returns when it has done what it can; then the engine is
    waited for. Raises EngineError."""
    words = ["sh", "-c", command.replace("{server}", server)]
    with tempfile.TemporaryFile() as said:  # a file: what the command leaves running would hold a pipe open
        done = await asyncio.to_thread(subprocess.run, words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said)
        if done.returncode != 0:
            said.seek(0)
            why = said.read().decode(errors="replace").strip()[-500:]
            raise EngineError(f"--restart: {words[-1]!r} ended with {done.returncode}: {why}")
    give_up_s = time.monotonic() + START_S
    while True:
        try:
            return await look(url, model, headers)
        except EngineError as error:
            if time.monotonic() > give_up_s:
                raise EngineError(f"{error}; waited {START_S:g} s after --restart") from error
            await asyncio.sleep(ASK_S)


def listed(folder: Path, runs: Sequence[Point], seed: int) -> dict[str, Any]:
    """sweep.json: which runs there are, and of what; `seed` is the command's."""
    return {"schema_version": 1, "runs": [
        {"folder": point.folder, "values": dict(point.values), "repeat": point.repeat,
         "seed": int(point.values.get("seed", seed)) + point.repeat - 1} for point in runs if (folder / point.folder).is_dir()]}
