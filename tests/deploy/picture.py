"""Draws the dashboards for docs/grafana.md: `python -m tests.deploy.picture docs/img`, with npm, Chromium and Prometheus.

A Grafana cannot be had everywhere, but the components that it draws with can. The data are a real Prometheus's, of a real sidecar that was
under traffic for two minutes.
"""

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

from playwright.async_api import async_playwright

from perjoule.bench.dialect import MODEL
from tests.bench.board.chromium import executable
from tests.deploy.monitored import TENANTS, Monitored, monitored
from tests.deploy.test_grafana import DASHBOARDS, asked

DRAWING = Path(__file__).with_name("drawing")
SECONDS = 120
PER_S = (0.0, 2.0, 5.0, 0.2, 9.0)  # requests, one after the other
CHATS: list[dict[str, Any]] = [{"model": MODEL, "stream": True, "max_tokens": tokens} for tokens in (40, 150, 300, 600)] * 2 + [
    {"stream": True, "max_tokens": 120}, {"model": "nobody/has-this"}, {"model": MODEL, "stream": True, "max_tokens": 4000}]


async def traffic(running: Monitored) -> None:
    """Quiet and busy times, of tenants of different sizes."""
    random, began_s, going = Random(1), time.monotonic(), set()
    while (gone_s := time.monotonic() - began_s) < SECONDS:
        per_s = PER_S[int(gone_s / SECONDS * len(PER_S))]
        await asyncio.sleep(min(1.0, random.expovariate(per_s)) if per_s else 1.0)
        if per_s:
            going.add(asyncio.create_task(running.visit(random.choices(TENANTS, (5, 3, 1))[0], **random.choice(CHATS))))
    for task in going:
        task.cancel()
    await asyncio.gather(*going, return_exceptions=True)


async def answered(running: Monitored, board: dict[str, Any], since_s: float, until_s: float) -> dict[str, Any]:
    """A dashboard, and what Prometheus says to each question of each panel."""
    answers: dict[int, list[Any]] = {}
    for panel in board["panels"]:
        answers[panel["id"]] = []
        for target in panel["targets"]:
            expr = asked(target["expr"]).replace("[20s]", "[10s]").replace("[1m]", f"[{SECONDS}s]")
            when = {"time": str(until_s)} if target["instant"] else {"start": str(since_s), "end": str(until_s), "step": "1"}
            answers[panel["id"]].append((await running.ask("query" if target["instant"] else "query_range", query=expr, **when))["result"])
    return {"board": board, "answers": answers, "from": since_s, "to": until_s}


def built(folder: Path) -> None:
    """Grafana's components and our drawing as one script and one style sheet. Raises CalledProcessError."""
    shutil.copytree(DRAWING, folder, dirs_exist_ok=True)
    subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund"], cwd=folder, check=True)
    loaders = [f"--loader:.{kind}=dataurl" for kind in ("svg", "woff2", "png", "gif", "ttf")]
    subprocess.run(["npx", "esbuild", "draw.jsx", "--bundle", "--outfile=drawn.js", '--define:process.env.NODE_ENV="production"', *loaders,
                    "--alias:react-custom-scrollbars-2=./scrollbars.js", "--log-level=error"], cwd=folder, check=True)


async def main(pictures: Path) -> None:
    """All four."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        await asyncio.to_thread(built, folder)
        async with monitored(folder, speed=0.5) as running:
            since_s = time.time_ns() / 1e9
            await traffic(running)
            until_s = time.time_ns() / 1e9
            given = {name: await answered(running, board, since_s, until_s) for name, board in DASHBOARDS.items()}
        async with async_playwright() as playwright:
            chromium = executable(playwright.chromium.executable_path)
            browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            for name, one in given.items():
                page = await browser.new_page(viewport={"width": 1280, "height": 800})
                (folder / f"{name}.html").write_text(
                    "<!doctype html><meta charset=utf-8><link rel=stylesheet href=drawn.css><body style='margin:0'><div id=root></div>"
                    f"<script>window.GIVEN = {json.dumps(one)}</script><script src=drawn.js></script>")
                await page.goto((folder / f"{name}.html").as_uri())
                await page.wait_for_function("document.querySelectorAll('section').length > 5")
                await page.wait_for_timeout(3000)  # charts draw when they like
                await page.screenshot(path=pictures / f"grafana-{name}.png", full_page=True)
            await browser.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
