"""A tunnel between real sockets: byte for byte in both directions, with backpressure, every end passed on as it was."""

import asyncio
import os
import random
import socket
import ssl

import aiohttp
import pytest

from perjoule.sidecar.http.downstream import reset
from perjoule.sidecar.record import Outcome
from tests.fakes.certificates import make_certificates
from tests.fakes.realtime import speaking
from tests.fakes.sidecar import sidecar
from tests.fakes.tunnel import BEGUN, CHUNK, CONSENT, MOST_HELD, SOON_S, end_of, flood, hello, idle, joined, raw_engine

PING = b"\x89\x05there"
ENDLESS = b"\x82\x7f" + (1 << 40).to_bytes(8, "big")  # the header of a binary frame


async def say(writer, data, rng):
    """Send in pieces of any size."""
    while data:
        size = rng.choice([1, 7, 1000, CHUNK])
        writer.write(data[:size])
        data = data[size:]
        await writer.drain()
        await asyncio.sleep(0)


# byte for byte


@pytest.mark.parametrize("path", ["/ws", "/v1/realtime"])
async def test_every_byte_passes_in_both_directions(path):
    """Random bytes, both ways at once, from the very first behind the handshakes; on a metered path, too, which cannot read them."""
    rng = random.Random(7)
    up, down = rng.randbytes(600_000), rng.randbytes(600_000)
    async with joined(down[:999], path, behind=up[:999]) as ((c_in, c_out), (e_in, e_out), _front):
        saying = [asyncio.ensure_future(say(c_out, up[999:], rng)), asyncio.ensure_future(say(e_out, down[999:], rng))]
        assert await asyncio.wait_for(e_in.readexactly(len(up)), SOON_S) == up
        assert await asyncio.wait_for(c_in.readexactly(len(down)), SOON_S) == down
        await asyncio.gather(*saying)


@pytest.mark.parametrize("compress", [0, 15])
@pytest.mark.parametrize("path", ["/echo", "/echo?model=a"])
async def test_two_real_libraries_understand_each_other(path, compress):
    """Text and binary to 1 MB, compressed and not, a ping and its pong, a clean close with its code."""
    async with speaking() as engine, sidecar(engine.url) as front, aiohttp.ClientSession() as session:
        async with session.ws_connect(front.url + path, compress=compress, max_msg_size=0) as socket:
            assert socket.compress == compress
            for size in (0, 1, 125, 126, 65535, 65536, 1_000_000):
                data = os.urandom(size)
                await socket.send_bytes(data)
                assert await socket.receive_bytes() == data
                await socket.send_str("ä" * size)
                assert await socket.receive_str() == "ä" * size
            await socket.ping(b"still there?")
            await socket.send_str("and on")
            assert await socket.receive_str() == "and on"
        assert socket.close_code == 1000
        assert engine.handshakes[0].path_qs == path


async def test_fragments_are_not_joined():
    """A message in three frames with a ping between arrives as it was sent."""
    wire = b"\x01\x85abcdhello" + b"\x89\x80abcd" + b"\x00\x85abcdhello" + b"\x80\x80abcd"
    async with joined() as ((_, c_out), (e_in, _), _front):
        for i in range(len(wire)):
            c_out.write(wire[i:i + 1])
            await c_out.drain()
        assert await asyncio.wait_for(e_in.readexactly(len(wire)), SOON_S) == wire


async def test_tls_on_both_sides(tmp_path, caplog):
    """wss towards the client and towards the engine: an echo, a clean end, an engine that breaks off, a client that does."""
    pem = make_certificates(tmp_path)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(pem("server.pem"), pem("server.key"))
    client = ssl.create_default_context(cafile=pem("ca.pem"))
    async with speaking(ssl_context=server) as engine:
        url = engine.url.replace("http", "https")
        async with sidecar(url, **pem.front, **pem.upstream) as front, aiohttp.ClientSession() as session:
            async with session.ws_connect(front.url + "/echo", ssl=client) as socket:
                await socket.send_str("a" * 200_000)
                assert await socket.receive_str() == "a" * 200_000
            assert socket.close_code == 1000
            async with session.ws_connect(front.url + "/echo", ssl=client) as socket:
                engine.handshakes[-1].transport.abort()
                assert (await asyncio.wait_for(socket.receive(), SOON_S)).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
                assert socket.close_code == 1006
    async with raw_engine() as engine, sidecar(engine.url, **pem.front) as front:
        _, writer = await front.connect(client)
        writer.write(hello() + b"last words")
        e_in, e_out = await engine.ends.get()
        writer.close()
        assert await asyncio.wait_for(e_in.read(), SOON_S) == b"last words"
        e_out.close()
        await idle(front)
    assert not caplog.records  # asyncio warns where half a close is tried under TLS


# backpressure


STUCK = {"client": (Outcome.CANCELLED, "slow_reader"), "engine": (Outcome.ERRORED, "upstream_slow")}


@pytest.mark.parametrize("who", STUCK)
async def test_who_takes_nothing_holds_the_other_back_and_is_cut_off(who):
    """No more is held than the kernel's buffers take (up to 36 MB a connection); after --slow-reader-s both are gone, and it says why."""
    async with joined(BEGUN, "/v1/realtime", slow_reader_s=1.0) as (client, engine, front):
        stuck, other = (client, engine) if who == "client" else (engine, client)
        stuck[1].transport.pause_reading()
        other[1].write(ENDLESS)
        assert await flood(other[1]) < MOST_HELD
        await end_of(other[0])
        stuck[1].transport.resume_reading()
        await end_of(stuck[0])
        (record,) = await front.records(1)
        assert (record.facts.outcome, record.facts.error_type) == STUCK[who]


