"""What engines send, by name: recorded from vLLM (tests/streams), and TGI's and SGLang's as their documentation has them."""

import json
from pathlib import Path
from typing import Any

from perjoule.sidecar.dialects.endpoints import Endpoint, endpoint_of

STREAMS = Path(__file__).parents[2] / "streams"
PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions", "responses": "/v1/responses", "messages": "/v1/messages",
         "generate": "/generate"}


def _events(*payloads: dict[str, Any]) -> bytes:
    return b"".join(b"data:" + json.dumps(payload, separators=(",", ":")).encode() + b"\n\n" for payload in payloads)


STREAMED = {path.stem: path.read_bytes() for path in sorted(STREAMS.glob("*.sse"))} | {
    "generate-tgi": _events(
        {"index": 1, "token": {"id": 5, "text": "a"}, "generated_text": None, "details": None},
        {"index": 2, "token": {"id": 6, "text": "b"}, "generated_text": None, "details": None},
        {"index": 3, "token": {"id": 7, "text": "c"}, "generated_text": "abc",
         "details": {"finish_reason": "length", "generated_tokens": 3, "input_length": 4}}),
    "generate-sglang": _events(
        {"text": "a", "meta_info": {"prompt_tokens": 4, "completion_tokens": 1, "finish_reason": None}},
        {"text": "abc", "meta_info": {"prompt_tokens": 4, "completion_tokens": 3, "finish_reason": {"type": "stop"}}})
    + b"data: [DONE]\n\n",
}
BODIES = {path.stem: path.read_bytes() for path in sorted(STREAMS.glob("*.json"))} | {
    "generate-tgi": json.dumps([{"generated_text": "abc", "details": {"finish_reason": "length", "generated_tokens": 3}}]).encode(),
    "embeddings": json.dumps({"id": "e", "data": [{"embedding": [0.25] * 1500}], "usage": {"prompt_tokens": 7}}).encode()}


def endpoint(dialect: str) -> Endpoint:
    """The route that speaks a dialect."""
    found = endpoint_of("POST", PATHS[dialect])
    assert found is not None
    return found


def dialect_of(name: str) -> str:
    """In whose dialect a recording is."""
    first = name.partition("-")[0]
    return first if first in PATHS else "chat"
