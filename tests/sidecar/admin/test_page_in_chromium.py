"""The live page in a real Chromium, of a real sidecar: what it shows, what people press, and what happens when the sidecar goes."""

import asyncio
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import aiohttp
import pytest
from playwright.async_api import Page, async_playwright, expect

from perjoule.bench.child import child
from perjoule.bench.dialect import MODEL
from perjoule.sidecar.settings.credentials import OPEN
from tests.bench.board.chromium import MISSING, executable
from tests.fakes.sidecar import sidecar
from tests.fakes.upstream import answer, scripted

PATIENCE_MS = 20_000
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>'\"&"
expect.set_options(timeout=PATIENCE_MS)


@dataclass
class Opened:
    """A page, what it said on the console and what it asked for."""

    page: Page
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    async def told(self, expression: str) -> object:
        """What an expression is, in the page."""
        return await self.page.evaluate(expression)

    async def until(self, expression: str) -> None:
        """Wait until it is true. (Playwright's own way would need eval, which the page's policy forbids.)"""
        async with asyncio.timeout(PATIENCE_MS / 1000):
            while not await self.page.evaluate(expression):
                await asyncio.sleep(0.05)

    async def cells(self) -> dict[str, int]:
        """The account as it is written on the page, in whole microjoules."""
        texts = await self.page.eval_on_selector_all("[data-account]", "all => all.map(one => [one.dataset.account, one.textContent])")
        return {name: int(text.replace(",", "")) for name, text in texts}


@asynccontextmanager
async def opened(url: str, *, silent: bool = True, **options: object) -> AsyncIterator[Opened]:
    """The page at the operator's port. In the end it must have asked for nothing but itself and its events, and have been silent."""
    async with async_playwright() as playwright:
        path = executable(playwright.chromium.executable_path)
        if path is None:
            pytest.skip(MISSING)
        browser = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        context = await browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})  # type: ignore[arg-type]
        found = Opened(await context.new_page())
        found.page.on("console", lambda message: found.said.append(message.text))
        found.page.on("pageerror", lambda error: found.said.append(f"error: {error}"))
        found.page.on("dialog", lambda dialog: found.said.append(f"dialog: {dialog.message}"))
        found.page.on("request", lambda request: found.asked.append(request.url))
        await found.page.goto(url + "/")
        yield found
        await browser.close()
        assert {asked for asked in found.asked if not asked.startswith("data:")} <= {url + "/", url + "/energy/live"}
        if silent:
            assert found.said == []


