"""The embedded engine over real sockets: it looks like the vLLM recorded in tests/streams, and knows its joules."""

import asyncio
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import anthropic
import openai
import pytest

from perjoule.bench.dialect import MODEL
from perjoule.bench.engine import running_engine

STREAMS = Path(__file__).parents[1] / "streams"
HELLO = {"messages": [{"role": "user", "content": "how many joules is this?"}], "max_tokens": 6, "ignore_eos": True}
STREAM_USAGE = {"stream": True, "stream_options": {"include_usage": True}}


@pytest.fixture
async def engine():
    """An engine at twenty times the speed, with vLLM's per-request timings."""
    async with running_engine(speed=20, per_request_metrics=True) as engine:
        yield engine


@pytest.fixture
async def http():
    async with aiohttp.ClientSession() as session:
        yield session


async def post(http, url, body, request_id="r"):
    """(status, body) of a POST."""
    async with http.post(url, json=body, headers={"X-Request-Id": request_id}) as response:
        return response.status, await response.read()


def shape(value):
    """The keys in their order and the kinds of the values, without what depends on the text or on server flags."""
    if isinstance(value, dict):
        flags = ("prompt_tokens_details", "cache_creation_input_tokens", "cache_read_input_tokens")
        return [(key, shape(item)) for key, item in value.items() if key not in flags]
    if isinstance(value, list):
        return [shape(item) for item in value]
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def events(stream):
    """The shapes of a stream's events, one for each run of the same shape."""
    shapes = []
    for event in filter(None, stream.split(b"\n\n")):
        name, _, data = event.rpartition(b"data: ")
        one = (name, data if data == b"[DONE]" else shape(json.loads(data)))
        if one not in shapes[-1:]:
            shapes.append(one)
    return shapes


@pytest.mark.parametrize(("recording", "path", "body"), [
    ("chat-plain", "/v1/chat/completions", HELLO | {"stream": True}),
    ("chat-usage", "/v1/chat/completions", HELLO | STREAM_USAGE),
    ("chat-continuous", "/v1/chat/completions",
     HELLO | {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}),
    ("completions-plain", "/v1/completions", {"prompt": "hello", "max_tokens": 6, "stream": True, "ignore_eos": True}),
    ("completions-usage", "/v1/completions", {"prompt": [1, 2], "max_tokens": 6, "ignore_eos": True, **STREAM_USAGE}),
    ("responses-plain", "/v1/responses",
     {"input": "hello", "max_output_tokens": 5, "stream": True, "ignore_eos": True}),
    ("messages-plain", "/v1/messages", HELLO | {"stream": True}),
])
async def test_streams_have_the_shape_of_a_real_vllm(engine, http, recording, path, body):
    """Every event has the name, keys, order of keys and kinds of values that vLLM 0.32 sent."""
    status, stream = await post(http, engine.url + path, body)
    assert status == 200
    assert events(stream) == events((STREAMS / f"{recording}.sse").read_bytes())


@pytest.mark.parametrize(("recording", "path", "body"), [
    ("chat-body", "/v1/chat/completions", HELLO),
    ("completions-body", "/v1/completions", {"prompt": ["one", "two"], "max_tokens": 6, "ignore_eos": True}),
    ("responses-body", "/v1/responses", {"input": "hello", "max_output_tokens": 5, "ignore_eos": True}),
    ("messages-body", "/v1/messages", HELLO),
    ("error-body", "/v1/chat/completions", HELLO | {"model": "x"}),
])
async def test_bodies_have_the_shape_of_a_real_vllm(engine, http, recording, path, body):
    """Every whole body has the keys, order of keys and kinds of values that vLLM 0.32 sent, without spaces."""
    _, got = await post(http, engine.url + path, body)
    assert shape(json.loads(got)) == shape(json.loads((STREAMS / f"{recording}.json").read_bytes()))
    assert got == json.dumps(json.loads(got), separators=(",", ":")).encode()


async def test_the_fingerprint_is_on_the_last_event_that_can_have_it(engine, http):
    """On each finish event if usage is not asked for, else on the usage event alone, as vLLM stamps it."""
    chat = engine.url + "/v1/chat/completions"
    _, plain = await post(http, chat, HELLO | {"stream": True, "n": 2})
    _, asked = await post(http, chat, HELLO | {"n": 2} | STREAM_USAGE)
    finishing = [event for event in plain.split(b"\n\n") if b'"finish_reason":"length"' in event]
    stamped = [[event for event in stream.split(b"\n\n") if b"system_fingerprint" in event]
               for stream in (plain, asked)]
    assert stamped[0] == finishing
    assert len(finishing) == 2
    assert [b'"choices":[]' in event for event in stamped[1]] == [True]
    assert b'"usage":' not in plain


