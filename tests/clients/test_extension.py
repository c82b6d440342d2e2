"""The browser extension in a real Chromium, on a page that talks to a real sidecar."""

import asyncio
import contextlib
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from aiohttp import web
from playwright.async_api import async_playwright

from perjoule.bench.child import child
from perjoule.bench.engine import Engine
from tests.bench.board.chromium import MISSING, executable
from tests.test_serve import ask

EXTENSION = Path(__file__).parents[2] / "deploy" / "browser-extension"
PAGE = Path(__file__).with_name("chat.html").read_text()
FLOOD_PIECES, PIECE = 400, b": " + b"x" * 1_000_000 + b"\n\n"
UNAVAILABLE = {"X-Energy-Status": "unavailable", "X-Energy-Record": "/energy/5f"}


def answering(text, content_type, **fields):
    """A handler that always answers the same."""
    async def handler(request):
        return web.Response(text=text, content_type=content_type, headers=fields)
    return handler


class Upstream:
    """The embedded engine, with a page, other origins' pages let in, and two more answers."""

    def __init__(self):
        self.engine, self.flooded, self.runner, self.url = Engine(), 0, None, ""

    async def __aenter__(self):
        app = self.engine.app()
        app.router.add_get("/chat", answering(PAGE, "text/html"))
        app.router.add_get("/unavailable", answering("{}", "application/json", **UNAVAILABLE))
        app.router.add_get("/favicon.ico", answering("", "image/x-icon"))
        app.router.add_get("/flood", self.flood)
        app.router.add_route("OPTIONS", "/{path:.*}", answering("", "text/plain"))
        app.on_response_prepare.append(self.let_in)
        self.runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_):
        await self.runner.cleanup()

    async def flood(self, request):
        """A stream that is sent as fast as it is taken."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for _ in range(FLOOD_PIECES):
            await response.write(PIECE)
            self.flooded += 1
        return response

    async def let_in(self, request, response):
        """As vLLM's CORS middleware does, which exposes no header."""
        response.headers.update({f"Access-Control-Allow-{what}": "*" for what in ("Origin", "Headers", "Methods")})


@contextlib.asynccontextmanager
async def browsing(tmp_path, allowed=("http://127.0.0.1/*",)):
    """Engine, sidecar and a Chromium with the extension, which is allowed on some sites: nobody can click the browser's own question here,
    so the copy that is loaded asks for them when it is installed."""
    copy = tmp_path / "extension"
    shutil.copytree(EXTENSION, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(manifest | {"host_permissions": list(allowed)}))
    async with contextlib.AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(Upstream())
        playwright = await stack.enter_async_context(async_playwright())
        path = executable(playwright.chromium.executable_path)
        if path is None:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(MISSING)
        serving = await stack.enter_async_context(child(
            "perjoule.main", "serve", "--upstream", upstream.url, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--ledger", "off",
            "--calibrations", "off", "--energy", f"simulated:{upstream.url}"))
        while not (json.loads((await ask(serving["admin"] + "/energy/balance"))[1])["measured_uj"]
                   and json.loads((await ask(serving["admin"] + "/readyz"))[1])["ready"]):
            await asyncio.sleep(0.05)
        context = await playwright.chromium.launch_persistent_context(
            tmp_path / "profile", executable_path=path, headless=True, viewport={"width": 900, "height": 600},
            ignore_default_args=["--disable-extensions"],
            args=["--headless=new", "--no-sandbox", f"--disable-extensions-except={copy}", f"--load-extension={copy}"])
        stack.push_async_callback(context.close)
        context.set_default_timeout(20_000)
        worker = context.service_workers[0] if context.service_workers else await context.wait_for_event("serviceworker")
        while allowed and len(await worker.evaluate("chrome.scripting.getRegisteredContentScripts()")) < 2:
            await asyncio.sleep(0.05)
        yield upstream, serving["listen"], context


def joules(amount):
    """How the badge says it."""
    return f"{float(amount):.{2 if float(amount) < 10 else 1}f} J simulated"


def button(page):
    """The badge, closed."""
    return page.locator("perjoule-badge button")


async def shows(page, count):
    """The rows of the badge, once there are that many answers; the sum is the first."""
    items = "document.querySelector('perjoule-badge')?.shadowRoot.querySelectorAll('li') ?? []"
    await page.wait_for_function(f"n => ({items}).length === n + 1", arg=count)
    return await page.evaluate(f"[...({items})].map(item => [...item.children].map(one => one.textContent))")


