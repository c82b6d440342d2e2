"""`perjoule.client` in front of a real sidecar, of a server that is none, and of one that lies."""

import asyncio
import contextlib
import copy
import json
import pickle
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import openai
import pytest

from perjoule.bench.child import child
from perjoule.bench.dialect import MODEL
from perjoule.client import _Watch, energy_of, metered
from tests.fakes.upstream import CUT, PAUSE, answer, scripted, sse, stream_head
from tests.test_serve import ask, served

DOCS = Path(__file__).parents[2] / "docs"
CHAT = {"model": MODEL, "max_tokens": 12, "messages": [{"role": "user", "content": "What does this cost?"}]}
TOLD = {"energy_joules": 12.5, "active_joules": 7.0, "prefill_joules": None, "decode_joules": None, "uncertainty_joules": 0.5,
        "status": "measured", "settled": True, "attribution_method": "step-model", "source": "nvml", "record": "/energy/5f"}
BODY = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [], "energy": "the server's own"}


def client(url, **options):
    """The official client, metered."""
    return metered(openai.OpenAI(base_url=url + "/v1", api_key="secret", max_retries=0, timeout=20, **options))


def aclient(url):
    """The same, async."""
    return metered(openai.AsyncOpenAI(base_url=url + "/v1", api_key="secret", max_retries=0, timeout=20))


CALLS = {
    "chat": lambda c, **more: c.chat.completions.create(**CHAT, **more),
    "completions": lambda c, **more: c.completions.create(model=MODEL, prompt="hi", max_tokens=12, **more),
    "responses": lambda c, **more: c.responses.create(model=MODEL, input="hi", max_output_tokens=12, **more),
    "embeddings": lambda c, **more: c.embeddings.create(model=MODEL, input="hi", **more),
}
WAYS = [(name, call, more) for name, call in CALLS.items() for more in ({}, {"stream": True})][:-1]  # embeddings do not stream


@contextlib.asynccontextmanager
async def warm():
    """A sidecar whose simulated counter has moved: what ends before that has no joules."""
    async with served("--energy", "simulated") as serving:
        while not json.loads((await ask(serving["admin"] + "/energy/balance"))[1])["measured_uj"]:
            await asyncio.sleep(0.02)
        yield serving


async def test_what_a_client_is_told_is_what_the_record_says():
    """Each endpoint, whole and streamed, sync and async: `.energy` says simulated, and once settled it is the record's."""
    async with warm() as serving, aclient(serving["listen"]) as async_client:
        with client(serving["listen"]) as sync_client:
            for name, call, more in WAYS:
                answered = await asyncio.to_thread(call, sync_client, **more)
                if more:
                    assert answered.energy.joules is None
                    await asyncio.to_thread(list, answered)
                await agrees(serving, answered, await asyncio.to_thread(answered.energy.settled), 0 if name == "embeddings" else 12)
                answered = await call(async_client, **more)
                if more:
                    [event async for event in answered]
                await agrees(serving, answered, await answered.energy.asettled(), 0 if name == "embeddings" else 12)


async def agrees(serving, answered, final, output_tokens):
    """What was told at once has joules, what was asked for later is the record."""
    told = answered.energy
    record = json.loads((await ask(f"{serving['listen']}/energy/{told.record_id}"))[1])
    assert told.joules > 0
    assert told.status == final.status == record["status"] == "simulated"
    assert "(simulated)" in str(told)
    assert final.is_settled
    assert (final.joules, final.output_tokens) == (record["energy_joules"], record["output_tokens"])
    assert (final.output_tokens or 0) == output_tokens
    if told.output_tokens:
        assert told.tokens_per_joule == output_tokens / told.joules
    if output_tokens:
        assert final.prefill_joules + final.decode_joules == pytest.approx(final.joules, abs=1e-9)


async def test_a_stream_that_was_left_and_the_streams_of_helpers_have_energy_too():
    """Left after one token, a stream costs what had been computed; `.stream(…)` and `with_options` are metered as all else."""
    async with warm() as serving, aclient(serving["listen"]) as metering:
        stream = await metering.chat.completions.create(**CHAT | {"max_tokens": 2000}, stream=True)
        while not (await anext(stream)).choices[0].delta.content:
            pass  # a role comes first, which is no token
        await stream.close()
        final = await stream.energy.asettled()
        assert 0 < final.output_tokens < 2000
        assert final.joules > 0
        async with metering.with_options(timeout=10).chat.completions.stream(**CHAT) as events:
            [event async for event in events]
        assert energy_of(events).joules > 0
        async with metering.chat.completions.with_streaming_response.create(**CHAT, stream=True) as raw:
            async for _ in raw.iter_lines():
                pass
        assert raw.energy.joules > 0
        with pytest.raises(TypeError, match="asettled"):
            final.settled()


async def test_without_a_sensor_and_without_a_perjoule_there_is_no_number():
    """An unavailable joule is None and says why; in front of the bare engine there is no energy at all."""
    async with child("perjoule.bench.engine", "--port", "0") as engine:
        async with served("--energy", "auto", engine=engine["url"]) as serving:
            if serving["energy"] != "unavailable":
                pytest.skip("this machine has a sensor")
            response = await asyncio.to_thread(CALLS["chat"], client(serving["listen"]))
            assert (response.energy.joules, response.energy.tokens_per_joule) == (None, None)
            assert str(response.energy) == "not known (unavailable)"
        bare = client(engine["url"])
        response = await asyncio.to_thread(CALLS["chat"], bare)
        assert response.energy is energy_of(response) is None
        stream = await asyncio.to_thread(CALLS["chat"], bare, stream=True)
        await asyncio.to_thread(list, stream)
        assert stream.energy is energy_of(stream) is None


