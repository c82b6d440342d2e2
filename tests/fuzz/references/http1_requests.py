"""The requests in all the bytes that a client ever sent over one connection (RFC 9112), up to the first that must not be served."""

import re
from dataclasses import dataclass, field

from tests.fuzz.references.http1 import BrokenError, Bytes, Fields, Response, UnfinishedError, closes, read_chunks, values

_SPACED_CODING = re.compile(rb"(?im)^transfer-encoding:[^\r\n]*[ \t]\r?$|^transfer-encoding:[^\r\n]*\t")
_PLAIN_LINE = re.compile(rb"(GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH) (/[!\"$-~]*) HTTP/(1\.[01])\r\n")
_LINE = re.compile(rb"[^\r\n]*\r\n")


@dataclass
class Requests:
    """`served` are (method, target, body); `doubtful` says that what follows them may be served or refused."""

    served: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)
    doubtful: bool = False


def read(raw: bytes) -> Requests:
    """All that may be served, in their order; whatever comes after something that is no request is none either."""
    found, left = Requests(), Bytes(raw)
    try:
        while left.left and _read_one(left, found):
            pass
    except (BrokenError, UnfinishedError):
        pass
    return found


def _read_one(left: Bytes, found: Requests) -> bool:
    """Take in one request. Whether another one may follow."""
    left.left = left.left.lstrip(b"\r\n")
    if not left.left:
        return False
    if _PLAIN_LINE.match(left.left) is None and _LINE.match(left.left) is not None:
        found.doubtful = True  # other methods, forms of the target and versions
        return False
    method, target, version = left.line(_PLAIN_LINE).groups()
    before = left.left
    fields = left.fields()
    hosts, codings = values(fields, b"host"), [coding.lower() for coding in values(fields, b"transfer-encoding")]
    if len(hosts) > 1 or (version == b"1.1" and not hosts) or (codings and version == b"1.0"):
        raise BrokenError
    if values(fields, b"upgrade") or len(codings) > 1 or values(fields, b"expect"):
        found.doubtful = True
        return False
    if _SPACED_CODING.search(before[:len(before) - len(left.left)]):  # legal white space, and a known way to smuggle: llhttp refuses it
        found.doubtful = True
        return False
    if codings not in ([], [b"chunked"]):
        raise BrokenError
    body = _body(left, fields, found)
    if not found.doubtful:
        found.served.append((method, target, body))
    return not found.doubtful and not closes(version, fields)


def _body(left: Bytes, fields: Fields, found: Requests) -> bytes:
    if values(fields, b"transfer-encoding"):
        chunks = Response()
        try:
            read_chunks(left, chunks)
        finally:
            found.doubtful = chunks.doubtful
        return chunks.body
    length = int(next(iter(values(fields, b"content-length")), b"0"))
    body = left.exactly(length)
    if len(body) < length:
        raise UnfinishedError
    return body
