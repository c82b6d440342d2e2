"""The same properties under atheris, which looks for bytes that reach new code: `python -m tests.fuzz.atheris_targets --target sse`.

It begins with the recordings and with what earlier runs found worth keeping (in .hypothesis/atheris), and ends at the first bytes
that break a property, which it keeps in a file there; that file as an argument runs those bytes alone.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["perjoule.sidecar"]):
    from perjoule.sidecar.relay.answer import Additions
    from tests.fuzz.inputs.recorded import BODIES, PATHS, STREAMED, endpoint
    from tests.fuzz.properties import answers, clients, exchanges, requests, streams, texts

FOUND = Path(".hypothesis", "atheris")
LONGEST = 6000  # bytes: the longest recording and some more
DIALECTS = sorted(PATHS)


@dataclass(frozen=True)
class Input:
    """What to try: of the fuzzer's bytes the last eight say how, the others are what. The first of the eight is a set of options,
    the others are the sizes of the pieces that the bytes come in, over and over."""

    data: bytes
    options: int
    sizes: Sequence[int]

    @classmethod
    def of(cls, raw: bytes) -> "Input":
        options, *sizes = raw[-8:] or b"\0"
        return cls(raw[:-8], options, sizes * 6)

    def has(self, option: int) -> bool:
        return bool(self.options >> option & 1)

    @property
    def dialect(self) -> str:
        return DIALECTS[self.options % len(DIALECTS)]


def sse(it: Input) -> None:
    streams.events_are_cut(it.data, it.sizes, 10 + 40 * it.options)


def usage(it: Input) -> None:
    streams.stream_is_observed(it.data, it.sizes, it.dialect, 1 + it.has(7))


def bodies(it: Input) -> None:
    streams.body_is_observed(it.data, it.sizes, 1 << 18 if it.has(0) else 100)
    streams.body_is_edited(it.data)


def editing(it: Input) -> None:
    streams.stream_is_edited(it.data, it.sizes, hide=it.has(0), comment=it.has(1), energy=it.has(2))


def upstream(it: Input) -> None:
    answers.answer_is_read(it.data, it.sizes, is_head=it.has(0), reset=it.has(1))


def relaying(it: Input) -> None:
    add = Additions(headers=it.has(0), comment=it.has(1), trailers=it.has(2), in_usage=it.has(3), hide_usage=it.has(4))
    answers.answer_goes_on(it.data, it.sizes, add, http11=not it.has(5), is_head=it.has(6))


def exchange(it: Input) -> None:
    add = Additions(comment=it.has(1), in_usage=it.has(2), hide_usage=it.has(3))
    exchanges.stream_is_relayed(it.data, it.sizes, it.dialect, add, at_hand=it.has(4), is_clean=it.has(5))


def client(it: Input) -> None:
    clients.requests_are_read(it.data, it.sizes)


def asking(it: Input) -> None:
    requests.usage_is_asked_for(it.data)
    requests.request_is_read(it.data, endpoint(next(name for name in (it.dialect, "chat") if name != "generate")))


def headers(it: Input) -> None:
    text = it.data.decode("latin-1")
    texts.traceparent_is_read(it.data)
    texts.pools_are_read(text)
    texts.path_is_plain(text)
    texts.address_is_read(text)
    texts.origin_is_read(text)


def _answers(recordings: Iterable[bytes]) -> list[bytes]:
    heads = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n", b"HTTP/1.1 103 E\r\nlink: x\r\n\r\nHTTP/1.0 200 OK\r\n"
    return [raw for head in heads for body in recordings for raw in (
        head + b"content-length: %d\r\n\r\n%b" % (len(body), body), head + b"\r\n" + body,
        head + b"transfer-encoding: chunked\r\n\r\n%x;a=b\r\n%b\r\n0\r\nx-t: 1\r\n\r\n" % (len(body), body))]


_STREAMED, _BODIES = list(STREAMED.values()), list(BODIES.values())
TARGETS: dict[str, tuple[Callable[[Input], None], list[bytes]]] = {
    "sse": (sse, _STREAMED),
    "usage": (usage, _STREAMED),
    "bodies": (bodies, _BODIES),
    "editing": (editing, _STREAMED),
    "upstream": (upstream, _answers([b"", b"hello", *_BODIES[:3], *_STREAMED[:3]])),
    "relaying": (relaying, _answers([b"", b"hello", *_BODIES[:3], *_STREAMED[:6]])),
    "exchange": (exchange, _STREAMED),
    "clients": (client, [b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\nPOST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\na",
                         b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1;a=b\r\na\r\n0\r\nx: y\r\n\r\n",
                         b"HEAD / HTTP/1.0\r\nconnection: keep-alive\r\n\r\nGET / HTTP/1.1\r\nhost: b\r\nconnection: close\r\n\r\n"]),
    "asking": (asking, [b'{"stream":true,"stream_options":{"include_usage":false,"a":"b"},"prompt":[1,2],"model":"m"}',
                        b'{"stream_options":null,"messages":[{"content":[{"image_url":{"url":"data:image/png;base64,AAAA"}}]}]}']),
    "headers": (headers, [b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", b"0=GPU-1,GPU-2;1=GPU-3",
                          b"prefill=GPU-1;decode=GPU-2", b"[::1]:9000", b"http://127.0.0.1:8000/v1", b"unix:///tmp/x", b"/v1/%63hat//x"]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", choices=TARGETS, required=True)
    parser.add_argument("--seconds", type=int, default=60, help="for how long to look (default: 60)")
    parser.add_argument("file", nargs="*", help="bytes to run alone")
    asked = parser.parse_args()
    property_of, seeds = TARGETS[asked.target]
    corpus = FOUND / asked.target
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed + bytes([number, 1, 2, 3, 5, 8, 40, 200]))
    looking = [f"-max_total_time={asked.seconds}", f"-max_len={LONGEST}", f"-artifact_prefix={FOUND}/", "-print_final_stats=1", str(corpus)]
    atheris.Setup([sys.argv[0], *(asked.file or looking)], lambda raw: property_of(Input.of(raw)))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