@pytest.fixture
def admin() -> str:
    """An address for the operator's port, which may be used again."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{found.getsockname()[1]}"


@pytest.fixture
async def upstream() -> AsyncIterator[str]:
    """An engine that answers everything with as good as nothing."""
    async with scripted([answer(b"{}")]) as engine:
        yield engine.url


@asynccontextmanager
async def demo() -> AsyncIterator[tuple[str, str]]:
    """The embedded engine and a sidecar in front of it, as processes, after some requests: its two addresses."""
    async with child("perjoule.bench.engine", "--port", "0") as engine:
        ports = ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--ledger", "off", "--calibrations", "off")
        async with child("perjoule.main", "serve", "--upstream", engine["url"], "--energy", "simulated", *ports) as serving:
            yield serving["listen"], serving["admin"]


async def chat(listen: str, tokens: int = 20) -> None:
    """One request, streamed."""
    asked = {"model": MODEL, "max_tokens": tokens, "ignore_eos": True, "stream": True,
             "messages": [{"role": "user", "content": "How warm is it?"}]}
    async with aiohttp.ClientSession() as http, http.post(listen + "/v1/chat/completions", json=asked) as response:
        assert response.status == 200
        await response.read()


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (360, "light"), (1280, "dark"), (1280, "light")])
async def test_it_shows_what_the_sidecar_says(width, scheme):
    """After real requests: the account is that of /energy/balance and adds up, every joule is marked as simulated, nothing sticks out."""
    options = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
    async with demo() as (listen, url), opened(url, **options) as live, aiohttp.ClientSession() as http:
        await live.until("perjoule.live.slots.length > 1")
        await asyncio.gather(*(chat(listen) for _ in range(4)))
        await live.until("perjoule.live.state?.records === 4")
        async with http.get(url + "/energy/balance") as response:
            balance = await response.json()
        assert balance["requests_uj"] > 0
        await live.until(f"BigInt(perjoule.live.news.balance.measured_uj) >= {balance['measured_uj']}n")
        in_chart = "perjoule.live.slots.flatMap(slot => slot[5]).reduce((sum, [, joules]) => sum + joules, 0)"
        await live.until(f"Math.abs({in_chart} - {balance['requests_uj'] / 1e6}) < 1e-3")
        await live.page.keyboard.press("p")
        cells = await live.cells()
        assert (cells["requests"], cells["unattributed"]) == (balance["requests_uj"], balance["unattributed_uj"])
        assert cells["measured"] == cells["requests"] + cells["idle"] + cells["unattributed"] >= balance["measured_uj"]
        widths = await live.told("[...document.querySelectorAll('.closure span')].map(one => one.getBoundingClientRect().width)")
        whole = await live.told("document.querySelector('.closure').getBoundingClientRect().width")
        assert sum(widths) == pytest.approx(whole, abs=1)
        assert widths[0] / whole == pytest.approx(cells["requests"] / cells["measured"], abs=0.02)
        await expect(live.page.locator("#unreal")).to_be_visible()
        assert "simulated" in await live.page.title()
        assert await live.page.locator(".unreal", has_text="simulated").count() == 3
        assert await live.told("document.documentElement.scrollWidth") == width
        dark = await live.told("getComputedStyle(document.body).backgroundColor")
        assert (dark == "rgb(21, 23, 26)") == (scheme == "dark")


async def test_requests_tick_while_they_run(admin):
    """A running request has a row, whose tokens and joules grow until it ends."""
    async with demo() as (listen, url), opened(url) as live:
        running = asyncio.create_task(chat(listen, 2000))
        row = live.page.locator("#flight tbody tr")
        await expect(row).to_have_count(1)
        await live.until("perjoule.live.news.requests[0]?.j > 0")
        before = await live.told("perjoule.live.news.requests[0]")
        await live.until(f"perjoule.live.news.requests[0].j > {before['j']} && perjoule.live.news.requests[0].frames > {before['frames']}")
        await expect(row.locator("th span")).to_have_text(MODEL.split("/")[-1])
        running.cancel()
        await expect(row).to_have_count(0)
        await expect(live.page.locator("#flight .about")).to_have_text("Nothing runs.")


async def test_names_are_text_whatever_they_are(upstream, admin):
    """Of a model and of a tenant: no element comes of them, no script runs, wherever they are shown."""
    async with sidecar(upstream, admin=admin) as running:
        meter = running.service.meter
        meter.begin("hostile", time.monotonic_ns(), model=HOSTILE, tenant=HOSTILE, streamed=False)
        async with opened(f"http://{admin}") as live:
            for by in ("model", "tenant"):
                shown = "document.querySelector('.users tbody th span')?.title.includes('onerror')"
                await live.until(f"perjoule.wanted.by === '{by}' && {shown}")
                text = HOSTILE if by == "tenant" else HOSTILE.split("/")[-1]
                assert await live.told("document.querySelector('.users tbody th span').textContent") == text
                await live.page.locator("canvas").hover(position={"x": 700, "y": 100})
                await live.page.keyboard.press("m")
            assert await live.told("document.querySelector('.flight tbody small').textContent") == HOSTILE
            assert await live.told("document.querySelectorAll('img, body script:not(:last-of-type)').length") == 0


async def test_five_hundred_in_flight_are_counted_and_eight_are_shown(upstream, admin):
    """The page says how many more there are, stays small, and answers a key at once."""
    async with sidecar(upstream, admin=admin) as running:
        for number in range(500):
            running.service.meter.begin(f"r{number}", time.monotonic_ns(), model=f"model-{number}", tenant=f"{number}", streamed=False)
        async with opened(f"http://{admin}") as live:
            await expect(live.page.locator("#flight tbody tr")).to_have_count(8)
            await expect(live.page.locator("#flight .about")).to_have_text("and 492 more, younger than these")
            await live.until("document.querySelectorAll('.users tbody tr').length === 8")  # six, the others, idle
            assert "others" in await live.page.locator(".users tbody").inner_text()
            took_ms = await live.told("""new Promise(on => {
                const since = performance.now();
                dispatchEvent(new KeyboardEvent("keydown", { key: "m" }));
                requestAnimationFrame(() => setTimeout(() => on(performance.now() - since)));
            })""")
            assert took_ms < 1000
            sizes = await live.told("[JSON.stringify(perjoule.live.news).length, JSON.stringify(perjoule.live.slots.at(-1)).length]")
            assert max(sizes) < 4000


async def test_it_comes_back_after_the_sidecar_did(upstream, admin):
    """While the sidecar is gone the page says so and fades; once there is another, it shows that one's numbers."""
    async with sidecar(upstream, admin=admin):
        stack = opened(f"http://{admin}", silent=False)
        live = await stack.__aenter__()
        await expect(live.page.locator("#link")).to_have_text("live")
        await live.until("BigInt(perjoule.live.news.balance.measured_uj) > 100000000n")  # a quarter of a second at 400 W
    await expect(live.page.locator("#link")).to_contain_text("not live")
    await expect(live.page.locator("body")).to_have_class("stale")
    async with sidecar(upstream, admin=admin) as running:
        await expect(live.page.locator("#link")).to_have_text("live")
        await expect(live.page.locator("body")).to_have_class("")
        await live.until(f"BigInt(perjoule.live.news.balance.measured_uj) <= {running.service.meter.balance.measured_uj + 10**9}n")
        await stack.__aexit__(None, None, None)
    assert all("ERR_" in said for said in live.said)  # Chromium's own word for a connection that was refused


