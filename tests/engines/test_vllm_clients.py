"""The official clients, through the sidecar to a real vLLM: they notice nothing, and records agree with their usage."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import anthropic
import openai
import pytest

from tests.engines.serving import Sidecar
from tests.engines.vllm_cpu import API_KEY, MODEL

pytestmark = pytest.mark.vllm

ASK: dict[str, Any] = {"model": MODEL, "temperature": 0, "seed": 7, "max_tokens": 20}
CHAT: dict[str, Any] = {**ASK, "messages": [{"role": "user", "content": "def main():"}]}
WHOLE = {"ignore_eos": True}
TOOLS: list[Any] = [{"type": "function", "function": {"name": "look_up", "parameters": {
    "type": "object", "properties": {"n": {"type": "integer", "maximum": 9}}, "required": ["n"]}}}]


@pytest.fixture
def request_id() -> str:
    """A name of its own for each request, by which its record is found."""
    return f"test-{uuid4().hex}"


@pytest.fixture
def client(sidecar: Sidecar, request_id: str) -> Iterator[openai.OpenAI]:
    """The official OpenAI client, pointed at the sidecar."""
    with openai.OpenAI(base_url=f"{sidecar.listen}/v1", api_key=API_KEY, max_retries=0, timeout=60,
                       default_headers={"X-Request-Id": request_id}) as client:
        yield client


@pytest.fixture
def claude(sidecar: Sidecar, request_id: str) -> Iterator[anthropic.Anthropic]:
    """The official Anthropic client, pointed at the sidecar; `auth_token` is what vLLM reads as a key."""
    with anthropic.Anthropic(base_url=sidecar.listen, auth_token=API_KEY, api_key=None, max_retries=0, timeout=60,
                             default_headers={"X-Request-Id": request_id}) as client:
        yield client


def agrees(record: dict[str, Any], endpoint: str, input_tokens: int, output_tokens: int) -> bool:
    """Whether the record says what the client's own usage says, and has joules for it."""
    assert (record["endpoint"], record["outcome"], record["http_status"]) == (endpoint, "completed", 200)
    assert (record["input_tokens"], record["output_tokens"]) == (input_tokens, output_tokens)
    assert (record["input_source"], record["output_source"]) == ("usage", "usage")
    assert record["status"] == "simulated"
    return bool(record["energy_uj"] > 0)


@pytest.mark.feature("vllm", "joules-per-unit", "real")
def test_chat(client: openai.OpenAI, sidecar: Sidecar, request_id: str) -> None:
    """A whole chat answer: the record counts what usage counts, and knows model and response."""
    answer = client.chat.completions.create(**CHAT, extra_body=WHOLE)
    assert answer.usage
    record = sidecar.record(request_id)
    assert agrees(record, "chat.completions", answer.usage.prompt_tokens, answer.usage.completion_tokens)
    assert (record["model"], record["response_model"], record["response_id"]) == (MODEL, MODEL, answer.id)
    assert (record["streamed"], record["finish_reason"]) == (False, "length")
    assert record["engine"] == "vllm"
    assert record["energy_per_output_token_joules"] == pytest.approx(record["energy_joules"] / record["output_tokens"])


def test_chat_streamed_with_usage(client: openai.OpenAI, sidecar: Sidecar, request_id: str) -> None:
    """A client who asked for usage gets it, once, and the record agrees."""
    chunks = list(client.chat.completions.create(
        **CHAT, stream=True, stream_options={"include_usage": True}, extra_body=WHOLE))
    usages = [chunk.usage for chunk in chunks if chunk.usage]
    assert len(usages) == 1
    assert agrees(sidecar.record(request_id), "chat.completions", usages[0].prompt_tokens, usages[0].completion_tokens)


@pytest.mark.feature("vllm", "tokens-exact", "real")
def test_chat_streamed_without_usage(client: openai.OpenAI, sidecar: Sidecar, request_id: str) -> None:
    """A client who did not ask sees no usage and no empty chunk; the record has the engine's count all the same."""
    chunks = list(client.chat.completions.create(**CHAT, stream=True, extra_body=WHOLE))
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)
    record = sidecar.record(request_id)
    assert (record["output_tokens"], record["output_source"], record["streamed"]) == (20, "usage", True)
    assert 0 < record["first_byte_ns"] <= record["first_token_ns"] < record["last_token_ns"] <= record["end_ns"]


@pytest.mark.feature("vllm", "cached-known", "real")
@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_is_known_is_told_as_cached(client: openai.OpenAI, sidecar: Sidecar, request_id: str, stream: bool) -> None:
    """With --enable-prompt-tokens-details: of a prompt sent again, the record has the tokens that needed no computing."""
    prompt = [17 + stream] * 600
    for turn in ("first", "again"):
        answer: Any = client.completions.create(**ASK, prompt=prompt, stream=stream, extra_headers={"X-Request-Id": f"{request_id}-{turn}"})
        if stream:
            list(answer)
    records = [sidecar.record(f"{request_id}-{turn}") for turn in ("first", "again")]
    assert [record["input_tokens"] for record in records] == [600, 600]
    assert not records[0]["cached_tokens"]
    assert 0 < records[1]["cached_tokens"] < 600


@pytest.mark.feature("vllm", "queue-known", "real")
def test_the_time_in_the_queue_is_the_engines_own(client: openai.OpenAI, sidecar: Sidecar, request_id: str) -> None:
    """With --enable-per-request-metrics: the record has the wait that the engine tells in its answer, to the nanosecond."""
    answer = client.chat.completions.create(**CHAT, extra_body=WHOLE)
    told_ms = (answer.model_extra or {})["metrics"]["queue_time_ms"]
    assert sidecar.record(request_id)["queue_ns"] == round(told_ms * 1e6) > 0


