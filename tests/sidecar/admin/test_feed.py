"""The live page's events over real HTTP: computed once for all, not at all for nobody, and nobody who is slow is waited for."""

import asyncio
import json
import socket
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from perjoule.sidecar.admin.feed import VIEWERS
from tests.sidecar.admin.serving import asking
from tests.sidecar.admin.test_port import View

PATIENCE_S = 20


class Counted:
    """Counts how often it is asked, and tells the count."""

    def __init__(self, padding=0):
        self.asked, self.padding, self.broken = 0, "x" * padding, None

    async def past(self):
        return {"slots": [self.asked]}

    def news(self):
        self.asked += 1
        return {"asked": self.asked, "slots": ["new"], "padding": self.padding}

    async def state(self):
        if self.broken:
            raise self.broken
        return {"engine": "vllm"}


@asynccontextmanager
async def port(live, token_now=lambda: None, stops=None):
    """The operator's port, showing this."""
    view = View()
    view.live = live
    async with asking(view, token_now, stops) as client:
        yield client


async def event(response):
    """The next event: its name and what it says."""
    async with asyncio.timeout(PATIENCE_S):
        name = (await response.content.readline()).decode().strip()
        data = (await response.content.readline()).decode().strip()
        assert await response.content.readline() == b"\n"
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


async def until(condition):
    """Wait for it."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


async def test_who_looks_is_told_the_past_and_then_the_news():
    """What was told before comes first, so that nothing is missing and nothing is there twice."""
    async with port(Counted()) as client, client.get("/energy/live") as response:
        assert (response.status, response.headers["Content-Type"]) == (200, "text/event-stream")
        name, said = await event(response)
        assert (name, said["slots"], said["news"]["slots"]) == ("past", [1], [])
        told = [await event(response) for _ in range(4)]
        assert [said["asked"] for name, said in told if name == "news"][:2] == [2, 3]
        assert ("state", {"engine": "vllm"}) in told


async def test_it_is_computed_once_for_all_and_not_for_nobody():
    """Ten viewers cost one computation, the first begins it, the last one ends it."""
    live = Counted()
    async with port(live) as client:
        async with AsyncExitStack() as stack:
            viewers = [await stack.enter_async_context(client.get("/energy/live")) for _ in range(10)]
            news = [[said["asked"] for name, said in [await event(viewer) for _ in range(6)] if name == "news"] for viewer in viewers]
            assert all(set(range(min(one), max(one) + 1)) == set(one) for one in news)  # each was told every one of the same
            assert live.asked < 10 * 4
        before = -1
        async with asyncio.timeout(PATIENCE_S):
            while before != live.asked:
                before = live.asked
                await asyncio.sleep(0.6)  # two and more computations, if there were any
        async with client.get("/energy/live") as again:
            assert (await event(again))[1]["news"]["asked"] == before + 1


async def test_there_is_room_for_so_many():
    """One more is told so, with when to come again; when one goes there is room."""
    async with port(Counted()) as client, AsyncExitStack() as stack:
        viewers = [await stack.enter_async_context(client.get("/energy/live")) for _ in range(VIEWERS)]
        async with client.get("/energy/live") as refused:
            assert (refused.status, (await refused.json())["error"]["code"]) == (503, "too_many_viewers")
            assert refused.headers["Retry-After"] == "5"
        viewers[0].close()
        async with asyncio.timeout(PATIENCE_S):
            while True:
                async with client.get("/energy/live") as another:
                    if another.status == 200:
                        break


async def test_one_that_takes_nothing_is_cut_off_and_the_others_are_told_on():
    """Its line is bounded, and so is what waits for it."""
    live = Counted(padding=400_000)
    async with port(live) as client:
        slow = socket.create_connection((client._base_url.host, client._base_url.port))
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.sendall(b"GET /energy/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with client.get("/energy/live") as response:
            cut_at = None
            async with asyncio.timeout(60):
                while cut_at is None or live.asked < cut_at + 4:
                    await event(response)
                    if cut_at is None and await asyncio.to_thread(is_reset, slow):
                        cut_at = live.asked
        slow.close()


def is_reset(connection):
    """Whether the other side has cut it. Looks without taking."""
    try:
        error = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    except OSError:
        return True
    return error != 0


@pytest.mark.parametrize(("site", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)])
async def test_the_page_of_somebody_else_cannot_hold_the_places(site, status):
    """Browsers say whose page asks. It could not read the answer, but it could keep others from it."""
    async with port(Counted()) as client, client.get("/energy/live", headers={"Sec-Fetch-Site": site}) as response:
        assert response.status == status


async def test_when_it_cannot_be_computed_all_are_sent_away(caplog):
    """A page then says that it is not live, and asks again; the next is told as soon as it works."""
    live = Counted()
    live.broken = RuntimeError("no state")
    async with port(live) as client:
        async with client.get("/energy/live") as response, asyncio.timeout(PATIENCE_S):
            await response.read()
        assert [record.exc_info[1] for record in caplog.records if record.name == "perjoule.sidecar.admin.feed"] == [live.broken]
        live.broken = None
        async with client.get("/energy/live") as response:
            assert [(await event(response))[0] for _ in range(3)] == ["past", "state", "news"]


async def test_a_sidecar_that_stops_says_goodbye_at_once():
    """An open page does not hold up its end."""
    stops = []
    async with port(Counted(), stops=stops) as client, client.get("/energy/live") as response:
        await event(response)
        stops[0]()
        async with asyncio.timeout(PATIENCE_S):
            await response.read()


async def test_with_a_token_the_page_is_open_and_what_it_shows_is_not():
    """The page asks for the token; it holds nothing that needs one."""
    async with port(Counted(), lambda: "token") as client:
        async with client.get("/", headers={"Host": "perjoule.internal"}) as page:
            assert page.status == 200
        async with client.get("/energy/live") as refused:
            assert refused.status == 401
        async with client.get("/energy/live?token=token") as refused:
            assert refused.status == 401
        async with client.get("/energy/live", headers={"Authorization": "Bearer token"}) as response:
            assert (await event(response))[0] == "past"


async def test_who_came_in_by_a_token_that_no_longer_holds_is_sent_away():
    """A reload may replace it; the stream that it opened ends."""
    tokens = ["old"]
    old = {"Authorization": "Bearer old"}
    async with port(Counted(), lambda: tokens[0]) as client, client.get("/energy/live", headers=old) as response:
        await event(response)
        tokens[0] = "new"
        async with asyncio.timeout(PATIENCE_S):
            await response.read()
