"""What there is to know of one engine: how it is recognised, where it names its largest batch, where it tells its load."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from perjoule.adapters.engines.pages import Pages
from perjoule.adapters.engines.samples import Names, read_load
from perjoule.sidecar.ports import Engine, Load


async def untold(_: Pages) -> None:
    """What an engine does not tell."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """One engine, called `name` as in `--engine`. All answer None for what the pages do not show."""

    name: str
    recognise: Callable[[Pages], Awaitable[Engine | None]]
    load: Callable[[Pages], Awaitable[Load | None]] = untold
    largest_batch: Callable[[Pages], Awaitable[int | None]] = untold


def told_in_metrics(names: Names) -> Callable[[Pages], Awaitable[Load | None]]:
    """The load of an engine that tells it in `/metrics`."""
    async def load(pages: Pages) -> Load | None:
        page = await pages.body("/metrics")
        return await asyncio.to_thread(read_load, page, names) if page else None

    return load