async def test_who_is_stuck_for_a_while_gets_everything():
    """A pause shorter than the deadline costs nobody a byte, and stays without effect on what follows."""
    async with joined(slow_reader_s=30.0) as ((c_in, c_out), (e_in, e_out), _):
        c_out.transport.pause_reading()
        sent = await flood(e_out)
        c_out.transport.resume_reading()
        assert await asyncio.wait_for(c_in.readexactly(sent), SOON_S) == b"a" * sent
        c_out.write(b"thanks")
        assert await asyncio.wait_for(e_in.readexactly(6), SOON_S) == b"thanks"


async def test_who_takes_a_little_is_not_cut_off(tmp_path):
    """The deadline is for taking nothing: who needs longer than it to empty the buffer, but goes on taking, gets everything."""
    loop, size = asyncio.get_running_loop(), 300_000
    async with raw_engine() as engine, sidecar(engine.url, listen=f"unix:{tmp_path}/s", slow_reader_s=1.0) as front:
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            await loop.sock_connect(client, f"{tmp_path}/s")
            await loop.sock_sendall(client, hello())
            _, e_out = await engine.ends.get()
            (server,) = front.service.traffic._front.clients
            server.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # so that little frees little
            e_out.write(b"a" * size)
            taken = 0
            while piece := await asyncio.wait_for(loop.sock_recv(client, 8192), SOON_S):
                taken += len(piece)
                if taken == size + len(CONSENT):
                    break
                await asyncio.sleep(0.12 if taken < 160_000 else 0)
            assert taken == size + len(CONSENT)
            e_out.close()


# ends


@pytest.mark.parametrize("who", ["client", "engine"])
async def test_the_end_of_what_one_side_sends_leaves_the_other_direction_open(who):
    """Half a close is passed on as half a close; when the other side has ended, too, both connections are gone."""
    async with joined() as (client, engine, front):
        (done_in, done_out), (other_in, other_out) = (client, engine) if who == "client" else (engine, client)
        done_out.write(b"last words")
        done_out.write_eof()
        assert await asyncio.wait_for(other_in.read(), SOON_S) == b"last words"
        other_out.write(b"an answer" * 10_000)
        other_out.write_eof()
        assert await asyncio.wait_for(done_in.read(), SOON_S) == b"an answer" * 10_000
        await idle(front)


@pytest.mark.parametrize("who", ["client", "engine"])
async def test_a_reset_is_passed_on_as_a_reset(who):
    """What was cut arrives cut: nobody takes it for an orderly end."""
    async with joined() as (client, engine, _front):
        (_, broken_out), (other_in, _) = (client, engine) if who == "client" else (engine, client)
        reset(broken_out.transport)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(other_in.read(), SOON_S)


@pytest.mark.parametrize("who", ["client", "engine"])
async def test_who_does_not_follow_the_other_s_end_is_cut_off(who):
    """A side that ends and one that goes on for ever are no tunnel: after --slow-reader-s both are gone."""
    async with joined(slow_reader_s=0.3) as (client, engine, front):
        (_, done_out), (other_in, other_out) = (client, engine) if who == "client" else (engine, client)
        done_out.write_eof()
        assert await asyncio.wait_for(other_in.read(), SOON_S) == b""
        await idle(front)
        assert not other_out.transport.is_closing()  # it did not do it itself


async def test_an_idle_tunnel_is_not_cut_off():
    """No deadline of the sidecar's is one for saying nothing."""
    async with joined(slow_reader_s=0.1, slow_sender_s=0.1) as ((_, c_out), (e_in, _), _front):
        await asyncio.sleep(0.6)
        c_out.write(b"still here")
        assert await asyncio.wait_for(e_in.readexactly(10), SOON_S) == b"still here"


@pytest.mark.parametrize("how", ["FIN", "RST"])
async def test_an_engine_that_dies_is_an_abnormal_end_for_the_client(how):
    """Code 1006, which no Close frame can have said."""
    async with (speaking() as engine, sidecar(engine.url) as front, aiohttp.ClientSession() as session,
                session.ws_connect(front.url + "/echo") as socket):
        await socket.send_str("a")
        assert await socket.receive_str() == "a"
        transport = engine.handshakes[0].transport
        reset(transport) if how == "RST" else transport.abort()
        assert (await asyncio.wait_for(socket.receive(), SOON_S)).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
        assert socket.close_code == 1006


async def test_draining_waits_and_then_cuts(caplog):
    """After SIGTERM a tunnel goes on for --drain-s (1 s here); then it ends without a Close frame, and what ran has errored."""
    async with raw_engine(BEGUN) as engine:
        async with sidecar(engine.url) as front:
            reader, writer = await front.connect()
            writer.write(hello("/v1/realtime"))
            assert await reader.readexactly(len(CONSENT + BEGUN)) == CONSENT + BEGUN
            e_in, e_out = await engine.ends.get()
            front.service._asked_to_stop()
            await asyncio.sleep(0.2)
            for sender, receiver in ((writer, e_in), (e_out, reader)):
                sender.write(PING)
                assert await asyncio.wait_for(receiver.readexactly(len(PING)), SOON_S) == PING
            await end_of(reader)
            await end_of(e_in)
        (record,) = front.sink.records
        assert (record.facts.outcome, record.facts.error_type) == (Outcome.ERRORED, "shutdown")
        assert not caplog.records
        writer.close()
        e_out.close()
