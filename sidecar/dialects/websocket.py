"""RFC 6455 frames cut out of a byte stream: to look at the messages that pass, never to change a byte of them.

Only text messages are read, and only those of up to `MOST` bytes; others are stepped over without being kept. What cannot be read
(RFC 7692 compression that was not agreed on, a frame that is none) ends the looking, not the traffic.
"""

import base64
import hashlib
import zlib

from perjoule.sidecar.http.heads import Headers, first, tokens

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_END_OF_BLOCK = b"\x00\x00\xff\xff"  # what RFC 7692 section 7.2.1 has senders cut off
_TEXT, _CLOSE = 1, 8
MOST = 1 << 20  # bytes of a message, compressed or not; the events of a realtime session are a few KiB, with audio some more


class UnreadableError(ValueError):
    """One direction of a WebSocket cannot be read any further; the text says why."""


def accept_of(key: bytes) -> bytes:
    """The Sec-WebSocket-Accept that answers this Sec-WebSocket-Key (RFC 6455 section 4.2.2): whoever knows it speaks WebSocket."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def asks(method: str, headers: Headers) -> bool:
    """Whether a request asks for a WebSocket (RFC 6455 section 4.1)."""
    return (method == "GET" and tokens(headers, b"upgrade") == {b"websocket"} and b"upgrade" in tokens(headers, b"connection")
            and first(headers, b"sec-websocket-key") is not None)


def consents(asked: Headers, answered: Headers) -> bool:
    """Whether the answer 101 is the consent to that request: another protocol, or one not proven, must not be tunnelled to."""
    key = first(asked, b"sec-websocket-key") or b""
    return tokens(answered, b"upgrade") == {b"websocket"} and first(answered, b"sec-websocket-accept") == accept_of(key)


def extensions_of(headers: Headers) -> bytes:
    """The value of Sec-WebSocket-Extensions."""
    return b", ".join(value for name, value in headers if name.lower() == b"sec-websocket-extensions")


def readers(extensions: bytes) -> tuple["Reader", "Reader"]:
    """Who reads what the client sends, and who what the server sends, under the Sec-WebSocket-Extensions of the server's answer."""
    name, *parameters = (part.strip().lower() for part in extensions.split(b";"))
    if name == b"permessage-deflate" and not any(b"," in parameter for parameter in parameters):
        return Reader(_Inflate(b"client_no_context_takeover" in parameters)), Reader(_Inflate(b"server_no_context_takeover" in parameters))
    return Reader(None, bool(name)), Reader(None, bool(name))


class _Inflate:
    """permessage-deflate backwards. A sender that keeps its window from message to message must be followed through each of them."""

    __slots__ = ("_zlib", "forgets")

    def __init__(self, forgets: bool) -> None:
        self.forgets = forgets
        self._zlib = zlib.decompressobj(-zlib.MAX_WBITS)

    def __call__(self, message: bytes) -> bytes:
        """The message's text. Raises UnreadableError for a longer one than is read, and for one that was not compressed like that."""
        try:
            text = self._zlib.decompress(message + _END_OF_BLOCK, MOST)
        except zlib.error as error:
            raise UnreadableError(f"a message cannot be decompressed: {error}") from error
        if len(text) >= MOST:
            raise UnreadableError(f"a compressed message holds {MOST} bytes or more")
        if self._zlib.eof and not self.forgets:
            raise UnreadableError("a message ends the compressed stream that the next ones are part of")
        if self.forgets:
            self._zlib = zlib.decompressobj(-zlib.MAX_WBITS)
        return text


