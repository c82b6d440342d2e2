"""A ledger on each database: a SQLite file, and a real PostgreSQL server where there is one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from perjoule.adapters.ledger.store import Ledger
from tests.fakes import postgres as fake
from tests.fakes.ledger_writer import NOW


@pytest.fixture(scope="session")
def postgres() -> Iterator[fake.Postgres]:
    """The server, for all tests."""
    if not fake.IS_THERE:
        pytest.skip("no PostgreSQL server is installed")
    with fake.postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place without a ledger yet."""
    if request.param == "sqlite":
        return str(tmp_path / "state" / "ledger.db")
    server: fake.Postgres = request.getfixturevalue("postgres")
    return server.fresh()


@pytest.fixture
def ledger(where: str) -> Iterator[Ledger]:
    """An open one, whose clock stands at NOW."""
    ledger = Ledger(where, now_unix_ns=lambda: NOW)
    yield ledger
    ledger.close()
