"""Whether the engine is there, and what it is: asked until it answers, and then now and again."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

from perjoule.sidecar.ports import Engine

UNTIL_IT_ANSWERS_S = 2.0
AGAIN_S = 10.0  # another model behind the same port is another calibration
MISSES = 2  # in a row, after which it is taken to be gone

logger = logging.getLogger("perjoule")


class Presence:
    """Traffic flows meanwhile, whatever is found. `name` is what the operator said that the engine is, until it has answered."""

    def __init__(self, url: str, told: str, recognise: Callable[[str], Awaitable[Engine | None]]) -> None:
        """`told` is the engine's name, or `auto` for what `recognise` finds."""
        self._url, self._told, self._recognise = url, told, recognise
        self.name = "unknown" if told == "auto" else told
        self.answers = asyncio.Event()
        self.found: Engine | None = None

    async def watch(self, news: Callable[[Engine], Awaitable[None]]) -> None:
        """For ever; `news` is told of an engine that has not been there before, under the name it goes by."""
        misses = 0
        while True:
            found = await self._recognise(self._url)
            misses = 0 if found is not None else misses + 1
            if found is not None and found.is_news(self.found):
                self.found = found
                if self._told == "auto":
                    self.name = found.name
                logger.info("upstream %s answers; engine: %s", self._url, self.name)
                await news(replace(found, name=self.name))
            if found is not None:
                self.answers.set()
            elif misses == MISSES and self.answers.is_set():
                self.answers.clear()
                logger.warning("upstream %s does not answer any more", self._url)
            await asyncio.sleep(AGAIN_S if self.found else UNTIL_IT_ANSWERS_S)