async def test_the_badge_shows_what_each_answer_cost(tmp_path):
    """Streamed, whole and by XMLHttpRequest: the joules that the page itself could have read, called simulated, and their sum."""
    async with browsing(tmp_path) as (_, listen, context):
        said = []
        context.on("request", lambda request: said.append(request.url))
        page = await context.new_page()
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        await page.goto(listen + "/chat")
        assert await page.locator("perjoule-badge").count() == 0
        streamed = await page.evaluate("stream()")
        told = json.loads(re.search(r"\n: energy (.*)\n\ndata: \[DONE\]\n\n$", streamed["text"])[1])
        assert (streamed["url"], streamed["type"], streamed["isResponse"]) == (listen + "/v1/chat/completions", "basic", True)
        assert [one[1] for one in await shows(page, 1)] == [joules(told["energy_joules"])] * 2
        whole = await page.evaluate("whole()")
        assert whole["json"]["usage"]["completion_tokens"] == 24
        total, last, _ = await shows(page, 2)
        assert last[1] == joules(whole["joules"])
        assert total[0] == "2 answers"
        assert float(total[1].split()[0]) == pytest.approx(told["energy_joules"] + float(whole["joules"]), abs=0.11)
        await page.evaluate("xhr()")
        await shows(page, 3)
        await page.evaluate("xhr({stream: true})")
        assert all(one[1].endswith(" J simulated") for one in await shows(page, 4))
        await page.evaluate("fetch('/unavailable')")
        total, last, *_ = await shows(page, 5)
        assert last[1] == "not measured"
        assert total[1].endswith(" J simulated + 1 not measured")
        await button(page).click()
        assert await page.locator("perjoule-badge ol").is_visible()
        assert await button(page).get_attribute("aria-expanded") == "true"
        assert {url.partition("/v1/")[0] for url in said if "/v1/" in url} == {listen}
        assert not [one for one in said if not one.startswith(listen)]


async def test_a_page_of_another_origin_sees_them_too(tmp_path):
    """The engine exposes none of our headers: the extension does, for this browser, and changes nothing on the wire."""
    async with browsing(tmp_path) as (upstream, listen, context):
        page = await context.new_page()
        await page.goto(f"{upstream.url}/chat?endpoint={listen}")
        whole = await page.evaluate("whole()")
        assert (await shows(page, 1))[1][1] == joules(whole["joules"])
        await page.evaluate("stream()")
        await shows(page, 2)


async def test_elsewhere_it_is_not_there(tmp_path):
    """On a site that was not allowed nothing is wrapped and nothing is shown; without any, the extension runs nowhere."""
    manifest = json.loads((EXTENSION / "manifest.json").read_text())
    assert "host_permissions" not in manifest
    assert "content_scripts" not in manifest
    async with browsing(tmp_path) as (_, listen, context):
        page = await context.new_page()
        await page.goto(listen.replace("127.0.0.1", "localhost") + "/chat")
        await page.evaluate("stream()")
        assert await page.evaluate("window.fetch.toString()") == "function fetch() { [native code] }"
        assert await page.locator("perjoule-badge").count() == 0
        popup = await context.new_page()
        await popup.goto(re.sub(r"background\.js$", "popup.html", context.service_workers[0].url))
        await popup.get_by_role("button", name="Remove http://127.0.0.1/*").wait_for()
        await popup.locator("#site").fill("ftp://somewhere")
        await popup.get_by_role("button", name="Show there").click()
        assert await popup.locator("#said").inner_text() == "got ftp:, expected http: or https:"


async def test_the_page_reads_as_it_would_without_it(tmp_path):
    """Who stops stops the engine; who does not read is not sent on; pieces, BYOB readers, clones and errors are as ever."""
    async with browsing(tmp_path) as (upstream, listen, context):
        page = await context.new_page()
        await page.goto(listen + "/chat")
        await page.evaluate("stop('stopped-by-the-page')")
        while True:
            record = json.loads((await ask(listen + "/energy/stopped-by-the-page"))[1])
            if "outcome" in record:
                break
            await asyncio.sleep(0.05)
        assert record["outcome"] == "cancelled"
        await page.evaluate("fetch('/flood').then(async response => { globalThis.slow = response.body.getReader(); await slow.read(); })")
        before = -1
        while before != upstream.flooded < FLOOD_PIECES:
            before = upstream.flooded
            await asyncio.sleep(0.5)
        assert upstream.flooded < FLOOD_PIECES / 2
        await page.evaluate("slow.cancel()")
        byob = """async () => {
            const ask = () => fetch('/v1/chat/completions', {method: 'POST', body: JSON.stringify(
                {model: 'perjoule/simulated-8b', max_tokens: 24, stream: true, messages: [{role: 'user', content: 'x'}]})});
            const reader = (await ask()).body.getReader({mode: 'byob'});
            let size = 0;
            for (;;) {
                const {done, value} = await reader.read(new Uint8Array(64));
                if (done) break;
                size += value.byteLength;
            }
            const answer = await ask();
            const copy = answer.clone();
            const [one, other] = await Promise.all([answer.text(), copy.text()]);
            const aborting = new AbortController();
            const aborted = await fetch('/flood', {signal: aborting.signal});
            const stopping = new AbortController();
            const stopped = (await fetch('/flood', {signal: stopping.signal})).body.getReader();
            await stopped.read();
            aborting.abort();
            stopping.abort();
            const reads = async () => { for (;;) await stopped.read(); };
            return {size, same: one === other && one.endsWith('data: [DONE]\\n\\n'), url: copy.url,
                    errors: [await aborted.text().catch(error => error.name), await reads().catch(error => error.name)],
                    refused: await fetch('http://127.0.0.1:1/').catch(error => error.name)};
        }"""
        told = await page.evaluate(byob)
        assert told["size"] > 1000
        assert (told["same"], told["url"]) == (True, listen + "/v1/chat/completions")
        assert (told["errors"], told["refused"]) == (["AbortError", "AbortError"], "TypeError")
