"""Long texts are taken out of JSON while it passes, however it was cut, and what stays is the same JSON with shorter texts."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.dialects.longtext import LONG, LongTexts

SHORT = st.text(max_size=20)
LONG_TEXT = st.integers(LONG + 1, 3 * LONG).map(lambda size: base64.b64encode(bytes(size))[:size].decode()) | st.sampled_from(
    ["\\" * LONG, "a" * LONG + "\\", "ä" * LONG])
VALUES = st.recursive(SHORT | LONG_TEXT | st.integers() | st.none(), lambda inner: st.lists(inner, max_size=4)
                      | st.dictionaries(SHORT, inner, max_size=4), max_leaves=10)


def passed(data, size):
    """What comes out of it, fed so many bytes at a time."""
    texts = LongTexts()
    return b"".join(texts.feed(data[at:at + size]) for at in range(0, len(data), size)) + texts.finish()


def shortened(value):
    """The value with its long texts empty."""
    if isinstance(value, str):
        return "" if len(json.dumps(value)) - 2 >= LONG else value
    if isinstance(value, list):
        return [shortened(inner) for inner in value]
    return {key: shortened(inner) for key, inner in value.items()} if isinstance(value, dict) else value


@given(VALUES, st.integers(1, 3 * LONG), st.sampled_from([None, 1]))
def test_json_stays_json_with_short_texts(value, size, indent):
    """Cut into pieces of any size. Texts with escapes in them may keep some of it, so those are only held to be texts."""
    data = json.dumps(value, indent=indent).encode()
    out = json.loads(passed(data, size))
    expected = shortened(value)
    if "\\\\" not in data.decode() and '\\"' not in data.decode():
        assert out == expected
    assert json.dumps(out).count("[") == json.dumps(expected).count("[")


@pytest.mark.parametrize("size", [1, 7, 4095, 4096, 65536, 10**7])
def test_an_image_is_left_out_and_what_stands_around_it_stays(size):
    """Two images of a megabyte; what is kept is as short as it can be."""
    image = base64.b64encode(bytes(range(256)) * 4000).decode()
    out = passed(json.dumps({"created": 1, "data": [{"b64_json": image}, {"b64_json": image}], "size": "512x512"}).encode(), size)
    assert json.loads(out) == {"created": 1, "data": [{"b64_json": ""}, {"b64_json": ""}], "size": "512x512"}


def test_what_is_kept_back_is_never_more_than_a_short_text():
    """However long the run is: memory does not grow with an image."""
    texts = LongTexts()
    assert all(texts.feed(b"A" * 65536) == b"" and len(texts._held) < LONG for _ in range(100))


def test_line_ends_of_a_stream_stay():
    """Comments that keep a connection alive for an hour hold no quote, and the event behind them is not lost with them."""
    stream = b": ping\n\n" * 10_000 + b'data: {"type":"x","b64_json":"' + b"A" * 100_000 + b'"}\n\n'
    assert passed(stream, 1000) == b": ping\n\n" * 10_000 + b'data: {"type":"x","b64_json":""}\n\n'
