"""Every socket that people deploy, on both sides: the same bytes and one record; and who may not come in over TLS."""

import asyncio
import contextlib
import logging
import socket
import ssl
from contextlib import asynccontextmanager

import pytest

from perjoule.sidecar.http.addresses import Unix, read_address, read_origin
from perjoule.sidecar.http.sockets import Listener, listening_socket, url_of
from perjoule.sidecar.http.tls import server_context
from perjoule.sidecar.record import Outcome
from perjoule.sidecar.settings.config import Config, ConfigError
from tests.fakes.certificates import make_certificates
from tests.fakes.sidecar import body_of, post, sidecar
from tests.fakes.upstream import CUT, ScriptedEngine, answer, chunked, scripted, sse, stream_head

CHAT, STREAM = "/v1/chat/completions", b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}'
DELTA = '{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}'
FRAMES = [sse(DELTA), sse('{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}'), sse("[DONE]")]
WHOLE = b'{"choices":[{"message":{"content":"a"}}],"usage":{"prompt_tokens":3,"completion_tokens":1}}'
SOCKETS = ["tcp4", "tcp6", "unix", "tls", "mtls"]


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    """Certificates, made once."""
    return make_certificates(tmp_path_factory.mktemp("pem"))


def place(kind, folder):
    """An address to listen on."""
    return {"tcp6": "[::1]:0", "unix": f"unix:{folder}"}.get(kind, "127.0.0.1:0")


def server(pem, client_ca=None):
    """An engine's TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem("server.pem"), pem("server.key"))
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_ca)
    return context


def client(pem, certificate=None):
    """A client's TLS."""
    context = ssl.create_default_context(cafile=pem("ca.pem"))
    if certificate:
        context.load_cert_chain(pem(f"{certificate}.pem"), pem(f"{certificate}.key"))
    return context


@asynccontextmanager
async def engine_at(address, tls, *scripts):
    """A ScriptedEngine anywhere, and its URL."""
    engine = ScriptedEngine(scripts)
    listening = listening_socket(read_address(address))
    async with await asyncio.start_server(engine.serve, sock=listening, ssl=tls):
        yield engine, url_of(listening, tls=tls is not None)


@pytest.mark.parametrize("behind", SOCKETS)
@pytest.mark.parametrize("before", SOCKETS)
async def test_every_socket_carries_the_same_bytes(before, behind, tmp_path, pem):
    """A streamed and a whole answer arrive as the engine sent them, and each has a record, over each pair of sockets."""
    behind_tls = {"tls": server(pem), "mtls": server(pem, pem("ca.pem"))}.get(behind)
    settings = {"tls": pem.upstream, "mtls": pem.upstream_mutual}.get(behind, {})
    settings = settings | {"tls": pem.front, "mtls": pem.front | {"tls_client_ca": pem("ca.pem")}}.get(before, {})
    before_tls = {"tls": client(pem), "mtls": client(pem, "client")}.get(before)
    scripts = [stream_head(), chunked(*FRAMES)], [answer(WHOLE)]
    async with (engine_at(place(behind, tmp_path / "engine"), behind_tls, *scripts) as (engine, url),
                sidecar(url, listen=place(before, tmp_path / "front"), **settings) as front):
        streamed = await front.send(post(CHAT, STREAM, "X-Energy-Include: none"), tls=before_tls)
        whole = await front.send(post(CHAT, b'{"model":"m"}', "X-Energy-Include: none"), tls=before_tls)
        records = await front.records(2)
    assert (body_of(streamed), body_of(whole)) == (b"".join(FRAMES), WHOLE)
    assert [record.facts.outcome for record in records] == [Outcome.COMPLETED] * 2
    assert [b"\r\nHost: sidecar\r\n" in request for request in engine.requests] == [True] * 2


REFUSED = {"no certificate": None, "another authority's certificate": "stranger"}


