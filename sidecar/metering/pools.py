"""Which boards serve which requests: what `--gpus` names, one pool of boards, one for each data-parallel rank, or one for each stage.

`all` and `UUID,UUID` are one pool: tensor- and pipeline-parallel boards work on the same steps. `0=UUID,UUID;1=UUID` are ranks, each
an engine core of its own: a request runs on one of them. `prefill=UUID;decode=UUID` are the two halves of one engine: a request runs
on both, one after the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from perjoule.sidecar.ports import Device

EXPECTED = "all, UUID,UUID or 0=UUID,UUID;1=UUID or prefill=UUID;decode=UUID"
EVERY_BOARD = "all"


class Stage(StrEnum):
    """What of a request a pool computes, where it does not compute all of it."""

    PREFILL = "prefill"
    DECODE = "decode"


@dataclass(frozen=True, slots=True)
class Pool:
    """Boards whose joules are divided together, by UUID; none are named where it is every board there is."""

    boards: tuple[str, ...] = ()
    rank: int | None = None
    stage: Stage | None = None


@dataclass(frozen=True, slots=True)
class Pools:
    """All the boards of one engine. Of two stages, the second is decode."""

    pools: tuple[Pool, ...] = (Pool(),)

    @property
    def boards(self) -> str:
        """What an energy source is to read: `all`, or UUIDs with commas between."""
        return ",".join(uuid for pool in self.pools for uuid in pool.boards) or EVERY_BOARD

    @property
    def ranks(self) -> int:
        """How many engine cores there are."""
        return sum(pool.rank is not None for pool in self.pools) or 1

    def places(self, devices: Sequence[Device]) -> list[list[int]]:
        """For each pool, where its boards are among these. One pool takes them all: the source was told which to read.
        Raises ValueError for a board that is not among them."""
        if len(self.pools) == 1:
            return [list(range(len(devices)))]
        where = {device.uuid: place for place, device in enumerate(devices)}
        missing = [uuid for pool in self.pools for uuid in pool.boards if uuid not in where]
        if missing:
            there = ", ".join(where) or "none"
            raise ValueError(f"--gpus: got {', '.join(missing)}, expected boards that the energy source reads: {there}")
        return [[where[uuid] for uuid in pool.boards] for pool in self.pools]


ONE_POOL = Pools()


def read_pools(text: str) -> Pools:
    """What `--gpus` says. Raises ValueError: what was got and what was expected."""
    if text.strip() == EVERY_BOARD:
        return ONE_POOL
    if "=" not in text and ";" not in text:
        return Pools((Pool(_boards(text, text)),))
    named: dict[str, tuple[str, ...]] = {}
    for part in text.split(";"):
        name, equals, boards = part.partition("=")
        name = name.strip()
        if not equals or name in named:
            raise _unexpected(text, f"{part.strip()!r}, named twice" if equals else f"{part.strip()!r} without a name")
        named[name] = _boards(boards, text)
    every = [uuid for boards in named.values() for uuid in boards]
    if len(set(every)) < len(every):
        raise _unexpected(text, f"{next(uuid for uuid in every if every.count(uuid) > 1)!r} in two pools")
    if set(named) == set(Stage):
        return Pools(tuple(Pool(named[stage], stage=stage) for stage in (Stage.PREFILL, Stage.DECODE)))
    ranks = [as_rank(name) for name in named]
    if any(rank is None for rank in ranks) or len(set(ranks)) < len(ranks):
        raise _unexpected(text, f"the names {', '.join(map(repr, named))}")
    return Pools(tuple(Pool(boards, rank=rank) for rank, boards in zip(ranks, named.values(), strict=True)))


def as_rank(text: str) -> int | None:
    """A data-parallel rank as text, None for what is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 7 else None


def each_once(text: str) -> tuple[str, ...]:
    """What a text names, with commas between; one that is named twice must not count twice."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",")))


def _boards(text: str, whole: str) -> tuple[str, ...]:
    uuids = each_once(text)
    if not all(uuids) or EVERY_BOARD in uuids:
        raise _unexpected(whole, f"{text.strip()!r} for boards")
    return uuids


def _unexpected(whole: str, what: str) -> ValueError:
    return ValueError(f"got {whole!r} ({what}), expected {EXPECTED}")
