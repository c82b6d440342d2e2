"""What fuzzing found, with its bytes: each of these broke the property that it is held to here."""

import pytest

from perjoule.sidecar.access.keys import KeysError, read_keys
from perjoule.sidecar.relay.answer import Additions
from perjoule.sidecar.settings.config import ConfigError
from perjoule.sidecar.settings.sources import load
from tests.fuzz.properties import answers, exchanges, streams, texts

OK = b"HTTP/1.1 200 OK\r\n"
EMPTY = OK + b"content-length: 0\r\n\r\n"
UPGRADE = b"HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
ANSWERS = {  # and whether they answer a HEAD
    "a cut in chunks was a clean end, for a space": (OK + b"transfer-encoding: chunked \r\n\r\n5\r\nhel", False),
    "a coding that we cannot undo lost its name": (OK + b"transfer-encoding: gzip, chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", False),
    "two codings ended with the connection": (OK + b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n1\r\na", False),
    "chunks in HTTP/1.0 left the connection in use": (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n" + CHUNKED + b"0\r\n\r\n", False),
    "the body of no known answer came with the next one": (b"HTTP/1.1 099 X\r\ncontent-length: 5\r\n\r\nhello" + EMPTY, False),
    "the body of an unknown interim answer did as well": (b"HTTP/1.1 150 X\r\ncontent-length: 5\r\n\r\nhello" + EMPTY, False),
    "its chunks, too": (b"HTTP/1.1 199 X\r\n" + CHUNKED + b"1\r\na\r\n0\r\n\r\n" + EMPTY, False),
    "a whole answer was lost for what came after it": (EMPTY + UPGRADE, False),
    "a body nobody had asked for left the connection in use": (OK + b"content-length: 1\r\n\r\na", True),
    "such a body, cut behind what looks like a head's end": (OK + b"content-length: 9\r\n\r\nab\r\n\r\n", True),
    "such a body in chunks, cut in the middle of a line end": (OK + CHUNKED + b"5;a=b\r\nhello\r\n0\r\nx-t: 1\r\n\r\n", True),
}


@pytest.mark.parametrize(("raw", "is_head"), ANSWERS.values(), ids=ANSWERS)
def test_answers(raw, is_head):
    """Read in one piece, in any two and byte by byte."""
    for at in range(len(raw)):
        answers.answer_is_read(raw, [at], is_head=is_head, reset=False)


FINISH = b'data: {"choices":[{"finish_reason":"stop"}]'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":1},"system_fingerprint":"f"}\n\n'
STREAMS = {
    "a type that is a list raised": b'data: {"type":["message_delta"]}\n\n',
    "other white space asked for the charge too early": b'data: {"choices" : [ ],"usage":{"prompt_tokens":1}}\n\n',
    "an escaped name did as well": b'data: {"\\u0063hoices":[],"usage":{"prompt_tokens":1}}\n\n',
    "a blank line of LF and CR was none": b"data: a\n\rdata: [DONE]\n\n",
    "nor was one of CR and CRLF": b"data: a\r\r\ndata: [DONE]\r\n\r\n",
    "the fingerprint went into a comment": FINISH + b"}\n: {}\n\n" + USAGE,
    "the fingerprint broke a list": FINISH.replace(b"data: ", b"data: [") + b"},{}]\n\n" + USAGE,
    "a frame that goes on was read behind one that ends":
        FINISH + b'}\n\ndata: {"choices":[{"finish_reason":null},{"finish_reason":"stop"}]}\n\n' + USAGE,
}


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
@pytest.mark.parametrize("asked", [(True, True, False), (False, True, True), (True, False, True), (False, True, False)])
def test_streams(stream, asked):
    """Edited as a whole, cut anywhere."""
    hide, comment, energy = asked
    for at in range(len(stream)):
        streams.stream_is_edited(stream, [at], hide=hide, comment=comment, energy=energy)


@pytest.mark.parametrize("at_hand", [True, False])
def test_usage_in_what_looks_like_a_token(at_hand):
    """Whether it got its energy hung on whether it came in a read of its own."""
    token = b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"type":"text_delta","text":"a"}}\n\n'
    usage = b'event: content_block_delta\ndata: {"type":"message_delta","usage":{"output_tokens":3}}\n\n'
    add = Additions(comment=True, in_usage=True)
    exchanges.stream_is_relayed(token + token + usage, [], "messages", add, at_hand=at_hand, is_clean=True)


@pytest.mark.parametrize("size", [2, 5, 11, 13, 14])
def test_a_long_event_in_pieces(size):
    """Whether an event was too long hung on the pieces that it came in."""
    streams.events_are_cut(b":\n\ndata: 12345\n\ndata: [DONE]\n\n", [size] * 9, 12)


@pytest.mark.parametrize("size", [100, 3000, 4097, 10_000])
def test_usage_far_from_the_end_of_a_long_body(size):
    """Whether it was found hung on the pieces that the body came in."""
    streams.body_is_observed(b'{"data":[' + b"0," * 5000 + b'0],"usage":{"prompt_tokens":7},"x":"' + b"x" * 4500 + b'"}', [size] * 9, 8000)


def test_the_end_of_a_long_body_is_not_an_object_by_chance():
    """Without usage in it, what was left of it was read as if it began there."""
    streams.body_is_observed(b'{"data":"' + b"x" * 9000 + b'",' + b'"id":"' + b"x" * (streams.KEPT_OF_A_LONG_BODY - 8) + b'"}', [], 8000)


@pytest.mark.parametrize("value", ["1" + "0" * 400, "9" * 5000, "[" * 2000])
def test_absurd_values_in_a_file(value, tmp_path):
    """They came out as OverflowError, ValueError and RecursionError."""
    (tmp_path / "perjoule.toml").write_text(f"drain_s = {value}")
    with pytest.raises(ConfigError):
        load({"config": str(tmp_path / "perjoule.toml")}, {})
    with pytest.raises(KeysError):
        read_keys(f"[[key]]\nrequests = {value}", "FILE")


def test_a_host_that_reads_like_a_socket():
    """`UNIX:0` was port 0 of a host that could not be written down again."""
    texts.address_is_read("UNIX:0")
