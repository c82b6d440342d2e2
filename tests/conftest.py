"""What all tests share: how hard Hypothesis looks, and the event loop that the product runs on."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop
from hypothesis import settings

ENGINES = Path(__file__).with_name("engines")

# deadlines measure the machine, not the code: two busy cores would break them
settings.register_profile("fast", deadline=None, max_examples=100)
settings.register_profile("deep", deadline=None, max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one file run in one process of pytest-xdist, those with real engines in one, too: each is started once. The longest come
    first."""
    def group(item: pytest.Item) -> str:
        return "engines" if ENGINES in item.path.parents else str(item.path)

    items.sort(key=lambda item: not (group(item) == "engines" or item.get_closest_marker("slow")))
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group(item)))


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """uvloop, as in `perjoule serve`: its transports differ from asyncio's in ways that matter to a relay."""
    return {"uvloop": uvloop.new_event_loop}
