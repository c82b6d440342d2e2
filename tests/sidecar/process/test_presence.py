"""The engine's presence: news once, gone after two misses, back at the first answer."""

import asyncio

from perjoule.sidecar.ports import Engine
from perjoule.sidecar.process import presence
from perjoule.sidecar.process.presence import Presence

VLLM, OTHER = Engine("vllm", "1.0", "m"), Engine("vllm", "1.0", "another")


async def watched(told, answers, monkeypatch):
    """What became news, what it was called and whether it was there after each of these answers."""
    news, seen, it = [], [], None
    for name in ("UNTIL_IT_ANSWERS_S", "AGAIN_S"):
        monkeypatch.setattr(presence, name, 0.0)

    async def recognise(url):
        seen.append(it.answers.is_set())
        if len(seen) > len(answers):
            raise asyncio.CancelledError
        return answers[len(seen) - 1]

    async def told_of(engine):
        news.append(engine)

    it = Presence("http://a", told, recognise)
    try:
        await it.watch(told_of)
    except asyncio.CancelledError:
        return news, it.name, seen[1:]


async def test_news_is_told_once(monkeypatch):
    """The same engine is no news; another model behind the same port is."""
    news, name, seen = await watched("auto", [None, VLLM, VLLM, OTHER], monkeypatch)
    assert (news, name, seen) == ([VLLM, OTHER], "vllm", [False, True, True, True])


async def test_one_miss_is_none(monkeypatch):
    """An engine that is busy may miss a question; two in a row, and it is gone until it answers again, which is no news."""
    news, _, seen = await watched("auto", [VLLM, None, VLLM, None, None, None, VLLM], monkeypatch)
    assert (news, seen) == ([VLLM], [True, True, True, True, False, False, True])


async def test_an_engine_goes_by_the_name_that_the_operator_gave_it(monkeypatch):
    """Who says `--engine sglang` has one, whatever it looks like."""
    news, name, _ = await watched("sglang", [VLLM], monkeypatch)
    assert ([engine.name for engine in news], name) == (["sglang"], "sglang")
