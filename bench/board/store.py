"""A store of results: every result.json under some folders, each run once, and what could not be read."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1
NAME = "result.json"

Result = Mapping[str, Any]


class UnreadableError(ValueError):
    """A file that holds no result; the message names the file, what was found and what was expected."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A result and the file that it is from."""

    result: Result
    path: Path


@dataclass(frozen=True, slots=True)
class Store:
    """Results by model, GPU and date. `problems` are files that hold none; `repeated` counts files left out because their run was there."""

    stored: tuple[Stored, ...]
    problems: tuple[UnreadableError, ...] = ()
    repeated: int = 0

    @property
    def results(self) -> tuple[Result, ...]:
        """The results alone."""
        return tuple(one.result for one in self.stored)


def read(places: Iterable[Path]) -> Store:
    """All results under folders, at any depth and through links, or in files named themselves. Of one run's files the whole one counts,
    then the latest.

    Raises FileNotFoundError for a place that is not there."""
    runs: dict[str, Stored] = {}
    problems: list[UnreadableError] = []
    repeated = 0
    for path in _files(places):
        try:
            stored = Stored(read_result(path), path)
        except UnreadableError as error:
            problems.append(error)
            continue
        run_id = stored.result["run_id"]
        repeated += run_id in runs
        runs[run_id] = max(runs.get(run_id, stored), stored, key=_worth)
    return Store(tuple(sorted(runs.values(), key=_place)), tuple(problems), repeated)


def read_result(path: Path) -> Result:
    """The result in a file. Raises UnreadableError."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UnreadableError(f"{path}: {error}, expected a result of perjoule replay") from error
    if fault := _fault(found):
        raise UnreadableError(f"{path}: {fault}")
    result: Result = found
    return result


def _fault(found: object) -> str:
    """What makes this no result that we can read; "" if nothing does."""
    if not isinstance(found, dict):
        return f"got {type(found).__name__}, expected an object"
    if (version := found.get("schema_version")) != SCHEMA_VERSION:
        return f"got schema_version {json.dumps(version)}, expected {SCHEMA_VERSION}"
    if not (isinstance(run_id := found.get("run_id"), str) and run_id):
        return f"got run_id {json.dumps(run_id)}, expected a text"
    if not isinstance(valid := found.get("valid"), bool):
        return f"got valid {json.dumps(valid)}, expected true or false"
    if wrong := next((key for key in ("setting", "load", "metrics", "windows") if not isinstance(found.get(key), dict)), None):
        return f"got {wrong} {json.dumps(found.get(wrong))[:60]}, expected an object"
    return ""


def _files(places: Iterable[Path]) -> Sequence[Path]:
    files: dict[Path, Path] = {}
    for place in places:
        if not place.exists():
            raise FileNotFoundError(f"got {place}, expected a folder of results or a {NAME}")
        for path in sorted(_under(place)) if place.is_dir() else [place]:
            files.setdefault(path.resolve(), path)
    return list(files.values())


def _under(place: Path) -> Iterator[Path]:
    """At any depth; links are followed, but into no folder twice, so that none leads round in a circle."""
    seen: set[str] = set()
    for folder, folders, names in os.walk(place, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        if NAME in names:
            yield Path(folder, NAME)


def _worth(stored: Stored) -> tuple[bool, str]:
    return not stored.result.get("partial"), str(stored.result.get("date") or "")


def _place(stored: Stored) -> tuple[str, ...]:
    setting = stored.result["setting"]
    return tuple(str(part or "") for part in (setting.get("model_id"), setting.get("gpu_model"), stored.result.get("date"),
                                              stored.result["run_id"]))
