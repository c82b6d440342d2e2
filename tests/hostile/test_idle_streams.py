"""Ten thousand streams that stand still: an agent fleet waits for slow prompts, and one more request comes."""

import asyncio
import logging
import re
import resource

import aiohttp
import pytest

from perjoule.bench.child import child
from perjoule.bench.relay_upstream import Wish
from tests.fakes.sidecar import post
from tests.hostile.wire import CHAT, rss_kb, serving

STREAMS = 10_000
SPARE_FILES = 200  # of the sidecar's limit, beside two for each stream
STREAM_KB = 20  # design, section 6: what an idle stream may cost
PATIENT = ("--connect-timeout-s", "60")  # on a busy machine
STANDING = Wish(frames=2, gap_ms=3_600_000)


logger = logging.getLogger(__name__)


def asking(wish):
    return post(CHAT, b'{"model":"m","stream":true,"messages":[{"role":"user","content":"%b"}]}' % str(wish).encode())


async def first_frame(port, wish):
    """A stream of which one frame has come."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(asking(wish))
    await reader.readuntil(b'"content":"t')
    return reader, writer


@pytest.mark.slow
async def test_t10_ten_thousand_streams_that_stand_still():
    """Or as many as the open files of one process allow: all stay, each costs 20 KB at most, and the next request is served at once."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = STREAMS if hard == resource.RLIM_INFINITY else min(STREAMS, (hard - SPARE_FILES) // 2)
    if count < STREAMS:
        logger.warning("%d streams instead of %d: a process may have %d files open here", count, STREAMS, hard)
    streams = []
    async with child("perjoule.bench.relay_upstream") as engine, serving(engine["url"], *PATIENT) as front, \
            aiohttp.ClientSession() as client:

        async def in_flight():
            async with client.get(front["admin"] + "/metrics") as got:
                return float(re.search(r"^perjoule_requests_in_flight (.*)$", await got.text(), re.MULTILINE)[1])

        for writer in [writer for _, writer in await asyncio.gather(*(first_frame(front["port"], STANDING) for _ in range(100)))]:
            writer.close()  # warmed up: what is held for ever is held now
        while await in_flight():
            await asyncio.sleep(0.05)
        before_kb = rss_kb(front["pid"])
        async with asyncio.timeout(300):
            while len(streams) < count:
                some = min(200, count - len(streams))
                streams += await asyncio.gather(*(first_frame(front["port"], STANDING) for _ in range(some)))
        each_kb = (rss_kb(front["pid"]) - before_kb) / count
        logger.info("%d streams, %.1f KB each", count, each_kb)
        assert await in_flight() == count
        assert each_kb <= STREAM_KB, f"{each_kb:.1f} KB for each of {count} streams"
        streams.append(await asyncio.wait_for(first_frame(front["port"], Wish(frames=1)), 30))
        assert not [reader for reader, _ in streams[:count] if reader.at_eof()]
        for _, writer in streams:
            writer.close()
        async with asyncio.timeout(60):
            while await in_flight():
                await asyncio.sleep(0.1)
