"""What really went over a socket: a client that keeps every byte of an answer, and a tap between sidecar and engine."""

import re
import socket
import socketserver
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

import httptools
import orjson

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade"}
OWN_QUESTIONS = b"User-Agent: perjoule\r\n"  # what the sidecar asks on its own account says so
OURS = re.compile(rb": energy (\{.*\})\n\n")


@dataclass(slots=True)
class Answer:
    """One HTTP answer, de-chunked; `headers` in lower case, `complete` if it ended as HTTP says it should."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    complete: bool = False

    def end_to_end(self) -> dict[str, str]:
        """The headers that a relay must hand on, without the sidecar's own."""
        return {name: value for name, value in self.headers.items()
                if name not in HOP_BY_HOP and not name.startswith("x-energy-")}

    def without_ours(self) -> bytes:
        """The body without the energy comment."""
        return OURS.sub(b"", self.body)


class Reader:
    """Reads a connection's answers into a list, in the order in which they begin; llhttp calls the `on_` methods."""

    def __init__(self, answers: list[Answer]) -> None:
        self._answers = answers
        self._answer = Answer()
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the connection."""
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._answer = Answer()
        self._answers.append(self._answer)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._answer.headers[name.decode().lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._answer.status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        self._answer.body += data

    def on_message_complete(self) -> None:
        self._answer.complete = True


def exchange(url: str, path: str, payload: object = None, headers: Mapping[str, str] | None = None) -> Answer:
    """POST `payload` as JSON, or as the bytes that it is (GET without one), on a connection of its own and keep the whole answer."""
    parts = urlsplit(url)
    body = payload if isinstance(payload, bytes) else b"" if payload is None else orjson.dumps(payload)
    fields = {"host": parts.netloc, "accept": "*/*", **(headers or {})}
    if payload is not None:
        fields = {"content-type": "application/json", **fields, "content-length": str(len(body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    answers: list[Answer] = []
    reader = Reader(answers)
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as connection:
        connection.sendall(f"{'GET' if payload is None else 'POST'} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body)
        while not (answers and answers[-1].complete) and (data := connection.recv(65536)):
            reader.feed(data)
    return answers[-1]


def passed_on(got: Answer, sent: Answer) -> bool:
    """Whether the client's answer is the engine's, energy comment and headers aside."""
    assert got.complete
    assert sent.complete
    assert (got.status, got.end_to_end()) == (sent.status, sent.end_to_end())
    assert got.without_ours() == sent.body
    return True


def leave(url: str, path: str, payload: object, headers: Mapping[str, str], after: int, until: Callable[[], object] = bool) -> None:
    """POST `payload`, and go away without a word when `after` events of the stream have come and `until` has returned."""
    parts, body = urlsplit(url), orjson.dumps(payload)
    fields = {"host": parts.netloc, "content-type": "application/json", "content-length": str(len(body)), **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body)
        seen = b""
        while seen.count(b"data: ") < after:
            data = connection.recv(4096)
            assert data, f"the answer ended before its event {after}: {seen!r}"
            seen += data
        until()


class Tap(socketserver.ThreadingTCPServer):
    """A TCP relay in front of the engine that keeps `answers`, all that the engine sent to those whom the sidecar stands for, not to
    its own questions; `url` is where to connect."""

    daemon_threads = True

    def __init__(self, url: str) -> None:
        super().__init__(("127.0.0.1", 0), _Wire)
        parts = urlsplit(url)
        self.engine = (parts.hostname, parts.port)
        self.answers: list[Answer] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Wire(socketserver.BaseRequestHandler):
    """One connection: bytes both ways until either side ends, the engine's read on the way."""

    server: Tap

    def handle(self) -> None:
        asked = self.request.recv(65536)
        reader = None if OWN_QUESTIONS in asked else Reader(self.server.answers)
        with socket.create_connection(self.server.engine) as engine:
            engine.sendall(asked)
            upward = threading.Thread(target=self._pump, args=(self.request, engine), daemon=True)
            upward.start()
            self._pump(engine, self.request, reader)
            upward.join()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket, reader: Reader | None = None) -> None:
        with suppress(OSError):  # one side was reset: to the other it becomes an end
            while data := source.recv(65536):
                if reader is not None:
                    reader.feed(data)
                sink.sendall(data)
        for side in (source, sink):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