def test_two_choices_streamed(client: openai.OpenAI, sidecar: Sidecar, request_id: str) -> None:
    """Two choices in one stream: both arrive, and the record holds the tokens of both."""
    chunks = list(client.chat.completions.create(
        **CHAT | {"temperature": 1, "n": 2}, stream=True, stream_options={"include_usage": True}, extra_body=WHOLE))
    assert {choice.index for chunk in chunks for choice in chunk.choices} == {0, 1}
    assert sidecar.record(request_id)["output_tokens"] == 40


def test_tools_streamed(client: openai.OpenAI, sidecar: Sidecar, request_id: str) -> None:
    """A forced tool call arrives as pieces of a call; its tokens are counted though no content is among them."""
    chunks = list(client.chat.completions.create(
        **CHAT | {"max_tokens": 60}, tools=TOOLS, tool_choice="required", stream=True))
    calls = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or ()]
    assert calls[0].function
    assert calls[0].function.name == "look_up"
    record = sidecar.record(request_id)
    assert record["output_tokens"] > 1
    assert record["first_token_ns"] is not None


def test_logprobs_and_stop_string(client: openai.OpenAI, sidecar: Sidecar, request_id: str) -> None:
    """Logprobs arrive for each token; a stop string ends the answer early and the record counts what was generated."""
    answer = client.chat.completions.create(
        **CHAT | {"temperature": 1}, logprobs=True, top_logprobs=2, stop=["e"], extra_body=WHOLE)
    assert answer.usage
    choice = answer.choices[0]
    assert choice.logprobs
    assert choice.logprobs.content
    assert len(choice.logprobs.content) == answer.usage.completion_tokens
    record = sidecar.record(request_id)
    assert (record["finish_reason"], record["output_tokens"]) == (choice.finish_reason, answer.usage.completion_tokens)


@pytest.mark.parametrize("stream", [False, True])
def test_completions(client: openai.OpenAI, sidecar: Sidecar, request_id: str, stream: bool) -> None:
    """Text completions, whole and streamed, are metered alike."""
    answer: Any = client.completions.create(**ASK, prompt=[5, 6, 7, 8, 9], stream=stream, extra_body=WHOLE)
    if stream:
        assert all(chunk.usage is None for chunk in answer)
    assert agrees(sidecar.record(request_id), "completions", 5, 20)


@pytest.mark.parametrize("stream", [False, True])
def test_responses(client: openai.OpenAI, sidecar: Sidecar, request_id: str, stream: bool) -> None:
    """The Responses API, whole and streamed: usage comes inside the response object."""
    answer: Any = client.responses.create(
        model=MODEL, input="import os", max_output_tokens=20, temperature=0, stream=stream)
    if stream:
        answer = [event for event in answer if event.type == "response.completed"][-1].response
    assert agrees(sidecar.record(request_id), "responses", answer.usage.input_tokens, answer.usage.output_tokens)


def test_messages(claude: anthropic.Anthropic, sidecar: Sidecar, request_id: str) -> None:
    """The Messages API through Anthropic's own client."""
    answer = claude.messages.create(model=MODEL, max_tokens=20, messages=[{"role": "user", "content": "hi"}])
    assert agrees(sidecar.record(request_id), "messages", answer.usage.input_tokens, answer.usage.output_tokens)


def test_messages_streamed(claude: anthropic.Anthropic, sidecar: Sidecar, request_id: str) -> None:
    """The Messages API streamed: the client puts the message together, the record has its last usage."""
    hello: Any = [{"role": "user", "content": "hi"}]
    with claude.messages.stream(model=MODEL, max_tokens=20, messages=hello) as stream:
        message = stream.get_final_message()
    assert agrees(sidecar.record(request_id), "messages", message.usage.input_tokens, message.usage.output_tokens)


def test_errors_are_the_clients_own_exceptions(client: openai.OpenAI, sidecar: Sidecar, request_id: str) -> None:
    """400, 401 and 404 become the exceptions that the client raises without a sidecar; each refusal is one record."""
    headers = {status: {"X-Request-Id": f"{request_id}-{status}"} for status in (400, 401, 404)}
    with pytest.raises(openai.BadRequestError, match="max_tokens"):
        client.chat.completions.create(**CHAT | {"max_tokens": -1}, extra_headers=headers[400])
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").chat.completions.create(**CHAT, extra_headers=headers[401])
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.chat.completions.create(**CHAT | {"model": "nobody"}, extra_headers=headers[404])
    for status in (400, 401, 404):
        record = sidecar.record(f"{request_id}-{status}")
        assert (record["outcome"], record["http_status"]) == ("errored", status)
        assert not record["output_tokens"]


def test_the_energy_comment_does_not_disturb_a_parser(client: openai.OpenAI, sidecar: Sidecar) -> None:
    """The client that people use reads a stream with our comment in it to its end; who looks at the lines finds it."""
    with client.chat.completions.with_streaming_response.create(**CHAT, stream=True, extra_body=WHOLE) as raw:
        lines = list(raw.iter_lines())
    energy = [json.loads(line.removeprefix(": energy ")) for line in lines if line.startswith(": energy ")]
    assert len(energy) == 1
    assert energy[0]["status"] == "simulated"
    assert energy[0]["energy_joules"] > 0
