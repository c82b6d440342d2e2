"""ShareGPT: conversations that people had, each a session whose turns carry what was said before."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import orjson

from perjoule.bench.workloads.workload import CHAT, Turn, Workload, WorkloadError

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
         "assistant": "assistant", "system": "system"}
EXPECTED = 'a list of {"id": …, "conversations": [{"from": "human"|"gpt"|"system", "value": text}, …]}'
BROKEN = "after a break in the conversation"
NOTES = ("What was said before is the data set's own, not what the engine answered.", "The data set has no think time: 0 s.")


def sharegpt(path: str) -> Workload:
    """Each question of each conversation, as chat messages with all that was said before it.

    Answers before the first question are left out of the history; from where questions and answers do not alternate, or one is empty,
    the rest of a conversation is dropped, and counted. Raises WorkloadError: not such a file."""
    try:
        content = Path(path).read_bytes()
        entries = orjson.loads(content)
    except OSError as error:
        raise WorkloadError(f"{path}: got {error.strerror}, expected a file that can be read") from None
    except orjson.JSONDecodeError as error:
        raise WorkloadError(f"{path}, line {error.lineno}: got {error.msg}, expected {EXPECTED}") from None
    if not isinstance(entries, list):
        raise WorkloadError(f"{path}: got {type(entries).__name__}, expected {EXPECTED}")
    turns: list[Turn] = []
    read, seen = 0, Counter[str]()
    for number, entry in enumerate(entries, 1):
        try:
            name = str(entry.get("id", number))
            said = [{"role": ROLES[one["from"]], "content": str(one["value"])} for one in entry["conversations"]]
        except (KeyError, TypeError, AttributeError):
            raise WorkloadError(f"{path}, conversation {number}: got {str(entry)[:80]!r}, expected one of {EXPECTED}") from None
        seen[name] += 1
        read += sum(one["role"] == "user" for one in said)
        turns += _turns(said, name if seen[name] == 1 else f"{name}#{seen[name]}")
    if not read:
        raise WorkloadError(f"{path}: got no questions, expected {EXPECTED}")
    dropped = {BROKEN: read - len(turns)} if read > len(turns) else {}
    file, sha256 = Path(path), hashlib.sha256(content).hexdigest()
    return Workload(f"sharegpt/{file.stem}", f"sharegpt:{file.name}", tuple(turns), read, dropped, NOTES, sha256)


def _turns(said: list[dict[str, Any]], session: str) -> list[Turn]:
    """One turn for each question, until questions and answers no longer alternate."""
    history, turns = [one for one in said[:1] if one["role"] == "system"], []
    rest = said[len(history):]
    while rest and rest[0]["role"] == "assistant":
        rest = rest[1:]
    for place, one in enumerate(rest):
        if one["role"] != ("user", "assistant")[place % 2] or not one["content"].strip():
            break
        history.append(one)
        if one["role"] == "user":
            turns.append(Turn(body={"messages": list(history)}, endpoint=CHAT, session=session))
    return turns
