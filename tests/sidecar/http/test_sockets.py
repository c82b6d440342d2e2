"""Sockets that are listened on: both families, unix sockets and their files, and connections that are tried side by side."""

import asyncio
import errno
import socket
import stat
import time

import pytest
import uvloop

from perjoule.sidecar.http.addresses import read_address
from perjoule.sidecar.http.sockets import Listener, limit_silence, listening_socket, stop_listening, url_of
from perjoule.sidecar.http.upstream import Upstream


class Hello(asyncio.Protocol):
    """Says hello and closes."""

    def connection_made(self, transport):
        transport.write(b"hello")
        transport.close()


def listening(text, **more):
    """A socket that is listened on."""
    return listening_socket(read_address(text), **more)


@pytest.mark.parametrize(("text", "url"), [("127.0.0.1:0", "http://127.0.0.1:{}"), ("[::1]:0", "http://[::1]:{}"), (":0", "http://0.0.0.0:{}"),
                                           ("[::]:0", "http://[::]:{}"), ("localhost:0", "http://127.0.0.1:{}")])
def test_a_port_is_known_before_anybody_serves_it(text, url):
    """Port 0 takes a free one, and who connects early waits; a name is its IPv4 address."""
    with listening(text) as made:
        port = made.getsockname()[1]
        assert url_of(made) == url.format(port)
        assert url_of(made, tls=True) == url.format(port).replace("http", "https")
        socket.create_connection(("::1" if ":" in made.getsockname()[0] else "127.0.0.1", port)).close()


@pytest.mark.parametrize(("text", "reached"), [("[::]:0", {"127.0.0.1", "::1"}), (":0", {"127.0.0.1"}), ("[::1]:0", {"::1"})])
async def test_every_interface_is_both_families(text, reached):
    """`[::]` is reached by IPv4 and IPv6, an empty host by IPv4, a literal by its own family only."""
    listener = Listener(listening(text))
    await listener.serve(Hello)
    got = set()
    for host in ("127.0.0.1", "::1"):
        try:
            async with asyncio.timeout(5):  # the other family's port of that number may be somebody else's
                reader, writer = await asyncio.open_connection(host, listener.listening.getsockname()[1])
                said = await reader.read()
        except (ConnectionRefusedError, TimeoutError):
            continue
        writer.close()
        if said == b"hello":
            got.add(host)
    listener.close()
    assert got == reached


def test_a_port_that_is_taken_is_refused_with_its_address():
    """And shared where both ask for it, as worker processes do."""
    with listening("127.0.0.1:0", reuse_port=True) as first:
        text = "{}:{}".format(*first.getsockname())
        listening(text, reuse_port=True).close()
        with pytest.raises(OSError, match=rf"cannot listen on {text}: Address already in use$") as refused:
            listening(text)
    assert refused.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize("text", ["no-such-host.invalid:0", "192.0.2.1:0", "unix:/nonexistent/a.sock"])
def test_an_address_that_is_not_ours_is_refused(text):
    """A name without an address, another host's address, a folder that is not there."""
    with pytest.raises(OSError, match=rf"cannot listen on {text}: \w"):
        listening(text)


def test_a_unix_socket_s_file_has_its_mode_and_goes_with_it(tmp_path):
    """Whatever the umask, and nobody else's is left behind."""
    path = tmp_path / "a.sock"
    made = listening(f"unix:{path}", mode=0o600)
    assert url_of(made) == f"unix:{path}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    stop_listening(made)
    assert not path.exists()
    stop_listening(made)


def test_the_file_of_a_server_that_was_killed_is_replaced(tmp_path):
    """It lies there, and nobody listens."""
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
        killed.listen()
    assert path.is_socket()
    stop_listening(listening(f"unix:{path}"))


