"""What the live page is told, in front of a real sidecar whose counter and engine the test knows."""

import asyncio

import orjson
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.process.live import ROWS, summary
from perjoule.sidecar.record import Charge, EnergyRecord, Outcome, RequestFacts, Status, Unit
from tests.fakes import records
from tests.fakes.sidecar import post, sidecar
from tests.fakes.upstream import answer, scripted

MS = 1_000_000
USAGE = b'{"usage":{"prompt_tokens":3,"completion_tokens":5}}'


def record(outcome=Outcome.COMPLETED, end_ms=100, first_ms=None, last_ms=None, tokens=None, uj=None, **more):
    return EnergyRecord(
        RequestFacts("r", "q", 0, end_ms * MS, outcome, "chat.completions", "vllm", True, output_tokens=tokens,
                     first_token_ns=first_ms and first_ms * MS, last_token_ns=last_ms and last_ms * MS, **more),
        Charge(Status.MEASURED, "token-share", "nvml", True, energy_uj=uj))


def test_times_are_of_completed_requests_that_have_them():
    """A cancelled one was not slow, one that was not streamed has no first token, one token has no time between tokens."""
    told = summary([record(first_ms=10, last_ms=50, tokens=5, uj=10_000_000), record(end_ms=300), record(first_ms=20, last_ms=20, tokens=1),
                    record(Outcome.CANCELLED, end_ms=9000, first_ms=8000, last_ms=9000, tokens=15, uj=10_000_000)], 0)
    assert told["ttft"] == [10.0, 20.0, 20.0]
    assert told["tpot"] == [10.0] * 3
    assert told["e2e"] == [100.0, 300.0, 300.0]
    assert (told["outcomes"], told["records"]) == ({"completed": 3, "cancelled": 1}, 4)
    assert told["j_per_token"] == 20 / 20


def test_what_an_image_took_is_told_beside_tokens():
    """Of each unit by itself; who made none, or has no joules, is left out."""
    told = summary([record(uj=30_000_000, unit=Unit.IMAGE, units=2), record(uj=15_000_000, unit=Unit.IMAGE, units=1),
                    record(uj=9_000_000, unit=Unit.VIDEO_SECOND, units=1.5), record(unit=Unit.AUDIO_SECOND, units=3),
                    record(Outcome.CANCELLED, uj=50_000_000, unit=Unit.IMAGE)], 0)
    assert told["j_per_unit"] == {"image": 15.0, "video_second": 6.0}


def test_only_what_ended_since_counts():
    """By when it ended, not when it came."""
    assert summary([record(end_ms=100), record(end_ms=200)], 150 * MS)["e2e"] == [200.0] * 3


def test_of_nothing_nothing_is_known():
    """Null, not 0."""
    assert summary([], 0) == {"outcomes": {}, "records": 0, "ttft": None, "tpot": None, "e2e": None, "j_per_token": None, "j_per_unit": {}}


@given(st.lists(records.records, max_size=5))
def test_any_records_can_be_told(found):
    """Whatever is in them, it becomes JSON."""
    told = orjson.loads(orjson.dumps(summary(found, 0)))
    assert sum(told["outcomes"].values()) == told["records"] == len(found)


async def test_news_go_on_where_the_past_ends():
    """Every slot is told once; the balance is in text that holds every digit; rows are bounded, their number is not."""
    async with scripted([answer(USAGE)]) as engine, sidecar(engine.url) as running:
        live = running.service.live
        numbers = []
        async with asyncio.timeout(20):
            while len(numbers) < 3:
                numbers += [slot[0] for slot in live.news()["slots"]]
                await asyncio.sleep(0.1)
        past = orjson.loads(orjson.dumps(await live.past()))
        assert [slot[0] for slot in past["slots"]] == numbers == list(range(numbers[0], numbers[-1] + 1))
        await running.send(post("/v1/chat/completions", b'{"model":"m"}'))
        await running.records(1)
        for number in range(ROWS + 3):
            running.service.meter.begin(f"r{number}", 1)
        news, state = live.news(), await live.state()
        assert (news["in_flight"], [one["id"] for one in news["requests"]]) == (ROWS + 3, [f"r{number}" for number in range(ROWS)])
        assert {one["j"] for one in news["requests"]} == {None}  # no window has been divided for them: that is not 0 J
        parts = [int(news["balance"][f"{name}_uj"]) for name in ("requests", "idle", "unattributed")]
        assert int(news["balance"]["measured_uj"]) == sum(parts) > 0
        assert (state["outcomes"], state["sinks"][0]["name"], state["ready"]) == ({"completed": 1}, "kept", True)
        assert state["j_per_token"] == running.sink.records[0].as_json()["energy_per_output_token_joules"]


async def test_without_a_source_there_is_still_something_to_tell():
    """No boards, no balance, no joules of a running request; the rest as always."""
    async with scripted([answer(USAGE)]) as engine, sidecar(engine.url, energy=False) as running:
        running.service.meter.begin("r", 1, model="m", tenant="t")
        news, state = running.service.live.news(), await running.service.live.state()
        assert (news["balance"], news["power_w"], news["slots"]) == (None, None, [])
        assert [(one["model"], one["tenant"], one["j"]) for one in news["requests"]] == [("m", "t", None)]
        assert (state["boards"], state["setting"]["energy_source"], state["steady_j_per_token"]) == ([], None, None)
