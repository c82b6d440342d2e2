"""Takes the picture in docs/clients.md: `python -m tests.clients.picture docs/img/extension.png`."""

import asyncio
import sys
import tempfile
from pathlib import Path

from tests.clients.test_extension import browsing, button

QUESTIONS = {"What does this cost?": 24, "And a longer answer?": 56, "What of a short one?": 10}


async def main(picture: str) -> None:
    """A short conversation, and what each of its answers cost."""
    with tempfile.TemporaryDirectory() as folder:
        async with browsing(Path(folder)) as (_, listen, context):
            page = await context.new_page()
            await page.set_viewport_size({"width": 1180, "height": 600})
            await page.goto(listen + "/chat")
            for question, tokens in QUESTIONS.items():
                await page.locator("#question").fill(question)
                await page.evaluate(f"stream({{max_tokens: {tokens}}})")
            await page.locator("#question").fill("")
            await button(page).click()
            await page.screenshot(path=picture)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
