"""Requests as they are read are what the parser says of them, whatever it is not asked."""

import asyncio
import contextlib

import httptools
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.http.front import Front

VERSIONS = {"0.9": (0, 9), "1.0": (1, 0), "1.1": (1, 1), "2.0": (2, 0)}
FIELDS = [b"Connection: keep-alive", b"connection: close", b"CONNECTION: X-A", b"Proxy-Connection: keep-alive", b"proxy-connection: close",
          b"Keep-Alive: 5", b"Upgrade: h2c", b"Content-Length: 0", b"X-A: 1"]


class Open(asyncio.Transport):
    """A connection that stays."""

    def is_closing(self):
        return False

    def pause_reading(self):
        """Nothing comes."""

    def resume_reading(self):
        """Nor now."""


class Asked:
    """The parser alone, asked for all of it."""

    def __init__(self):
        self.parser, self.heads = httptools.HttpRequestParser(self), []

    def on_message_begin(self):
        self.target, self.fields = b"", []

    def on_url(self, url):
        self.target += url

    def on_header(self, name, value):
        self.fields.append((name, value))

    def on_headers_complete(self):
        parser = self.parser
        self.heads.append((parser.get_method().decode(), self.target.decode(), VERSIONS[parser.get_http_version()],
                           parser.should_keep_alive(), self.fields))


some = st.lists(st.sampled_from(FIELDS), max_size=3, unique_by=lambda field: field[:5].lower())
heads = st.builds(lambda version, fields: b"\r\n".join([f"GET /a HTTP/{version}".encode(), b"Host: a", *fields, b"", b""]),
                  st.sampled_from(sorted(VERSIONS)), some)


@given(st.lists(heads, min_size=1, max_size=4), st.integers(1, 40))
def test_a_head_is_what_the_parser_says_of_it(wire, size):
    """Its version, whether its connection is kept, its fields: one head after the other on a connection, cut anywhere."""
    asked, heard = Asked(), []

    def handle(request):
        heard.append((request.method, request.target, request.version, request.keep_alive, list(request.headers)))
        request.client.answered(True)

    async def read():
        client = Front(handle, max_connections=9)()
        client.connection_made(Open())
        for head in wire:
            for at in range(0, len(head), size):
                with contextlib.suppress(httptools.HttpParserUpgrade):
                    asked.parser.feed_data(head[at:at + size])
                client.data_received(head[at:at + size])
            if not asked.heads[-1][3] or b"Upgrade" in head:  # what comes behind is not to be read
                break
        client.connection_lost(None)

    asyncio.run(read())
    assert heard == asked.heads