@pytest.mark.parametrize("certificate", REFUSED.values(), ids=REFUSED)
async def test_a_client_without_our_certificate_is_refused(certificate, pem, caplog):
    """It gets no answer, the engine gets nothing, and the log no traceback."""
    caplog.set_level(logging.DEBUG)
    async with scripted([answer(b"{}")]) as engine, sidecar(engine.url, **pem.front, tls_client_ca=pem("ca.pem")) as front:
        try:
            got = await front.send(post(CHAT, b"{}"), tls=client(pem, certificate))
        except OSError:  # TLS 1.3 tells a client after its handshake: in reading, or already in writing
            got = b""
        assert (got, engine.requests) == (b"", [])
    assert not [line for line in caplog.records if line.levelno >= logging.WARNING]


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\x00" * 100, b"\x16\x03\x01\xff\xff" + b"\x01" * 500, b"\x16"])
async def test_what_is_no_tls_is_closed_on_the_tls_port(said, pem, caplog):
    """Plain HTTP, and bytes that look like a handshake and are none: nothing is answered in the clear, and nothing cries in the log."""
    async with scripted([answer(b"{}")]) as engine, sidecar(engine.url, **pem.front) as front:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(said)
        writer.write_eof()
        assert b"HTTP" not in await asyncio.wait_for(reader.read(), 10)
        writer.close()
        assert body_of(await front.send(post(CHAT, b"{}", "X-Energy-Include: none"), tls=client(pem))) == b"{}"
        assert len(engine.requests) == 1
    assert not [line for line in caplog.records if line.levelno >= logging.WARNING]


@pytest.mark.parametrize(("version", "is_spoken"), [("TLSv1_1", False), ("TLSv1_2", True), ("TLSv1_3", True)])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
async def test_tls_is_1_2_or_1_3(version, is_spoken, pem):
    """Older versions are refused in the handshake."""
    tls = client(pem)
    tls.set_ciphers("DEFAULT:@SECLEVEL=0")
    tls.minimum_version = tls.maximum_version = ssl.TLSVersion[version]
    async with scripted([answer(b"{}")]) as engine, sidecar(engine.url, **pem.front) as front:
        if is_spoken:
            assert (await front.send(post(CHAT, b"{}"), tls=tls)).startswith(b"HTTP/1.1 200")
        else:
            with pytest.raises(OSError):
                await front.connect(tls)


MISTRUSTED = {
    "another authority's engine": (lambda pem: {"upstream_tls_ca": pem("other.pem")}, "certificate verify failed"),
    "not known to the system": (lambda _: {}, "certificate verify failed"),
}


@pytest.mark.parametrize(("settings", "why"), MISTRUSTED.values(), ids=MISTRUSTED)
async def test_an_engine_that_is_not_trusted_gets_nothing(settings, why, pem):
    """Not a byte of the request is sent to it, and the answer and the record say why."""
    async with (engine_at("127.0.0.1:0", server(pem), [answer(b"{}")]) as (engine, url),
                sidecar(url, **settings(pem)) as front):
        got = await front.send(post(CHAT, b"{}"))
        (record,) = await front.records(1)
    assert got.startswith(b"HTTP/1.1 502 ")
    assert why.encode() in got
    assert (record.facts.outcome, record.facts.error_type) == (Outcome.ERRORED, "upstream_tls")
    assert engine.requests == []


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_an_engine_that_does_not_trust_us_is_502(version, pem):
    """It says so in the handshake, or with TLS 1.3 after it; the answer and the record say that it was TLS."""
    def refuses():
        with demands.accept()[0] as one, contextlib.suppress(OSError):
            context.wrap_socket(one, server_side=True)

    context = server(pem, pem("ca.pem"))
    context.maximum_version = version
    with socket.create_server(("127.0.0.1", 0)) as demands:
        refusing = asyncio.ensure_future(asyncio.to_thread(refuses))
        async with sidecar(url_of(demands, tls=True), **pem.upstream) as front:
            got = await front.send(post(CHAT, b"{}"))
            (record,) = await front.records(1)
        await refusing
    assert got.startswith(b"HTTP/1.1 502 ")
    assert (record.facts.outcome, record.facts.error_type) == (Outcome.ERRORED, "upstream_tls")


async def test_the_engine_s_host_name_is_checked(pem):
    """A certificate of our authority for another host is none for this one; --upstream-tls-insecure takes it."""
    elsewhere = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    elsewhere.load_cert_chain(pem("elsewhere.pem"), pem("elsewhere.key"))
    async with engine_at("127.0.0.1:0", elsewhere, [answer(b"{}")]) as (_, url):
        async with sidecar(url, **pem.upstream) as front:
            got = await front.send(post(CHAT, b"{}"))
            assert got.startswith(b"HTTP/1.1 502 ")
            assert b"not valid for '127.0.0.1'" in got
        async with sidecar(url, upstream_tls_insecure=True) as front:
            assert (await front.send(post(CHAT, b"{}"))).startswith(b"HTTP/1.1 200 ")


