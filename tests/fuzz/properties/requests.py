"""What must hold of any request body: reading it never fails, and asking for usage changes that one setting or nothing."""

import json
from typing import Any

from perjoule.sidecar.dialects.endpoints import Endpoint
from perjoule.sidecar.dialects.requests import ask_for_usage, read_request
from tests.fuzz.references.strict_json import loads


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        value = loads(body)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _same(one: object, other: object) -> bool:
    """Equal as JSON is: `true` is not 1, and 1 is not 1.0."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def usage_is_asked_for(body: bytes) -> None:
    """The engine reads the client's body plus `include_usage`, or the client's body; what it would refuse, it can still refuse."""
    asks, asking = _object(body), ask_for_usage(body)
    if asking == body:
        return
    if asks is None:
        assert _object(asking) is None
        return
    options = asks.get("stream_options") or {}
    assert _same(_object(asking), {**asks, "stream_options": {**options, "include_usage": True}})
    replaced = _middle(body, asking)
    assert replaced in b"null" or replaced in b"false"  # every other byte is as it was


def _middle(before: bytes, after: bytes) -> bytes:
    """What of `before` is gone from `after`, all in one place."""
    most = min(len(before), len(after))
    start = next((i for i in range(most) if before[i] != after[i]), most)
    end = next((i for i in range(most - start) if before[-1 - i] != after[-1 - i]), most - start)
    return before[start:len(before) - end]


def request_is_read(body: bytes, endpoint: Endpoint) -> None:
    """What the sidecar acts on is what the body says, and nothing that is no JSON says anything."""
    asked, asks = read_request(endpoint, body), _object(body)
    if b";base64," in body:  # data URLs are not parsed: all that is known of such a body is that reading it does not fail
        return
    if asks is None:
        assert asked == type(asked)()
        return
    model, options = asks.get("model"), asks.get("stream_options")
    assert asked.model == (model if isinstance(model, str) and len(model) <= 256 else None)
    assert asked.streamed == (asks.get("stream") is True)
    assert asked.usage_asked == (isinstance(options, dict) and options.get("include_usage") is True)
    assert not (asked.can_ask and asked.usage_asked)
    assert asked.choices >= 1
    assert asked.input_bytes >= 0
    if asked.can_ask:
        assert asked.streamed
        assert options is None or options.get("continuous_usage_stats") in (None, False)
