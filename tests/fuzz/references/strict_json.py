"""JSON by the letter of RFC 8259, where the standard library is laxer: what this refuses, the sidecar must take for no JSON."""

import json
import re
import sys
from typing import Any

DEEPEST = 1024  # RFC 8259 section 9: an implementation may set a limit; this is orjson's
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


def loads(data: bytes) -> Any:
    """The value in `data`. Raises ValueError for what is not UTF-8, not JSON, deeper than DEEPEST, not Unicode or beyond a float."""
    text = data.decode()
    if _depth(text) > DEEPEST:
        raise ValueError(f"deeper than {DEEPEST}")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit + 10 * DEEPEST)
    try:
        value = json.loads(text, parse_int=_number, parse_float=_finite, parse_constant=_refused)
    finally:
        sys.setrecursionlimit(limit)
    for string in _STRING.findall(text):
        json.loads(string).encode()  # half of a surrogate pair has no UTF-8
    return value


def object_in(data: bytes) -> dict[str, Any] | None:
    """The object that a response's payload is, or the only one of its list (TGI's `POST /`), or what SGLang's answers to several prompts
    add up to; None where it is none of them."""
    try:
        value = loads(data)
    except ValueError:
        return None
    if isinstance(value, list):
        value = value[0] if len(value) == 1 else _added(value)
    return value if isinstance(value, dict) else None


def _added(answers: list[Any]) -> Any:
    metas = [answer.get("meta_info") if isinstance(answer, dict) else None for answer in answers]
    if not metas or not all(isinstance(meta, dict) and meta for meta in metas):
        return None
    whole = {**metas[-1]}
    whole.pop("queue_time", None)
    for name in ("prompt_tokens", "completion_tokens", "cached_tokens"):
        values = [meta.get(name) for meta in metas]
        whole[name] = sum(values) if all(type(value) is int and value >= 0 for value in values) else None
    return {"meta_info": whole}


def _depth(text: str) -> int:
    depth = deepest = 0
    for mark in re.findall(r"[\[\]{}]", _STRING.sub("", text)):
        depth += 1 if mark in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _number(text: str) -> int | float:
    """An integer, or a float where it needs more than 64 bits."""
    value = int(text)
    return value if -(2**63) <= value < 2**64 else _finite(text)


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is beyond a float")
    return value


def _refused(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")