async def test_the_engine_is_asked_for_by_name(pem):
    """SNI carries the upstream's host name, which is what servers with several certificates go by."""
    names, tls = [], server(pem)
    tls.sni_callback = lambda _, name, __: names.append(name)
    async with (engine_at("127.0.0.1:0", tls, [answer(b"{}")]) as (_, url),
                sidecar(url.replace("127.0.0.1", "localhost"), **pem.upstream) as front):
        assert (await front.send(post(CHAT, b"{}"))).startswith(b"HTTP/1.1 200 ")
    assert names == ["localhost"]


CLOSE_DELIMITED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
BREAKS = {
    "in a body without a length": ([CLOSE_DELIMITED, FRAMES[0]], False),
    "in a chunked body": ([stream_head(), chunked(FRAMES[0])[:-5]], False),
    "after a close_notify, in a body without a length": ([CLOSE_DELIMITED, FRAMES[0], CUT], True),
}


@pytest.mark.parametrize(("script", "is_clean"), BREAKS.values(), ids=BREAKS)
async def test_a_tls_engine_that_dies_without_a_close_notify_cuts_the_answer(script, is_clean, pem):
    """A bare FIN under TLS may be anybody's: it ends no body (RFC 9112 9.8), and the client sees a cut; a close_notify does."""
    class Dies(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            self.transport.writelines([step for step in script if step is not CUT])
            asyncio.get_running_loop().call_later(0.05, self.transport.close if CUT in script else self.transport.abort)

    listening = listening_socket(read_address("127.0.0.1:0"))
    engine = await asyncio.get_running_loop().create_server(Dies, sock=listening, ssl=server(pem))
    async with engine, sidecar(url_of(listening, tls=True), **pem.upstream) as front:
        got = await front.send(post(CHAT, STREAM, "X-Energy-Include: none"))
        (record,) = await front.records(1)
    if is_clean:
        assert (body_of(got), record.facts.outcome) == (FRAMES[0], Outcome.COMPLETED)
    else:
        with pytest.raises(ValueError, match="cut"):
            body_of(got)
        assert (record.facts.outcome, record.facts.error_type) == (Outcome.ERRORED, "upstream_closed")


ENDS = {"tcp4": ConnectionResetError, "tls": OSError, "unix": None}


@pytest.mark.parametrize(("kind", "seen"), ENDS.items(), ids=ENDS)
async def test_how_a_cut_looks_to_an_http_1_0_client(kind, seen, tmp_path, pem):
    """Its body ends with the connection: by TCP a cut is a reset, by TLS a missing close_notify; a unix socket has nothing to say it."""
    def reads(url):
        address = read_origin(url).address
        made = socket.socket(socket.AF_UNIX if isinstance(address, Unix) else socket.AF_INET)
        made.connect(address.path if isinstance(address, Unix) else (address.host, address.port))
        with client(pem).wrap_socket(made, server_hostname=address.host, suppress_ragged_eofs=False) if kind == "tls" else made as made:
            made.sendall(post(CHAT, STREAM, "X-Energy-Include: none").replace(b"HTTP/1.1", b"HTTP/1.0"))
            got = b""
            while piece := made.recv(65536):
                got += piece
            return got

    async with (scripted([stream_head(), chunked(FRAMES[0])[:-5], CUT]) as engine,
                sidecar(engine.url, listen=place(kind, tmp_path / "front"), **(pem.front if kind == "tls" else {})) as front):
        if seen is None:
            assert (await asyncio.to_thread(reads, front.url)).endswith(FRAMES[0])
        else:
            with pytest.raises(seen):
                await asyncio.to_thread(reads, front.url)
        (record,) = await front.records(1)
    assert record.facts.outcome is Outcome.ERRORED


async def test_certificates_are_exchanged_without_refusing_anybody(pem):
    """Served again with new files, the next client sees them, the one that is connected goes on, and an old session opens no door."""
    sees = ssl.create_default_context(cafile=pem("ca.pem"))
    sees.load_verify_locations(pem("other.pem"))
    sees.load_cert_chain(pem("client.pem"), pem("client.key"))
    sees.maximum_version = ssl.TLSVersion.TLSv1_2  # whose session is there once the handshake is

    class Echo(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            self.transport.write(data)

    def handshake(session=None):
        with sees.wrap_socket(socket.create_connection(address), server_hostname="localhost", session=session) as made:
            return made.getpeercert()["issuer"], made.session, made.session_reused

    listener = Listener(listening_socket(read_address("127.0.0.1:0")))
    address = listener.listening.getsockname()
    await listener.serve(Echo, server_context(pem("server.pem"), pem("server.key"), pem("ca.pem")))
    reader, writer = await asyncio.open_connection(*address, ssl=sees)
    before, session, _ = await asyncio.to_thread(handshake)
    assert (await asyncio.to_thread(handshake, session))[2]
    await listener.serve(Echo, server_context(pem("stranger.pem"), pem("stranger.key"), ""))
    after, _, reused = await asyncio.to_thread(handshake, session)
    assert (before != after, reused) == (True, False)
    await listener.serve(Echo, server_context(pem("server.pem"), pem("server.key"), pem("other.pem")))
    with pytest.raises(OSError):
        await asyncio.to_thread(handshake, session)
    writer.write(b"still here")
    assert await reader.readexactly(10) == b"still here"
    writer.close()
    listener.close()


async def test_a_handshake_that_never_ends_is_closed(pem):
    """Who connects and says nothing, or half of a hello, holds its connection for the handshake's time and no longer."""
    listener = Listener(listening_socket(read_address("127.0.0.1:0")))
    await listener.serve(asyncio.Protocol, server_context(pem("server.pem"), pem("server.key"), ""), handshake_s=0.2)
    for said in (b"", b"\x16\x03\x01\x02\x00\x01"):
        reader, writer = await asyncio.open_connection(*listener.listening.getsockname())
        writer.write(said)
        assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()
    listener.close()


UNUSABLE = {
    "a certificate without its key": (["tls_cert=server.pem"], "--tls-cert: got a file without --tls-key"),
    "a key without its certificate": (["tls_key=server.key"], "--tls-key: got a file without --tls-cert"),
    "an authority for clients without TLS": (["tls_client_ca=ca.pem"], "--tls-client-ca: got a file without --tls-cert"),
    "a file that is not there": (["tls_cert=none.pem", "tls_key=server.key"], "--tls-cert: cannot read .*none.pem: No such file"),
    "a folder": (["tls_cert=server.pem", "tls_key=."], "--tls-key: cannot read .*: Is a directory"),
    "another certificate's key": (["tls_cert=server.pem", "tls_key=client.key"], "--tls-key: got .*client.key, which is not the key of"),
    "garbage": (["tls_cert=garbage.pem", "tls_key=server.key"], "--tls-cert: got .*garbage.pem, .*, expected a PEM"),
    "a key with a passphrase": (["tls_cert=server.pem", "tls_key=locked.key"], "expected a PEM certificate and its PEM key without a pass"),
    "an authority that has expired": (["tls_cert=server.pem", "tls_key=server.key", "tls_client_ca=expired.pem"],
                                      "--tls-client-ca: got .*expired.pem, which has expired"),
    "an authority that is garbage": (["upstream_tls_ca=garbage.pem"], "--upstream-tls-ca: got .*, expected PEM certificates"),
    "half of a pair towards the engine": (["upstream_tls_cert=client.pem"], "--upstream-tls-cert: got a file without --upstream-tls-key"),
    "an authority of an engine that has expired": (["upstream_tls_ca=expired.pem"], "--upstream-tls-ca: got .*, which has expired"),
}


@pytest.mark.parametrize(("files", "said"), UNUSABLE.values(), ids=UNUSABLE)
def test_files_that_cannot_be_used_are_refused(files, said, pem):
    """Before anything starts, with the flag, what was got and why not."""
    settings = {name: pem(file) for name, file in (pair.split("=") for pair in files)}
    with pytest.raises(ConfigError, match=said):
        Config(upstream="https://127.0.0.1:1", **settings).checked()


def test_tls_settings_for_a_plain_engine_are_refused(pem):
    """Who asks for certificates to be checked is not left without."""
    with pytest.raises(ConfigError, match=r"--upstream: got 'http://a:1' and --upstream-tls-.*, expected https"):
        Config(upstream="http://a:1", **pem.upstream).checked()
    with pytest.raises(ConfigError, match="--upstream-tls-insecure: got it with --upstream-tls-ca"):
        Config(upstream="https://a:1", **pem.upstream, upstream_tls_insecure=True).checked()
