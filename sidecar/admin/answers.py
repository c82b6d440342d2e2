"""What the operator's port is asked and what it answers: JSON, and errors in OpenAI's shape."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

import orjson

from perjoule.sidecar.http.downstream import Request
from perjoule.sidecar.http.heads import first
from perjoule.sidecar.http.paths import origin_form

Fields = tuple[tuple[str, str], ...]


class Question:
    """One request: its path as it came, encoded, and what else an answer depends on."""

    def __init__(self, request: Request) -> None:
        self.request, self.method = request, request.method
        self.path, _, self._query = origin_form(request.target).partition("?")

    @property
    def query(self) -> dict[str, str]:
        """Its parameters; of one that is given twice, the first."""
        return dict(reversed(parse_qsl(self._query, keep_blank_values=True)))

    def field(self, name: bytes) -> str:
        """The first header field of that (lower-case) name, empty if there is none."""
        return (first(self.request.headers, name) or b"").decode("latin-1").strip()


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that is whole."""

    body: bytes
    status: int = 200
    content_type: str = "application/json"
    fields: Fields = ()

    def as_bytes(self, question: Question, keep_alive: bool) -> bytes:
        """As it is sent; one to HEAD has no body."""
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}", f"Content-Type: {self.content_type}",
                 f"Content-Length: {len(self.body)}", *(f"{name}: {value}" for name, value in self.fields)]
        if not keep_alive:
            lines.append("Connection: close")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + (b"" if question.method == "HEAD" else self.body)


def json_reply(value: Any, status: int = 200, fields: Fields = ()) -> Reply:
    """A value as JSON."""
    return Reply(orjson.dumps(value), status, fields=fields)


def error_reply(status: int, message: str, code: str, param: str | None = None, fields: Fields = ()) -> Reply:
    """An error: what was got and what was expected."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return json_reply({"error": {"message": message, "type": kind, "param": param, "code": code}}, status, fields)
