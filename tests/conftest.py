"""What all tests share: how hard Hypothesis looks, and the event loop that the product runs on."""

import asyncio
import os
from collections.abc import Callable
from typing import Any

import pytest
import uvloop
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

ENGINES = "tests/engines/"

# deadlines measure the machine, not the code: two busy cores would break them
settings.register_profile("fast", deadline=None, max_examples=100)
settings.register_profile("deep", deadline=None, max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


class Groups(LoadScopeScheduling):
    """Hands out to one process of pytest-xdist the tests of a file, and all that need real engines: each is started once. (`--dist
    loadgroup` no longer looks at its marks since pytest 9.2: pytest-dev/pytest-xdist#1386.)"""

    def _split_scope(self, nodeid: str) -> str:
        return ENGINES if nodeid.startswith(ENGINES) else nodeid.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Groups:
    """Who gets which tests."""
    return Groups(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest come first."""
    def is_long(item: pytest.Item) -> bool:
        return item.nodeid.startswith(ENGINES) or item.get_closest_marker("slow") is not None

    items.sort(key=lambda item: not is_long(item))


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """uvloop, as in `perjoule serve`: its transports differ from asyncio's in ways that matter to a relay."""
    return {"uvloop": uvloop.new_event_loop}