async def test_the_openai_client_understands_it(engine):
    """Chat, completions, responses and embeddings through the official client, streamed and whole."""
    async with openai.AsyncOpenAI(base_url=engine.url + "/v1", api_key="none", max_retries=0) as client:
        assert [model.owned_by async for model in client.models.list()] == ["vllm"]
        whole = await client.chat.completions.create(model=MODEL, messages=HELLO["messages"], n=3,
                                                     max_completion_tokens=5, extra_body={"ignore_eos": True})
        assert (len(whole.choices), whole.usage.completion_tokens, whole.choices[2].finish_reason) == (3, 15, "length")
        assert whole.usage.prompt_tokens == whole.usage.total_tokens - 15
        stream = await client.completions.create(model=MODEL, prompt=[[1, 2, 3], [4, 5]], max_tokens=4,
                                                 extra_body={"ignore_eos": True}, **STREAM_USAGE)
        chunks = [chunk async for chunk in stream]
        assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (5, 8)
        assert {choice.index for chunk in chunks for choice in chunk.choices} == {0, 1}
        response = await client.responses.create(model=MODEL, input="hello", max_output_tokens=20)
        assert response.usage.output_tokens == len(response.output_text.split()) + (response.status == "completed")
        vectors = await client.embeddings.create(model=MODEL, input=["one", "two words"])
        assert (len(vectors.data), vectors.usage.prompt_tokens) == (2, 4)


async def test_the_anthropic_client_understands_it(engine):
    """Messages through the official client, streamed and whole."""
    async with anthropic.AsyncAnthropic(base_url=engine.url, api_key="none", max_retries=0) as client:
        ask = {"model": MODEL, "messages": HELLO["messages"], "max_tokens": 7, "extra_body": {"ignore_eos": True}}
        whole = await client.messages.create(**ask)
        assert (whole.usage.output_tokens, whole.stop_reason) == (7, "max_tokens")
        async with client.messages.stream(**ask) as stream:
            final = await stream.get_final_message()
        assert (final.usage.output_tokens, len(final.content[0].text.split())) == (7, 7)


async def test_an_answer_ends_by_itself_if_let(engine, http):
    """Without ignore_eos a model stops when it has said its say: finish_reason stop, and the last token has no text."""
    _, body = await post(http, engine.url + "/v1/chat/completions", {"messages": HELLO["messages"]})
    answer = json.loads(body)
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == len(answer["choices"][0]["message"]["content"].split()) + 1


async def test_the_same_seed_gives_the_same_answer(http):
    """Lengths and words depend on the seed and the request id alone."""
    contents = []
    for seed in (1, 1, 2):
        async with running_engine(speed=50, seed=seed) as engine:
            _, body = await post(http, engine.url + "/v1/completions", {"prompt": "hi", "max_tokens": 500})
            contents.append(json.loads(body)["choices"])
    assert contents[0] == contents[1] != contents[2]


@pytest.mark.parametrize(("path", "body", "status", "said"), [
    ("/v1/chat/completions", b"{", 400, "JSON decode error"),
    ("/v1/chat/completions", b"[]", 400, "got list"),
    ("/v1/chat/completions", b"{}", 400, "messages: got None"),
    ("/v1/chat/completions", b'{"messages":"hi","stream_options":{}}', 400,
     "Stream options can only be defined when `stream=True`."),
    ("/v1/completions", b'{"prompt":"hi","max_tokens":0}', 400, "max_tokens must be at least 1, got 0."),
    ("/v1/completions", b'{"prompt":"hi","max_tokens":200000}', 400, "maximum context length is 131072"),
    ("/v1/embeddings", b'{"input":[]}', 400, "input: got []"),
    ("/v1/nothing", b"{}", 404, "Not Found"),
])
async def test_refusals_are_in_vllms_shape(engine, http, path, body, status, said):
    """A bad request gets vLLM's error object, which says what was wrong, and its status as code."""
    async with http.post(engine.url + path, data=body) as response:
        error = (await response.json())["error"]
        assert (response.status, error["code"]) == (status, status)
        assert said in error["message"]