async def test_the_file_of_a_server_that_lives_is_left_alone(tmp_path):
    """Starting twice is refused, and the first one is still reached, even while its queue is full."""
    text = f"unix:{tmp_path / 'a.sock'}"
    for backlog in (10, 0):
        with socket.socket(socket.AF_UNIX) as living, socket.socket(socket.AF_UNIX) as waiting:
            living.bind(text[5:])
            living.listen(backlog)
            waiting.connect(text[5:])
            with pytest.raises(OSError, match=r"cannot listen on unix:.*: Address already in use"):
                listening(text)
            assert (tmp_path / "a.sock").is_socket()
        (tmp_path / "a.sock").unlink()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path):
    """Whoever mistypes a path loses nothing."""
    (tmp_path / "a").write_text("precious")
    with pytest.raises(OSError, match="Address already in use"):
        listening(f"unix:{tmp_path / 'a'}")
    assert (tmp_path / "a").read_text() == "precious"


def test_a_unix_socket_that_others_share_keeps_its_file(tmp_path):
    """Worker processes share one; the last to close it removes the file."""
    first = listening(f"unix:{tmp_path / 'a'}")
    second = first.dup()
    stop_listening(first)
    assert (tmp_path / "a").is_socket()
    stop_listening(second)
    assert not (tmp_path / "a").exists()


async def test_a_new_server_s_file_survives_the_old_server(tmp_path):
    """Replaced while it runs, the old one does not take the new one's file with it."""
    text = f"unix:{tmp_path / 'a'}"
    old = Listener(listening(text))
    await old.serve(Hello)
    (tmp_path / "a").unlink()
    new = Listener(listening(text))
    await new.serve(Hello)
    old.close()
    reader, writer = await asyncio.open_unix_connection(text[5:])
    assert await reader.read() == b"hello"
    writer.close()
    new.close()
    assert not (tmp_path / "a").exists()


async def test_closing_takes_no_more_clients_and_lets_the_others_be():
    """Who is connected stays connected."""
    class Waits(asyncio.Protocol):
        def connection_made(self, transport):
            transport.write(b"hello")

        def data_received(self, data):
            transports.append(data)

    transports = []
    listener = Listener(listening("127.0.0.1:0"))
    address = listener.listening.getsockname()
    await listener.serve(Waits)
    reader, writer = await asyncio.open_connection(*address)
    await reader.readexactly(5)
    listener.close()
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address)
    writer.write(b"still here")
    async with asyncio.timeout(10):
        while not transports:
            await asyncio.sleep(0.01)
    writer.close()


class Names(uvloop.Loop):
    """An event loop that knows a name with two addresses: the first swallows connections, the second answers them."""

    async def getaddrinfo(self, host, port, **more):
        if host != "two.example":
            return await super().getaddrinfo(host, port, **more)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("127.0.0.2", "127.0.0.1")]


def test_a_name_s_second_address_does_not_wait_for_the_first():
    """A connection to an address that does not answer is overtaken, long before its time is up."""
    async def connects():
        with listening("127.0.0.1:0") as answers, socket.socket() as swallows:
            port = answers.getsockname()[1]
            swallows.bind(("127.0.0.2", port))
            swallows.listen(0)
            full = [socket.socket() for _ in range(4)]
            for one in full:  # beyond the queue, the kernel drops what comes
                one.setblocking(False)
                one.connect_ex(("127.0.0.2", port))
            upstream = Upstream(f"http://two.example:{port}", 60.0)
            begun = time.monotonic()
            connection = await upstream.connection()
            took = time.monotonic() - begun
            peer = connection.transport.get_extra_info("peername")
            connection.abandon()
            for one in full:
                one.close()
            return peer[0], took

    with asyncio.Runner(loop_factory=Names) as runner:
        peer, took = runner.run(connects())
    assert peer == "127.0.0.1"
    assert 0.2 < took < 30.0


def test_the_kernel_s_patience_is_inherited(tmp_path):
    """Every client's socket has twice the limit, in milliseconds; a unix socket has none to set."""
    with listening_socket(read_address("127.0.0.1:0")) as listening:
        limit_silence(listening, 1.5)
        with socket.create_connection(listening.getsockname()), listening.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 3000
    with listening_socket(read_address(f"unix:{tmp_path}/s")) as listening:
        limit_silence(listening, 1.5)