async def test_with_a_token_it_asks_for_it(upstream, admin):
    """A wrong one is refused and asked for again; the right one opens, is kept for a reload, and is never in an address."""
    locked = replace(OPEN, admin_token="right")
    async with sidecar(upstream, admin=admin, credentials=locked), opened(f"http://{admin}", silent=False) as live:
        login = live.page.locator("#login")
        await expect(login).to_be_visible()
        assert await live.told("document.body.className") == "waiting stale"
        await live.page.keyboard.press("Escape")  # there is nothing behind it
        await live.page.locator("#token").fill("wrong")
        await live.page.keyboard.press("Enter")
        await expect(login).to_contain_text("That token was refused.")
        await live.page.locator("#token").fill("right")
        await live.page.get_by_role("button", name="Open").click()
        await expect(live.page.locator("#link")).to_have_text("live")
        await live.page.reload()
        await expect(live.page.locator("#link")).to_have_text("live")
        assert await login.is_hidden()
        assert not [asked for asked in live.asked if "right" in asked]
        assert "right" not in await live.told("location.href + document.cookie + JSON.stringify(localStorage)")
        assert all("401" in said for said in live.said), live.said


async def test_without_a_source_there_are_no_joules(upstream, admin):
    """A dash is not a nought."""
    async with sidecar(upstream, admin=admin, energy=False) as running:
        running.service.meter.begin("r", time.monotonic_ns(), model="m")
        async with opened(f"http://{admin}") as live:
            await expect(live.page.locator("#ledger")).to_contain_text("No energy source, so no joules")
            await expect(live.page.locator("#flight tbody tr td").last).to_have_text("–")
            assert await live.page.locator(".tile .value").first.inner_text() == "–"
            await expect(live.page.locator("#behind")).to_contain_text("none: no joules are shown")
            assert not re.search(r"\b0 [JW]\b", await live.page.locator("main").inner_text())


async def test_what_is_in_trouble_is_said(upstream, admin):
    """A place for records that cannot be written to, with its error."""
    class Full:
        name = "full-disk"

        def put(self, records):
            raise OSError("no space left on device")

        def get(self, any_id):
            return None

        def close(self): ...

    async with sidecar(upstream, admin=admin, ledger=Full()) as running:
        await running.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        async with opened(f"http://{admin}") as live:
            said = "Records cannot be stored in full-disk: OSError: no space left on device"
            await expect(live.page.locator("#alarms")).to_contain_text(said)
            await expect(live.page.locator("#behind .bad")).to_contain_text("1 pending")


async def test_everything_can_be_done_by_key(upstream, admin):
    """Switches, pause, theme, help; and the cursor of the chart, which tells what it points at."""
    async with sidecar(upstream, admin=admin) as running, opened(f"http://{admin}") as live:
        running.service.meter.begin("r", time.monotonic_ns(), model="m", tenant="somebody")
        press, page = live.page.keyboard.press, live.page
        await expect(page.locator("#link")).to_have_text("live")
        await press("m")
        await expect(page.locator(".users thead th").first).to_have_text("Tenant")
        await expect(page.locator("[data-value=tenant]")).to_have_attribute("aria-pressed", "true")
        await press("r")
        await expect(page.locator("[data-value='60']")).to_have_attribute("aria-pressed", "true")
        await press("t")
        assert await live.told("document.documentElement.dataset.theme") == "light"
        await press("?")
        await expect(page.locator("#keys")).to_be_visible()
        await press("Escape")
        await expect(page.locator("#keys")).to_be_hidden()
        await live.until("perjoule.live.slots.length > 2")
        await page.locator("canvas").focus()
        await press("ArrowLeft")
        await expect(page.locator("#tip")).to_contain_text("ago")
        await expect(page.locator("#tip")).to_contain_text("W")
        await press("p")
        await expect(page.locator("#link")).to_have_text("paused")
        before = await live.cells()
        async with asyncio.timeout(PATIENCE_MS / 1000):
            while running.service.meter.balance.measured_uj < before["measured"] + 400_000_000:  # a second
                await asyncio.sleep(0.1)
        assert await live.cells() == before
        await press("p")
        await live.until(f"document.querySelector('[data-account=measured]').textContent !== '{before['measured']:,}'")
        await page.reload()
        await expect(page.locator("[data-value=tenant]")).to_have_attribute("aria-pressed", "true")  # it is remembered