async def test_messages_are_refused_in_anthropics_shape(engine, http):
    """An unknown model on /v1/messages is a 404 in Anthropic's error object."""
    status, body = await post(http, engine.url + "/v1/messages", HELLO | {"model": "x"})
    assert (status, json.loads(body)["type"], json.loads(body)["error"]["type"]) == (404, "error", "NotFoundError")


async def gauge(http, url, name):
    """One value of the Prometheus page."""
    async with http.get(url + "/metrics") as response:
        return float(re.search(rf"^vllm:{name}{{.*}} (.+)$", await response.text(), re.MULTILINE)[1])


async def truth(http, url):
    async with http.get(url + "/simulated/energy") as response:
        return await response.json()


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_who_leaves_ends_its_request(engine, http, stream):
    """Soon after the connection closes nothing runs any more, and the request has paid for what it got."""
    ask = HELLO | {"max_tokens": 100_000, "stream": stream}
    call = asyncio.create_task(post(http, engine.url + "/v1/chat/completions", ask, "leaver"))
    while not (await truth(http, engine.url))["requests"].get("leaver", {}).get("output_tokens"):
        await asyncio.sleep(0.01)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    while await gauge(http, engine.url, "num_requests_running"):
        await asyncio.sleep(0.01)
    left = await truth(http, engine.url)
    assert left["requests"]["leaver"]["energy_uj"] > 0
    await post(http, engine.url + "/v1/completions", {"prompt": "next", "max_tokens": 2})
    assert (await truth(http, engine.url))["requests"]["leaver"] == left["requests"]["leaver"]


async def test_its_truth_is_whole(engine, http):
    """True costs and idle joules sum to the total, the counter runs up to it, tokens are those of usage."""
    chat = engine.url + "/v1/chat/completions"
    mixed = [HELLO | {"max_tokens": 10 + i, "n": 1 + i % 2} for i in range(12)]
    await asyncio.gather(*(post(http, chat, ask, f"r{i}") for i, ask in enumerate(mixed)))
    _, body = await post(http, chat, HELLO | {"n": 2}, "counted")
    told = await truth(http, engine.url)
    assert len(told["requests"]) == 13
    assert all(one["energy_uj"] == one["prefill_uj"] + one["decode_uj"] for one in told["requests"].values())
    assert told["total_uj"] == told["idle_uj"] + sum(one["energy_uj"] for one in told["requests"].values())
    assert told["requests"]["counted"]["output_tokens"] == json.loads(body)["usage"]["completion_tokens"]
    await asyncio.sleep(0.11)  # the counter shows the last 100 ms tick
    async with http.get(engine.url + "/simulated/counter") as response:
        reading = await response.json()
    assert reading["energy_uj"] >= told["total_uj"]
    assert (reading["name"], reading["uuid"][:4]) == ("simulated H200", "SIM-")


async def test_tokenize_counts_like_usage(engine, http):
    """/tokenize gives as many tokens as usage will count for the same prompt."""
    _, body = await post(http, engine.url + "/v1/chat/completions", HELLO)
    _, tokens = await post(http, engine.url + "/tokenize", {"messages": HELLO["messages"]})
    counted = json.loads(tokens)
    assert counted["count"] == len(counted["tokens"]) == json.loads(body)["usage"]["prompt_tokens"]
    async with http.get(engine.url + "/health") as response:
        assert (response.status, await response.read()) == (200, b"")
    async with http.get(engine.url + "/version") as response:
        assert "version" in await response.json()


async def test_per_request_timings_add_up(engine, http):
    """Queue, time to first token and generation time are there for one sequence, and absent for n > 1."""
    chat = engine.url + "/v1/chat/completions"
    _, one = await post(http, chat, HELLO)
    _, two = await post(http, chat, HELLO | {"n": 2})
    metrics = json.loads(one)["metrics"]
    assert metrics["generation_time_ms"] == pytest.approx(5 * metrics["mean_itl_ms"])
    assert metrics["queue_time_ms"] >= 0
    assert json.loads(two)["metrics"] is None


def test_the_command_prints_its_url_and_ends_on_sigterm():
    """The module says where it listens in one line of JSON, and exits 0 when told to stop."""
    command = [sys.executable, "-m", "perjoule.bench.engine", "--port", "0", "--seed", "3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert json.loads(process.stdout.readline())["url"].startswith("http://127.0.0.1:")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
