"""Multipart bodies (multipart/form-data, RFC 7578): short fields are read, files are only found, and nothing large is copied."""

import re
from dataclasses import dataclass, field

_MOST_PARTS = 256
_MOST_HEAD = 4 << 10  # bytes of one part's header
_MOST_BOUNDARY = 72  # RFC 2046 allows 70 characters
_MOST_VALUE = 4 << 10
_MOST_SCANNED = 32 << 20  # what stands behind is not read: it would keep everybody else waiting
_NAME = re.compile(rb'[;\s]name="([^"\r\n]{1,100})"', re.I)
_IS_FILE = re.compile(rb"[;\s]filename\*?=", re.I)


@dataclass(slots=True)
class Form:
    """The text fields by name, the first of each; `file` is where the first file lies in the body, None without one."""

    fields: dict[str, str] = field(default_factory=dict)
    file: tuple[int, int] | None = None


def read_form(body: bytes) -> Form | None:
    """The form that `body` is, as far as it can be read; None where it does not begin as one.

    The delimiter is the first line: no client writes a preamble before it.
    """
    end = body.find(b"\r\n", 0, _MOST_BOUNDARY + 4)
    if not body.startswith(b"--") or end < 3:
        return None
    delimiter, at, form = b"\r\n" + body[:end], end, Form()
    for _ in range(_MOST_PARTS):
        head_end = body.find(b"\r\n\r\n", at, at + _MOST_HEAD)
        if head_end < 0:
            break
        until = body.find(delimiter, head_end + 4, _MOST_SCANNED)
        _note(form, body, at, head_end, until)
        if until < 0 or body.startswith(b"--", until + len(delimiter)):
            break
        at = until + len(delimiter)
    return form


def _note(form: Form, body: bytes, at: int, head_end: int, until: int) -> None:
    """One part: its head lies in [at, head_end), its content before `until`, which is negative where it never ends."""
    head = body[at:head_end]
    begin = head_end + 4
    if _IS_FILE.search(head):
        form.file = form.file or (begin, until if until >= 0 else len(body))
    elif (name := _NAME.search(head)) and begin <= until <= begin + _MOST_VALUE:
        form.fields.setdefault(name[1].decode("utf-8", "replace"), body[begin:until].decode("utf-8", "replace"))
