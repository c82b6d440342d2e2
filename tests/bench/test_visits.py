"""The demo's clients, against the embedded engine without a sidecar between."""

from collections import Counter

import openai
import pytest

from perjoule.bench.dialect import MODEL
from perjoule.bench.engine import running_engine
from perjoule.bench.visits import LEAVES_AFTER, Kind, Visit, make, plan


def test_a_plan_is_a_mix_in_order_of_time():
    """36 visits hold every kind, one client who leaves, and never go back in time; the seed decides them all."""
    visits = plan(36, seed=5)
    kinds = Counter(visit.kind for visit in visits)
    assert set(kinds) == set(Kind)
    assert kinds[Kind.LEAVER] == 1
    assert sorted(visits, key=lambda visit: visit.at_s) == visits
    assert len({visit.request_id for visit in visits}) == 36
    assert plan(36, seed=5) == visits != plan(36, seed=6)


@pytest.mark.parametrize("kind", list(Kind))
async def test_a_visit_counts_its_tokens(kind):
    """Each kind of client gets the tokens it asked for, and the one who leaves has left the engine."""
    async with running_engine(speed=20) as engine:
        visit = Visit("v", kind, 0.0, prompt_tokens=100, max_tokens=40)
        async with openai.AsyncOpenAI(base_url=engine.url + "/v1", api_key="none", max_retries=0) as client:
            await make(visit, client, MODEL)
            (sequence,) = engine.simulator.running or [None]
            assert sequence is None or kind is Kind.LEAVER
        assert (visit.failure, visit.ended) == (None, True)
        assert visit.tokens == (LEAVES_AFTER if kind is Kind.LEAVER else 40)
        assert visit.record_path is None  # nobody in front of the engine who could name one


async def test_a_failure_is_told():
    """A server that refuses is the visit's failure, not an exception."""
    async with running_engine(speed=20) as engine:
        visit = Visit("v", Kind.CHAT, 0.0, prompt_tokens=10, max_tokens=5)
        async with openai.AsyncOpenAI(base_url=engine.url + "/v1", api_key="none", max_retries=0) as client:
            await make(visit, client, "another-model")
    assert visit.ended
    assert "NotFoundError" in visit.failure
    assert "does not exist" in visit.failure
