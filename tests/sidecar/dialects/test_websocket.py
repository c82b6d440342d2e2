"""Frames cut out of a byte stream: the RFCs' own examples, and any messages in any frames in any pieces."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.dialects.websocket import MOST, UnreadableError, accept_of, asks, consents, extensions_of, readers

PLAIN = b""
DEFLATE = b"permessage-deflate"
FORGETFUL = b"permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=12"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def server(extensions=PLAIN):
    return readers(extensions)[1]


def frame(opcode, payload, *, last=True, rsv1=False, mask=b""):
    """One frame as RFC 6455 section 5.2 draws it."""
    size = len(payload)
    short = size if size < 126 else 126 if size < 65536 else 127
    length = size.to_bytes({126: 2, 127: 8}[short], "big") if short > 125 else b""
    data = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload)) if mask else payload
    return bytes([last << 7 | rsv1 << 6 | opcode, bool(mask) << 7 | short]) + length + mask + data


def deflated(message, to):
    """One message through a compressor (RFC 7692 section 7.2.1)."""
    return (to.compress(message) + to.flush(zlib.Z_SYNC_FLUSH))[:-4]


EXAMPLES = {
    "unmasked (6455, 5.7)": (PLAIN, "81 05 48 65 6c 6c 6f"),
    "masked": (PLAIN, "81 85 37 fa 21 3d 7f 9f 4d 51 58"),
    "in two frames": (PLAIN, "01 03 48 65 6c 80 02 6c 6f"),
    "a ping between the two": (PLAIN, "01 03 48 65 6c 89 05 48 65 6c 6c 6f 80 02 6c 6f"),
    "compressed (7692, 7.2.3.1)": (DEFLATE, "c1 07 f2 48 cd c9 c9 07 00"),
    "compressed, in two frames": (DEFLATE, "41 03 f2 48 cd 80 04 c9 c9 07 00"),
    "a block without compression (7.2.3.3)": (DEFLATE, "c1 0b 00 05 00 fa ff 48 65 6c 6c 6f 00"),
    "a last block (7.2.3.4)": (FORGETFUL, "c1 08 f3 48 cd c9 c9 07 00 00"),
    "two blocks (7.2.3.5)": (DEFLATE, "c1 0d f2 48 05 00 00 00 ff ff ca c9 c9 07 00"),
    "agreed on, and not used": (DEFLATE, "81 05 48 65 6c 6c 6f"),
}


@pytest.mark.parametrize(("extensions", "wire"), EXAMPLES.values(), ids=EXAMPLES)
@pytest.mark.parametrize("at_once", [True, False])
def test_the_rfcs_own_examples_say_hello(extensions, wire, at_once):
    """Whole, and byte by byte."""
    data, reader = bytes.fromhex(wire), server(extensions)
    pieces = [data] if at_once else [data[i:i + 1] for i in range(len(data))]
    assert [text for piece in pieces for text in reader.feed(piece)] == [b"Hello"]


def test_a_window_is_kept_from_message_to_message():
    """RFC 7692 section 7.2.3.2: the second Hello is a reference to the first."""
    reader = server(DEFLATE)
    assert reader.feed(bytes.fromhex("c1 07 f2 48 cd c9 c9 07 00 c1 05 f2 00 11 00 00")) == [b"Hello", b"Hello"]


@st.composite
def _streams(draw):
    """Messages, and the bytes that some sender makes of them."""
    extensions = draw(st.sampled_from([PLAIN, DEFLATE, FORGETFUL]))
    compressor, wire, texts = zlib.compressobj(6, zlib.DEFLATED, -12), b"", []
    for _ in range(draw(st.integers(0, 6))):
        opcode = draw(st.sampled_from([TEXT, BINARY]))
        message = draw(st.one_of(st.binary(max_size=300), st.integers(0, 70_000).map(lambda n: b'{"a":1}' * (n // 7))))
        if opcode == TEXT:
            texts.append(message)
        if rsv1 := extensions != PLAIN and draw(st.booleans()):
            if extensions == FORGETFUL:
                compressor = zlib.compressobj(6, zlib.DEFLATED, -12)
            message = deflated(message, compressor)
        cuts = sorted(draw(st.lists(st.integers(0, len(message)), max_size=3)))
        pieces = [message[a:b] for a, b in zip([0, *cuts], [*cuts, len(message)], strict=True)]
        for i, piece in enumerate(pieces):
            wire += frame(opcode if i == 0 else 0, piece, last=i == len(pieces) - 1, rsv1=rsv1 and i == 0,
                          mask=draw(st.sampled_from([b"", b"\x01\x02\x03\x04"])))
            if draw(st.booleans()):
                wire += frame(draw(st.sampled_from([PING, PONG])), draw(st.binary(max_size=125)))
    cuts = sorted(draw(st.lists(st.integers(0, len(wire)), max_size=8)))
    return extensions, texts, [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]


@given(_streams())
def test_any_messages_in_any_frames_in_any_pieces_are_read(stream):
    """The texts, in order and whole; binary messages and control frames are no texts."""
    extensions, texts, pieces = stream
    reader = server(extensions)
    assert [text for piece in pieces for text in reader.feed(piece)] == texts
    assert not reader.broken


@given(st.lists(st.binary(max_size=200), max_size=20), st.sampled_from([PLAIN, DEFLATE, FORGETFUL]))
def test_any_bytes_are_read_or_unreadable(pieces, extensions):
    """Nothing else is raised, once at most, and nothing is seen after that."""
    reader, raised = server(extensions), 0
    for piece in pieces:
        was_broken = reader.broken
        try:
            texts = reader.feed(piece)
        except UnreadableError:
            raised += 1
        else:
            assert not (texts and was_broken)
    assert raised == reader.broken


UNREADABLE = {
    "another extension": (b"x-webkit-deflate-frame", frame(TEXT, b"a"), "not known"),
    "two extensions": (b"permessage-deflate, x-more", frame(TEXT, b"a"), "not known"),
    "compressed, unasked": (PLAIN, frame(TEXT, b"a", rsv1=True), "0xc1"),
    "a compressed ping": (DEFLATE, frame(PING, b"a", rsv1=True), "0xc9"),
    "a reserved bit": (DEFLATE, b"\xa1\x01a", "0xa1"),
    "a reserved opcode": (PLAIN, frame(3, b"a"), "0x83"),
    "a long ping": (PLAIN, frame(PING, b"a" * 126), "control frame"),
    "a ping in pieces": (PLAIN, frame(PING, b"a", last=False), "control frame"),
    "goes on, not begun": (PLAIN, frame(0, b"a"), "goes on where none has begun"),
    "begins twice": (PLAIN, frame(TEXT, b"a", last=False) + frame(TEXT, b"b"), "before the last one has ended"),
    "compressed half-way": (DEFLATE, frame(TEXT, b"a", last=False) + frame(0, b"b", rsv1=True), "begins before"),
    "not deflate": (DEFLATE, frame(TEXT, b"\xff\xff\xff", rsv1=True), "cannot be decompressed"),
    "a stream that ends": (DEFLATE, bytes.fromhex("c1 08 f3 48 cd c9 c9 07 00 00"), "ends the compressed stream"),
    "a bomb": (FORGETFUL, frame(TEXT, deflated(b"a" * MOST, zlib.compressobj(9, zlib.DEFLATED, -15)), rsv1=True), "holds"),
    "compressed and long": (DEFLATE, frame(TEXT, b"a" * (MOST + 1), rsv1=True), "is longer than"),
}


@pytest.mark.parametrize(("extensions", "wire", "why"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_is_said_once(extensions, wire, why):
    """The reason is raised; after that the reader sees nothing more, and keeps nothing."""
    reader = server(extensions)
    with pytest.raises(UnreadableError, match=why):
        reader.feed(wire)
    assert reader.broken
    assert reader.feed(frame(TEXT, b"Hello")) == []


@pytest.mark.parametrize("extensions", [PLAIN, FORGETFUL])
def test_a_message_too_long_to_read_is_stepped_over(extensions):
    """None of it is kept, and the next one is read."""
    reader = server(extensions)
    begin, rest = frame(TEXT, b"a" * 70, last=False, rsv1=extensions != PLAIN), frame(0, b"b" * MOST)
    assert reader.feed(begin) == []
    for at in range(0, len(rest), 65536):
        assert reader.feed(rest[at:at + 65536]) == []
        assert len(reader._frame) <= 70
    assert reader.feed(frame(TEXT, b"Hello")) == [b"Hello"]


def test_nothing_follows_a_close():
    """What a sender says behind its Close frame is not a message any more."""
    reader = server()
    assert reader.feed(frame(TEXT, b"a") + frame(CLOSE, b"\x03\xe8") + frame(TEXT, b"b")) == [b"a"]
    assert reader.closed
    assert reader.feed(frame(TEXT, b"c")) == []


def test_each_direction_forgets_by_itself():
    """client_no_context_takeover says nothing about the server."""
    client, engine = readers(b"permessage-deflate; client_no_context_takeover")
    ours = bytes.fromhex("c1 07 f2 48 cd c9 c9 07 00")
    again = bytes.fromhex("c1 05 f2 00 11 00 00")
    assert client.feed(ours + ours) == [b"Hello", b"Hello"]
    assert engine.feed(ours + again) == [b"Hello", b"Hello"]


ASKED = [(b"Upgrade", b"WebSocket"), (b"Connection", b"keep-alive, Upgrade"), (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ==")]


def test_a_handshake_is_asked_for_in_full():
    """GET, both hop-by-hop fields, one protocol and a key; anything less is an ordinary request."""
    assert asks("GET", ASKED)
    assert not asks("POST", ASKED)
    for i in range(3):
        assert not asks("GET", ASKED[:i] + ASKED[i + 1:])
    assert not asks("GET", [*ASKED, (b"upgrade", b"h2c")])


def test_consent_is_proven():
    """RFC 6455's own key and its answer; another protocol, another key's answer or none is no consent."""
    accept = (b"sec-websocket-accept", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    assert accept_of(ASKED[2][1]) == accept[1]
    assert consents(ASKED, [(b"upgrade", b"websocket"), accept])
    assert not consents(ASKED, [(b"upgrade", b"h2c"), accept])
    assert not consents(ASKED, [(b"upgrade", b"websocket")])
    assert not consents(ASKED, [(b"upgrade", b"websocket"), (b"sec-websocket-accept", accept_of(b"another"))])


def test_extensions_may_come_in_several_fields():
    """They are one list (RFC 6455 section 9.1)."""
    assert extensions_of([(b"Sec-WebSocket-Extensions", b"a"), (b"x", b"y"), (b"sec-websocket-extensions", b"b; c")]) == b"a, b; c"
    assert extensions_of([]) == b""
