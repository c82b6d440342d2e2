"""One answer as the client gets it, without a socket: bytes in, bytes out."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.http.heads import Head
from perjoule.sidecar.record import Charge, Status
from perjoule.sidecar.relay.answer import HOLD_LIMIT, Additions, Answer

CHARGE = Charge(Status.MEASURED, "token-share", "nvml", settled=True, energy_uj=1_500_000, active_uj=900_000, prefill_uj=0,
                decode_uj=1_500_000, uncertainty_uj=1000)
EVENTS = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\ndata: [DONE]\n\n'


def head(content_type=b"application/json", *, status=200, **more):
    length = more.get("length")
    fields = [(b"Content-Type", content_type), *([(b"Content-Length", b"%d" % length)] if length is not None else [])]
    return Head(status, b"OK", fields, **more)


def answer(*, http11=True, metered=True, **additions):
    return Answer(Additions(**additions), (lambda: (CHARGE, 10**9, None)) if metered else None, "/energy/r", http11=http11, keep_alive=True)


def unchunked(raw):
    """The body and the trailers of a chunked answer."""
    body = b""
    while True:
        size, _, raw = raw.partition(b"\r\n")
        if int(size, 16) == 0:
            return body, raw
        body, raw = body + raw[:int(size, 16)], raw[int(size, 16) + 2:]


def test_an_unmetered_answer_passes_as_it_comes():
    """Head at once, body piece by piece, nothing added whatever is asked for."""
    it = answer(metered=False, headers=True, comment=True, trailers=True)
    assert it.open(head(length=4)) == b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\n"
    assert (it.feed(b"ab"), it.feed(b"cd"), it.close()) == (b"ab", b"cd", b"")


def test_a_metered_answer_is_held_for_its_head():
    """Nothing goes out until it is whole; then the energy stands in front of the engine's bytes."""
    it = answer(headers=True)
    assert (it.open(head(length=2)), it.feed(b"{"), it.feed(b"}")) == (b"", b"", b"")
    first, body = it.close().split(b"\r\n\r\n", 1)
    assert body == b"{}"
    assert b"X-Energy-Joules: 1.500000" in first
    assert b"Content-Length: 2" in first
    assert b"X-Energy-Record: /energy/r" in first


def test_a_large_answer_is_not_held():
    """An image goes on as it comes: where its length says so from the first byte, else from where the limit is reached."""
    it = answer(headers=True)
    assert it.open(head(b"image/png", length=HOLD_LIMIT + 1)).startswith(b"HTTP/1.1 200 OK")
    assert it.feed(b"x") == b"x"
    it = answer(headers=True)
    assert it.open(head(b"image/png", chunked=True)) == b""
    assert it.feed(b"x" * HOLD_LIMIT) == b""
    out = it.feed(b"y")
    first, _, rest = out.partition(b"\r\n\r\n")
    assert b"X-Energy-Record" in first
    assert b"X-Energy-Joules" not in first
    assert unchunked(rest + it.close())[0] == b"x" * HOLD_LIMIT + b"y"


def test_energy_inside_usage_changes_the_length():
    """The body grows, and its length says so."""
    it = answer(in_usage=True)
    it.open(head(length=17))
    it.feed(b'{"usage":{"a":1}}')
    first, body = it.close().split(b"\r\n\r\n", 1)
    assert json.loads(body)["usage"]["energy"]["energy_joules"] == 1.5
    assert first.lower().count(b"content-length:") == 1
    assert b"Content-Length: %d" % len(body) in first


def test_a_stream_ends_with_its_energy_in_comment_and_trailers():
    """Both say the same, the comment before [DONE], the trailers after the last chunk, announced in the head."""
    it = answer(comment=True, trailers=True)
    first = it.open(head(b"text/event-stream", chunked=True))
    assert b"\r\nTrailer: X-Energy-Joules" in first
    body, trailers = unchunked(it.feed(EVENTS) + it.close())
    assert b': energy {"energy_joules":1.5' in body
    assert b"X-Energy-Joules: 1.500000\r\n" in trailers


def test_the_engine_s_trailers_are_kept():
    """They come after the body, with ours behind them."""
    it = answer(metered=False)
    seen = head(b"text/plain", chunked=True)
    it.open(seen)
    it.feed(b"a")
    seen.trailers.append((b"grpc-status", b"0"))
    assert it.close() == b"0\r\ngrpc-status: 0\r\n\r\n"


@pytest.mark.parametrize(("http11", "known", "closes"), [(True, True, False), (True, False, False), (False, True, False),
                                                        (False, False, True)])
def test_only_http_1_0_without_a_length_ends_with_the_connection(http11, known, closes):
    """And then the connection cannot serve another request."""
    it = answer(metered=False, http11=http11)
    it.open(head(b"text/plain", length=1 if known else None))
    assert it.ends_with_the_connection is closes
    assert it.keep_alive is not closes


def test_a_head_request_has_no_body_and_keeps_its_length():
    """The length is the engine's word about a body that is not sent."""
    it = answer(headers=True)
    assert it.open(head(length=99, bodyless=True)) == b""
    out = it.close()
    assert b"Content-Length: 99" in out
    assert out.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("encoding", [b"gzip", b"br"])
def test_a_compressed_stream_is_not_edited(encoding):
    """A comment inside compressed bytes would break them."""
    it = answer(comment=True, hide_usage=True)
    seen = head(b"text/event-stream", chunked=True)
    seen.headers.append((b"Content-Encoding", encoding))
    it.open(seen)
    assert unchunked(it.feed(b"\x1f\x8b\x00\n\n") + it.close())[0] == b"\x1f\x8b\x00\n\n"
    assert not it.may_tell(b"data: [DONE]\n\n")


@given(st.binary(min_size=1, max_size=200), st.lists(st.integers(0, 200), max_size=8), st.booleans(), st.booleans(), st.booleans())
def test_however_it_is_cut_the_body_is_the_engine_s(body, cuts, held, http11, known):
    """Held or not, chunked or not: the pieces joined are the body."""
    it = answer(headers=held, http11=http11)
    edges = [0, *sorted(cut for cut in cuts if cut < len(body)), len(body)]
    out = it.open(head(b"image/png", length=len(body) if known else None, chunked=not known))
    out += b"".join(it.feed(body[a:b]) for a, b in pairwise(edges))
    first, _, rest = (out + it.close()).partition(b"\r\n\r\n")
    assert (unchunked(rest)[0] if b"chunked" in first else rest) == body


def test_what_broke_off_gets_no_end():
    """Bytes that were held back for editing still go out, the last chunk does not."""
    it = answer(comment=True, hide_usage=True)
    it.open(head(b"text/event-stream", chunked=True))
    out = it.feed(EVENTS[:-10]) + it.abandon()
    assert unchunked(out + b"0\r\n\r\n")[0] == EVENTS[:-10]
    with pytest.raises(ValueError):
        unchunked(out)
