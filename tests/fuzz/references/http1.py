"""An HTTP/1.1 response read from all the bytes that its connection ever brought (RFC 9112), and what must not be used again.

Empty lines before and behind an answer are passed over. Stricter than the RFC where a recipient may refuse: no folded lines, no bare
LF, no space before a colon, no transfer coding but `chunked`, and that only in HTTP/1.1, no repeated Content-Length, none beside
Transfer-Encoding, and neither of them in an interim answer of no registered kind.
"""

import re
from dataclasses import dataclass, field

Fields = list[tuple[bytes, bytes]]

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_STATUS_LINE = re.compile(rb"HTTP/(0\.9|1\.0|1\.1|2\.0) ([0-9]{3})(?: ([^\r\n]*))?\r\n")
_FIELD = re.compile(rb"(" + _TOKEN + rb"):[ \t]*([\t -~\x80-\xff]*)\r\n")
_CHUNK = re.compile(rb"([0-9A-Fa-f]+)((?:[ \t;][^\r\n]*)?)\r\n")
# framing and hops (RFC 9110 section 6.5.1): llhttp heeds them there as it does in a head, or refuses them
_NOT_FOR_TRAILERS = (b"transfer-encoding", b"connection", b"proxy-connection", b"upgrade")
_EXTENSIONS = re.compile(rb"(?:;" + _TOKEN + rb"(?:=(?:" + _TOKEN + rb'|"[\t !#-\[\]-~\x80-\xff]*"))?)*')
_MOST = 2**64 - 1


class BrokenError(Exception):
    """These bytes are no answer that a proxy may hand on."""


class UnfinishedError(Exception):
    """The answer is longer than what has come."""


@dataclass
class Response:
    """The final answer, and the interim ones before it that are anyone's business. `outcome` is "clean", "cut" or "protocol"; `spent`
    says that the connection must not serve another request, `doubtful` that a chunk has an extension that may as well be refused."""

    outcome: str = "cut"
    interims: list[tuple[int, Fields]] = field(default_factory=list)
    status: int | None = None
    reason: bytes = b""
    fields: Fields = field(default_factory=list)
    body: bytes = b""
    trailers: Fields = field(default_factory=list)
    spent: bool = True
    doubtful: bool = False


def read(raw: bytes, *, is_head: bool, reset: bool = False) -> Response:
    """The answer in `raw`, after which the connection was closed, or reset."""
    answer = Response()
    try:
        _read(Bytes(raw), answer, is_head=is_head, reset=reset)
    except UnfinishedError:
        answer.outcome = "cut"
    except BrokenError:
        answer.outcome = "protocol"
    else:
        answer.outcome = "clean"
    answer.spent = answer.spent or answer.outcome != "clean"
    return answer


def values(fields: Fields, name: bytes) -> list[bytes]:
    """Every value of that field, without the white space around it."""
    return [value.strip(b" \t") for key, value in fields if key.lower() == name]


def first(fields: Fields, name: bytes) -> bytes | None:
    """The first value of that field, None where there is none."""
    return next(iter(values(fields, name)), None)


class Bytes:
    """What is left to read."""

    def __init__(self, left: bytes) -> None:
        self.left = left

    def line(self, form: re.Pattern[bytes]) -> re.Match[bytes]:
        """The next line. Raises BrokenError, or UnfinishedError where its end has not come."""
        if b"\n" not in self.left:
            raise UnfinishedError
        match = form.match(self.left)
        if match is None:
            raise BrokenError
        self.left = self.left[match.end():]
        return match

    def fields(self) -> Fields:
        """Field lines up to and with the empty one."""
        fields = []
        while not self.left.startswith(b"\r\n"):
            name, value = self.line(_FIELD).groups()
            fields.append((name, value))
        self.left = self.left[2:]
        lengths, codings = values(fields, b"content-length"), values(fields, b"transfer-encoding")
        if len(lengths) > 1 or (lengths and codings) or b"" in codings:
            raise BrokenError
        if any(not length.isdigit() or len(length.lstrip(b"0")) > 20 or int(length) > _MOST for length in lengths):
            raise BrokenError
        return fields

    def exactly(self, count: int) -> bytes:
        taken, self.left = self.left[:count], self.left[count:]
        return taken


def _read(raw: Bytes, answer: Response, *, is_head: bool, reset: bool) -> None:
    """Fill in `answer` as far as it goes."""
    while True:
        raw.left = raw.left.lstrip(b"\r\n")
        version, status, reason = raw.line(_STATUS_LINE).groups()
        fields = raw.fields()
        if int(status) >= 200:
            break
        has_framing = any(values(fields, name) for name in (b"content-length", b"transfer-encoding"))
        if int(status) < 100 or int(status) == 101 or (int(status) > 103 and has_framing):
            raise BrokenError
        if int(status) > 101:
            answer.interims.append((int(status), fields))
        if closes(version, fields) and raw.left.strip(b"\r\n"):
            raise BrokenError
    codings = values(fields, b"transfer-encoding")
    if codings and (version != b"1.1" or [coding.lower() for coding in codings] != [b"chunked"]):
        raise BrokenError
    answer.status, answer.reason, answer.fields = int(status), reason or b"", fields
    lengths = values(fields, b"content-length")
    ends_with_connection = False
    if is_head or answer.status in (204, 304):
        pass
    elif codings:
        read_chunks(raw, answer)
    elif lengths:
        answer.body = raw.exactly(int(lengths[0]))
        if len(answer.body) < int(lengths[0]):
            raise UnfinishedError
    else:
        answer.body, ends_with_connection = raw.exactly(len(raw.left)), True
        if reset:
            raise UnfinishedError
    answer.spent = ends_with_connection or closes(version, [*fields, *answer.trailers]) or bool(raw.left.strip(b"\r\n"))


def read_chunks(raw: Bytes, answer: Response) -> None:
    while True:
        line = raw.line(_CHUNK)
        size = int(line[1], 16)
        answer.doubtful = answer.doubtful or _EXTENSIONS.fullmatch(line[2]) is None
        if not size:
            break
        if size > _MOST:
            raise BrokenError
        data = raw.exactly(size)
        answer.body += data
        if len(data) < size or raw.left in (b"", b"\r"):
            raise UnfinishedError
        if raw.exactly(2) != b"\r\n":
            raise BrokenError
    answer.trailers = raw.fields()
    if values(answer.trailers, b"content-length"):
        raise BrokenError
    if any(values(answer.trailers, name) for name in _NOT_FOR_TRAILERS):
        answer.doubtful = True


def closes(version: bytes, fields: Fields) -> bool:
    """Whether a message says that nothing follows it."""
    options = {option.strip(b" \t").lower() for name in (b"connection", b"proxy-connection")
               for value in values(fields, name) for option in value.split(b",")}
    return b"close" in options or (version != b"1.1" and b"keep-alive" not in options)
