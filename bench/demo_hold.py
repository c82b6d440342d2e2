"""Traffic that does not end: a few tenants with habits of their own, so that who looks at the live page has something to see."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from openai import AsyncOpenAI

from perjoule.bench.dialect import MODEL
from perjoule.bench.visits import SIZES, Kind, Visit, make
from perjoule.sidecar.access.keys import entry_for

AFTER_A_FAILURE_S = 1.0


@dataclass(frozen=True, slots=True)
class Tenant:
    """Some people with one key: they work for a while, then they rest. `pause_s` is between an answer and the next question."""

    name: str
    model: str
    kinds: tuple[Kind, ...]
    people: int
    pause_s: float
    works_s: float
    rests_s: float

    @property
    def key(self) -> str:
        """Its API key, which opens nothing but the demo."""
        return f"demo-{self.name}"


TENANTS = (
    Tenant("support", MODEL, (Kind.CHAT, Kind.CHAT, Kind.WHOLE), 4, 1.0, 50, 12),
    Tenant("search", MODEL, (Kind.DOCUMENT, Kind.COMPLETION), 2, 1.5, 35, 20),
    Tenant("writers", f"{MODEL}:fiction", (Kind.STORY, Kind.LEAVER, Kind.STORY), 4, 0.5, 25, 30),
    Tenant("nightly-batch", f"{MODEL}:extract", (Kind.COMPLETION,), 14, 0.0, 18, 44),
)


@contextmanager
def keys() -> Iterator[Path]:
    """A file of the tenants' keys, for `--keys`."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "keys.toml"
        file.write_text("\n".join(entry_for(tenant.name, tenant.key) for tenant in TENANTS))
        yield file


async def ask(listen: str, seed: int) -> None:
    """Ask and ask, until this is cancelled."""
    async with asyncio.TaskGroup() as group:
        for tenant in TENANTS:
            client = AsyncOpenAI(base_url=listen + "/v1", api_key=tenant.key, max_retries=0)
            for person in range(tenant.people):
                group.create_task(_one(tenant, client, Random(f"{seed} {tenant.name} {person}")))


async def _one(tenant: Tenant, client: AsyncOpenAI, random: Random) -> None:
    """One person's days."""
    numbers, clock = count(), asyncio.get_running_loop()
    while True:
        until_s = clock.time() + tenant.works_s
        while clock.time() < until_s:
            kind = random.choice(tenant.kinds)
            least_in, most_in, least_out, most_out = SIZES[kind]
            visit = Visit(f"demo-{tenant.name}-{next(numbers)}", kind, random.expovariate(1 / tenant.pause_s) if tenant.pause_s else 0.0,
                          random.randint(least_in, most_in), random.randint(least_out, most_out))
            await make(visit, client, tenant.model)
            if visit.failure:
                await asyncio.sleep(AFTER_A_FAILURE_S)
        await asyncio.sleep(tenant.rests_s)
