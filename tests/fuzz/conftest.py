"""For how long to look: as many examples as the profile says, or for PERJOULE_FUZZ_SECONDS, in equal parts for all tests here."""

import os
import time

import pytest

SECONDS = float(os.environ.get("PERJOULE_FUZZ_SECONDS", "0"))
_share_s = pytest.StashKey[float]()


def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Give each test its part of the time."""
    here = [item for item in items if item.path.parent.name == "fuzz" and hasattr(getattr(item, "obj", None), "hypothesis")]
    for item in here:
        item.stash[_share_s] = SECONDS / len(here)


def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test again, with other examples, until its time is over."""
    share_s = pyfuncitem.stash.get(_share_s, None)
    if share_s is None:
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    until, runs = time.monotonic() + share_s, 0
    while not runs or time.monotonic() < until:
        pyfuncitem.obj(**arguments)
        runs += 1
    pyfuncitem.add_report_section("call", "fuzz", f"{runs} runs")  # `pytest -rP` shows it
    return True
