"""`--gpus` says which boards serve which requests, and what cannot be meant is refused."""

import pytest

from perjoule.sidecar.metering.pools import Pool, Pools, Stage, as_rank, read_pools
from perjoule.sidecar.ports import Device


@pytest.mark.parametrize(("text", "pools", "boards", "ranks"), [
    ("all", [Pool()], "all", 1),
    ("GPU-a", [Pool(("GPU-a",))], "GPU-a", 1),
    ("GPU-b, GPU-a,GPU-b", [Pool(("GPU-b", "GPU-a"))], "GPU-b,GPU-a", 1),
    ("0=GPU-a,GPU-b;1=GPU-c", [Pool(("GPU-a", "GPU-b"), rank=0), Pool(("GPU-c",), rank=1)], "GPU-a,GPU-b,GPU-c", 2),
    (" 4 = GPU-a ; 5 = GPU-c ", [Pool(("GPU-a",), rank=4), Pool(("GPU-c",), rank=5)], "GPU-a,GPU-c", 2),
    ("decode=GPU-b,GPU-c;prefill=GPU-a", [Pool(("GPU-a",), stage=Stage.PREFILL), Pool(("GPU-b", "GPU-c"), stage=Stage.DECODE)],
     "GPU-a,GPU-b,GPU-c", 1),
])
def test_what_it_says(text, pools, boards, ranks):
    """Boards in the order given, decode after prefill, and what a source is to read."""
    found = read_pools(text)
    assert (list(found.pools), found.boards, found.ranks) == (pools, boards, ranks)


@pytest.mark.parametrize("text", [
    "", ",", "GPU-a,", "all,GPU-a", "0=GPU-a;1=", "0=GPU-a;", "0=GPU-a;GPU-b", "0=GPU-a;1=GPU-a", "0=GPU-a;0=GPU-b", "0=GPU-a;00=GPU-b",
    "-1=GPU-a", "one=GPU-a", "prefill=GPU-a", "prefill=GPU-a;decode=all", "prefill=GPU-a;0=GPU-b",
    "prefill=GPU-a;decode=GPU-b;encode=GPU-c", "=GPU-a"])
def test_what_cannot_be_meant_is_refused(text):
    """With what was got and every form there is."""
    with pytest.raises(ValueError, match="expected all, UUID,UUID or 0=UUID") as refused:
        read_pools(text)
    assert repr(text) in str(refused.value)


def test_places_are_found_by_name():
    """One pool takes whatever the source reads; several need each of their boards."""
    devices = [Device(uuid, "a board") for uuid in ("GPU-a", "GPU-b", "GPU-c")]
    assert Pools().places(devices) == read_pools("GPU-x").places(devices) == [[0, 1, 2]]
    assert read_pools("0=GPU-c,GPU-a;1=GPU-b").places(devices) == [[2, 0], [1]]
    with pytest.raises(ValueError, match="--gpus: got GPU-d, expected boards that the energy source reads: GPU-a, GPU-b, GPU-c"):
        read_pools("0=GPU-a;1=GPU-d").places(devices)


@pytest.mark.parametrize(("text", "rank"), [("0", 0), ("12", 12), ("", None), ("-1", None), ("1.0", None), ("²", None), ("9" * 40, None)])
def test_a_rank_is_a_whole_number(text, rank):
    """Whatever else a client sends is none."""
    assert as_rank(text) == rank