class Reader:
    """Reads one direction. `closed` says that a Close frame has come: no message follows it."""

    __slots__ = ("_compressed", "_control", "_frame", "_head", "_inflate", "_is_last", "_left", "_mask", "_message", "_skips", "_text",
                 "_unknown", "broken", "closed")

    def __init__(self, inflate: _Inflate | None = None, unknown: bool = False) -> None:
        """`unknown` says that an extension was agreed on that gives the frames a meaning of their own."""
        self._inflate, self._unknown = inflate, unknown
        self._head = b""  # of a frame whose header has not come in full
        self._left = 0  # bytes of the present frame that are still to come
        self._frame = bytearray()  # its payload so far, masked
        self._mask = b""
        self._control = self._is_last = False
        self._message: bytearray | None = None  # None between messages
        self._text = self._compressed = self._skips = False
        self.broken = self.closed = False

    def feed(self, data: bytes) -> list[bytes]:
        """Look at the next bytes; the text messages that they complete. Raises UnreadableError once, and sees nothing more after that."""
        if self.broken or self.closed:
            return []
        try:
            return self._feed(data)
        except UnreadableError:
            self.broken = True
            self._message, self._frame = None, bytearray()
            raise

    def _feed(self, data: bytes) -> list[bytes]:
        if self._unknown:
            raise UnreadableError("an extension was agreed on that is not known, only permessage-deflate is")
        texts, at, end = [], 0, len(data)
        while at < end and not self.closed:
            if not self._left:
                header = self._head + data[at:at + 14]
                size = _header_size(header)
                if len(header) < size:
                    self._head = header
                    break
                at += size - len(self._head)
                self._head = b""
                self._begin_frame(header[:size])
            piece = data[at:at + self._left]
            at += len(piece)
            self._left -= len(piece)
            if not (self._control or self._skips):
                self._frame += piece
            if not self._left and (text := self._end_frame()) is not None:
                texts.append(text)
        return texts

    def _begin_frame(self, header: bytes) -> None:
        opcode, size = header[0] & 15, header[1] & 127
        masked = header[1] & 128
        self._left = size if size < 126 else int.from_bytes(header[2:len(header) - 4 if masked else None], "big")
        self._mask = header[-4:] if masked else b""
        self._is_last = bool(header[0] & 128)
        self._control = opcode >= _CLOSE
        compressed = bool(header[0] & 64)
        if header[0] & 48 or 2 < opcode < _CLOSE or opcode > 10 or (compressed and (self._inflate is None or self._control)):
            raise UnreadableError(f"a frame begins with {header[0]:#04x}, which was not agreed on")
        if self._control:
            if size > 125 or not self._is_last:
                raise UnreadableError("a control frame is longer than 125 bytes, or in pieces")
            self.closed = opcode == _CLOSE
            return
        if (opcode == 0) != (self._message is not None) or (opcode == 0 and compressed):
            raise UnreadableError("a message begins before the last one has ended, or goes on where none has begun")
        if self._message is None:
            self._message = bytearray()
            self._text, self._compressed = opcode == _TEXT, compressed
            self._skips = not (self._text or compressed)  # of a compressed stream nothing may be left out
        if len(self._message) + self._left > MOST:
            if self._compressed and self._inflate is not None and not self._inflate.forgets:
                raise UnreadableError(f"a compressed message is longer than {MOST} bytes")
            self._skips = True

    def _end_frame(self) -> bytes | None:
        """The text of the message that this frame ends, None where it ends none or one that is not read."""
        if self._control:
            return None
        assert self._message is not None
        if not self._skips:
            self._message += _unmasked(self._frame, self._mask) if self._mask else self._frame
            self._frame.clear()
        if not self._is_last:
            return None
        message, skips, self._message, self._skips = bytes(self._message), self._skips, None, False
        if skips:
            self._frame.clear()
            return None
        if self._compressed and self._inflate is not None:
            message = self._inflate(message)
        return message if self._text else None


def _header_size(header: bytes) -> int:
    """How many bytes the header of a frame has, as far as its beginning says."""
    if len(header) < 2:
        return 2
    return 2 + {126: 2, 127: 8}.get(header[1] & 127, 0) + (4 if header[1] & 128 else 0)


def _unmasked(payload: bytearray, mask: bytes) -> bytes:
    """`payload` XOR the repeated mask, as one operation on two long integers."""
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")
