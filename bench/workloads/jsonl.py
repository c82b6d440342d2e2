"""Requests as lines of JSON: bodies in OpenAI's form, lines of its batch files, or plain lengths, with times and sessions if wanted."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from perjoule.bench.workloads.files import Lines, short
from perjoule.bench.workloads.workload import CAPS, CHAT, COMPLETIONS, EMBEDDINGS, Turn, Workload, WorkloadError

ENDPOINTS = {"messages": CHAT, "prompt": COMPLETIONS, "input": EMBEDDINGS}  # by what a body has
TIME = (int, float)
OURS = ("at_s", "session", "think_s", "input_tokens", "output_tokens", "blocks")
EXPECTED = 'a request body, {"method": "POST", "url": "/v1/…", "body": {…}}, or {"input_tokens": n, "output_tokens": n}'


def jsonl(path: str) -> Workload:
    """Each line a turn. Beside what is asked, a line may have "at_s" (seconds, of any zero), "session" and "think_s".

    Either all lines have a time, or none; a later turn of a session needs none. By time, if they have it.
    Raises WorkloadError, with the line's number."""
    lines = Lines(path)
    turns = [(number, _turn(lines, number, line)) for number, line in lines]
    if not turns:
        raise WorkloadError(f"{path}: got no lines, expected on each {EXPECTED}")
    ordered = _in_time(lines, turns)
    file = Path(path)
    return Workload(f"jsonl/{file.stem}", f"jsonl:{file.name}", tuple(ordered), len(ordered), {}, (), lines.sha256)


def _turn(lines: Lines, number: int, line: str) -> Turn:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise lines.error(number, f"got {short(line)} ({error.msg}), expected {EXPECTED}") from None
    if not isinstance(row, dict):
        raise lines.error(number, f"got {short(line)}, expected {EXPECTED}")

    def of(name: str, kind: tuple[type, ...], expected: str) -> Any:
        value = row.get(name)
        if value is not None and (type(value) not in kind or (type(value) in (int, float) and value < 0)):
            raise lines.error(number, f'"{name}": got {value!r}, expected {expected}')
        return value

    session, at_s, think_s = of("session", (str, int), "a name"), of("at_s", TIME, "seconds"), of("think_s", TIME, "seconds")
    timing: dict[str, Any] = {"at_s": at_s, "session": None if session is None else str(session), "think_s": think_s or 0.0}
    given, wanted = of("input_tokens", (int,), "a number of tokens"), of("output_tokens", (int,), "a number of tokens")
    if "body" in row:
        body, url = row["body"], row.get("url")
        if row.get("method", "POST") != "POST" or not isinstance(body, dict) or not (isinstance(url, str) and url.startswith("/")):
            raise lines.error(number, f'got {short(line)}, expected "method" POST, "url" a path, and "body" an object')
    elif url := next((endpoint for field, endpoint in ENDPOINTS.items() if field in row), None):
        body = {name: value for name, value in row.items() if name not in OURS}
    elif given and wanted:
        return Turn(input_tokens=given, output_tokens=wanted, blocks=tuple(of("blocks", (list,), "hashes") or ()), **timing)
    else:
        raise lines.error(number, f"got {short(line)}, expected {EXPECTED}, n at least 1")
    cap = next((body[name] for name in CAPS if isinstance(body.get(name), int)), wanted)
    return Turn(output_tokens=cap, body=body, endpoint=url, **timing)


def _in_time(lines: Lines, turns: list[tuple[int, Turn]]) -> list[Turn]:
    """Sorted by time, a turn without one right behind the one before it in its session; times from the earliest on."""
    timed = [turn.at_s for _, turn in turns if turn.at_s is not None]
    if not timed:
        return [turn for _, turn in turns]
    of_session: dict[str, float] = {}
    keyed: list[tuple[float, Turn]] = []
    for number, turn in turns:
        at_s = turn.at_s if turn.at_s is not None else of_session.get(turn.session or "")
        if at_s is None:
            raise lines.error(number, 'got no "at_s", expected one, as in other lines (a later turn of a session needs none)')
        if turn.session:
            of_session[turn.session] = at_s
        keyed.append((at_s, turn))
    keyed.sort(key=lambda pair: pair[0])
    first_s = min(timed)
    return [replace(turn, at_s=turn.at_s - first_s) if turn.at_s is not None else turn for _, turn in keyed]
