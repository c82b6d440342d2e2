"""A real HTTP server on a port or a unix socket, whose pages a test writes; it remembers what it was asked."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any

Answer = tuple[int, bytes] | bytes


class Pages:
    """`shown` has a page, or what makes one, for each path; a status of 0 hangs up, one of -1 does so before the
    page's end."""

    def __init__(self, shown: dict[str, Answer | Callable[[], Answer]]) -> None:
        self.shown, self.asked, self.tokens, self.connections, self.url = shown, list[str](), set[str | None](), 0, ""

    def handler(self) -> type[BaseHTTPRequestHandler]:
        pages = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                pages.connections += 1
                super().setup()

            def do_GET(self) -> None:
                pages.asked.append(self.path)
                pages.tokens.add(self.headers["Authorization"])
                page = pages.shown.get(self.path, (404, b"not found"))
                answer = page() if callable(page) else page
                status, body = answer if isinstance(answer, tuple) else (200, answer)
                if status == 0:
                    self.close_connection = True
                    return
                self.send_response(200 if status == -1 else status)
                self.send_header("Content-Length", str(len(body) + 9 * (status == -1)))
                self.close_connection = status == -1
                self.end_headers()
                self.wfile.write(body)

            def address_string(self) -> str:
                return "somebody"

            def log_message(self, *_: object) -> None:
                """Silent."""

        return Handler


class OnUnix(ThreadingMixIn, UnixStreamServer):
    """The same on a unix socket."""

    daemon_threads = True


@contextmanager
def pages(shown: dict[str, Any], unix: Path | None = None) -> Iterator[Pages]:
    """It serves until the block ends."""
    made = Pages(shown)
    server = ThreadingHTTPServer(("127.0.0.1", 0), made.handler()) if unix is None else OnUnix(str(unix), made.handler())
    server.daemon_threads = True
    made.url = f"unix:{unix}" if unix is not None else f"http://127.0.0.1:{server.server_address[1]}"
    with server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield made
        finally:
            server.shutdown()