async def test_an_answer_stays_what_the_server_said():
    """Energy is no field of it: not in its JSON, not in its repr; copies and pickles have it, and a field of that name is left alone."""
    fields = ("X-Energy-Joules: 12.500000", "X-Energy-Status: measured", "X-Energy-Record: /energy/5f")
    async with scripted([answer(json.dumps(BODY).encode(), *fields)]) as engine:
        response = await asyncio.to_thread(CALLS["chat"], client(engine.url))
    assert response.energy.joules == 12.5
    assert response.model_extra == {"energy": "the server's own"}
    assert json.loads(response.to_json()) == BODY
    assert copy.deepcopy(response).energy == response.model_copy().energy == response.energy
    assert pickle.loads(pickle.dumps(response.energy)) == response.energy


@pytest.mark.parametrize("record", ["http://elsewhere.example/energy/5f", "//elsewhere.example/energy/5f", "/energy/../v1/x", "/energy/a?b",
                                    "/energy/", "energy/5f"])
async def test_a_record_is_asked_for_where_the_client_is_at_home(record):
    """A server cannot send the client's key elsewhere: a record's path that is none is not followed."""
    async with scripted([answer(json.dumps(BODY).encode(), "X-Energy-Status: measured", f"X-Energy-Record: {record}")]) as engine:
        response = await asyncio.to_thread(CALLS["chat"], client(engine.url))
        assert response.energy.record_id is None
        with pytest.raises(LookupError):
            response.energy.settled()
        assert len(engine.requests) == 1


async def test_a_stream_that_breaks_breaks_as_without_us():
    """The engine dies in the middle: the client raises what it always raises, and no energy is made up."""
    event = json.dumps({"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": []})
    body = sse(event)
    piece = b"%x\r\n%b\r\n" % (len(body), body)
    async with scripted([stream_head("X-Energy-Record: /energy/5f"), piece, PAUSE, CUT]) as engine:
        stream = await asyncio.to_thread(CALLS["chat"], client(engine.url), stream=True)
        with pytest.raises(Exception, match=r"(?i)peer closed|incomplete|connection"):
            await asyncio.to_thread(list, stream)
        assert (stream.energy.joules, stream.energy.status, stream.energy.record_id) == (None, None, "5f")


async def test_a_record_that_is_not_there_yet_is_waited_for():
    """A sidecar that learns a moment later that a stream was left is asked again; one that never does, until the time is over."""
    record = {"energy_joules": 2.0, "active_uj": None, "prefill_uj": 1_500_000, "decode_uj": 500_000, "uncertainty_uj": 1,
              "status": "mixed", "method": "step-model", "source": "nvml", "settled": True, "output_tokens": 3}
    first, missing = answer(json.dumps(BODY).encode(), "X-Energy-Record: /energy/5f"), answer(b"{}", status="404 Not Found")
    async with scripted([first], [missing], [missing], [answer(json.dumps(record).encode())], [missing]) as engine:
        energy = (await asyncio.to_thread(CALLS["chat"], client(engine.url))).energy
        final = await asyncio.to_thread(energy.settled)
        assert (final.joules, final.active_joules, final.prefill_joules, final.tokens_per_joule) == (2.0, None, 1.5, 1.5)
        assert engine.requests[-1].startswith(b"GET /energy/5f HTTP/1.1\r\n")
        with pytest.raises(openai.NotFoundError):
            await asyncio.to_thread(energy.settled, 0.2)


class Streamed:
    """A response of which the pieces are known."""

    def __init__(self, pieces):
        self.headers, self.pieces = {"content-type": "text/event-stream"}, pieces
        self.aiter_bytes = None

    def iter_bytes(self):
        yield from self.pieces


@pytest.mark.parametrize("before", ['data: ": energy {}"', ": energy [1]", ": e", ""])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=repr)
def test_the_comment_is_found_wherever_the_bytes_are_cut(end, before):
    """At any one place, or everywhere: the bytes pass unchanged, the comment is found, and what only looks like one is not."""
    text = end.join([before, "", f": energy {json.dumps(TOLD)}", "", f"data: : energy {json.dumps(TOLD | {'energy_joules': 99})}", "",
                     "data: [DONE]", "", ""]).encode()
    for places in ([0, len(text)], range(len(text) + 1), *([0, cut, len(text)] for cut in range(len(text)))):
        response = Streamed([text[a:b] for a, b in pairwise(places)])
        answered = type("Stream", (), {})()
        _Watch(response, None).seen_on(answered)
        assert answered.energy is None
        assert b"".join(response.iter_bytes()) == text
        assert (answered.energy.joules, answered.energy.is_settled, answered.energy.record_id) == (12.5, True, "5f")


def test_what_is_no_client_is_refused():
    """The text names what was got and what was expected; a metered client is metered once."""
    with pytest.raises(TypeError, match=r"got builtins\.str, expected openai\.OpenAI"):
        metered("http://127.0.0.1:9000")
    once = client("http://127.0.0.1:9")
    assert type(metered(once)) is type(once)


@pytest.mark.slow
async def test_the_examples_of_the_page_run(tmp_path):
    """All of docs/clients.md's Python as one program, warnings as errors."""
    code = "\n".join(re.findall(r"```python\n(.*?)```", (DOCS / "clients.md").read_text(), re.DOTALL))
    async with warm() as serving:
        assert code.count("http://127.0.0.1:9000") == 2
        script = tmp_path / "examples.py"
        script.write_text(code.replace("http://127.0.0.1:9000", serving["listen"]))
        ran = await asyncio.to_thread(subprocess.run, [sys.executable, "-W", "error", script], capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.count("(simulated)") == 2
