"""Laws 1, 3 and 4 on a real vLLM: joules are conserved to the microjoule, and every request has exactly one record."""

import asyncio
import gzip
import json
import random
import re
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import openai
import pytest

from tests.engines.serving import Sidecar, eventually
from tests.engines.vllm_cpu import API_KEY, MAX_NUM_SEQS, MODEL, Vllm
from tests.engines.wire import exchange, leave

pytestmark = pytest.mark.vllm

CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "def main():"}]}
WHOLE = {"ignore_eos": True}


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute of a board that draws 120 to 700 W, its counter renewed every 100 ms, written as recordings are."""
    path, rng = tmp_path_factory.mktemp("recording") / "board.json.gz", random.Random(7)
    counter, millijoules = [], 10_000_000
    for t_ns in range(0, 60_000_000_000, 100_000_000):
        millijoules += rng.randrange(12_000, 70_000)
        counter.append([t_ns, t_ns + 3_300_000, millijoules])
    path.write_bytes(gzip.compress(json.dumps({"counter": counter, "power": []}).encode()))
    return path


@pytest.fixture(scope="session")
def replaying(start_sidecar: Callable[..., Sidecar], vllm: Vllm, recording: Path) -> Sidecar:
    """A sidecar whose joules are a recorded board's."""
    return start_sidecar(vllm.url, f"--energy=replay:{recording}")


def running(vllm: Vllm) -> float:
    """How many requests vLLM says it is running."""
    found = re.search(rb"^vllm:num_requests_running\{.*\} (\S+)$", exchange(vllm.url, "/metrics").body, re.MULTILINE)
    assert found
    return float(found[1])


async def ask(client: openai.AsyncOpenAI, number: int) -> tuple[str, int, int]:
    """One of many different requests: its id, and the tokens in and out that its usage tells."""
    name = f"many-{uuid4().hex}"
    common: Any = {"max_tokens": 4 + number % 7 * 5, "extra_headers": {"X-Request-Id": name}, "extra_body": WHOLE}
    if number % 3 == 0:
        answer: Any = await client.chat.completions.create(**CHAT, **common)
    elif number % 3 == 1:
        stream = await client.chat.completions.create(
            **CHAT, **common, stream=True, stream_options={"include_usage": True})
        answer = [chunk async for chunk in stream][-1]
    else:
        answer = await client.completions.create(model=MODEL, prompt=[7] * (10 * number + 1), **common)
    return name, answer.usage.prompt_tokens, answer.usage.completion_tokens


@pytest.mark.feature("vllm", "tokens-exact", "real")
async def test_many_at_once_are_conserved_and_counted_once(replaying: Sidecar) -> None:
    """As many requests as the engine's batch holds, at once: one record each, tokens as in usage, the sum exact."""
    url = f"{replaying.listen}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key=API_KEY, max_retries=0, timeout=120) as client:
        asked = await asyncio.gather(*(ask(client, number) for number in range(MAX_NUM_SEQS)))
    for name, tokens_in, tokens_out in asked:
        record = replaying.record(name)
        assert (record["input_tokens"], record["output_tokens"]) == (tokens_in, tokens_out)
        assert record["energy_uj"] > 0
        assert record["prefill_uj"] + record["decode_uj"] == record["energy_uj"]
        assert (record["status"], record["source"]) == ("simulated", "replay")
    records = replaying.records()
    assert set(Counter(record["record_id"] for record in records).values()) == {1}
    balance = replaying.ask("/energy/balance")
    assert balance["measured_uj"] == balance["requests_uj"] + balance["idle_uj"] + balance["unattributed_uj"]
    assert balance["requests_uj"] == sum(record["energy_uj"] for record in records)
    assert balance["requests_uj"] > 0


@pytest.mark.feature("vllm", "abort-seen", "real")
def test_a_client_that_leaves_stops_the_engine_and_is_charged(
        replaying: Sidecar, vllm: Vllm, authorization: dict[str, str]) -> None:
    """A client that goes away in mid-stream: the engine stops at once, and the record is cancelled, with its joules."""
    name = f"left-{uuid4().hex}"
    leave(replaying.listen, "/v1/chat/completions", {**CHAT, "max_tokens": 1500, "ignore_eos": True, "stream": True},
          authorization | {"x-request-id": name}, after=6)
    eventually(lambda: running(vllm) == 0, "vLLM to drop the request")
    record = replaying.record(name)
    assert (record["outcome"], record["http_status"]) == ("cancelled", 200)
    assert 4 <= record["output_tokens"] < 1500
    assert record["output_source"] == "frames"
    assert record["energy_uj"] > 0


@pytest.mark.feature("vllm", "abort-seen", "real")
def test_a_client_that_waits_for_a_whole_answer_and_leaves_stops_the_engine(
        replaying: Sidecar, vllm: Vllm, authorization: dict[str, str]) -> None:
    """Of an answer that nobody has seen anything of: what it drew until then is in its record, its tokens are unknown."""
    name = f"left-{uuid4().hex}"
    leave(replaying.listen, "/v1/chat/completions", {**CHAT, "max_tokens": 1900, "ignore_eos": True},
          authorization | {"x-request-id": name}, after=0, until=lambda: eventually(lambda: running(vllm), "vLLM to begin"))
    eventually(lambda: running(vllm) == 0, "vLLM to drop the request")
    record = replaying.record(name)
    assert (record["outcome"], record["http_status"], record["output_tokens"]) == ("cancelled", None, None)
    assert record["energy_uj"] > 0


def test_no_energy_source_no_number(
        start_sidecar: Callable[..., Sidecar], vllm: Vllm, authorization: dict[str, str]) -> None:
    """Where nothing can be read, traffic flows, the status says unavailable, and no joule is shown anywhere."""
    blind = start_sidecar(vllm.url, "--energy=auto", "--gpus=GPU-00000000-0000-0000-0000-000000000000")
    got = exchange(blind.listen, "/v1/chat/completions", CHAT | {"max_tokens": 4}, authorization)
    assert (got.status, got.headers["x-energy-status"]) == (200, "unavailable")
    assert "x-energy-joules" not in got.headers
    record = blind.told(got)
    assert (record["status"], record["energy_uj"], record["energy_joules"]) == ("unavailable", None, None)
    assert record["output_tokens"] == 4


def test_a_stream_survives_sigterm(start_sidecar: Callable[..., Sidecar], vllm: Vllm) -> None:
    """Told to stop in mid-stream, the sidecar lets the stream end as the engine ends it, and then exits with 0."""
    stopping = start_sidecar(vllm.url, "--energy=simulated")
    with openai.OpenAI(base_url=f"{stopping.listen}/v1", api_key=API_KEY, max_retries=0, timeout=60) as client:
        stream = client.chat.completions.create(**CHAT, max_tokens=60, stream=True, extra_body=WHOLE)
        first = next(stream)
        stopping.process.send_signal(signal.SIGTERM)
        rest = list(stream)
    assert first.choices[0].finish_reason is None
    assert rest[-1].choices[0].finish_reason == "length"
    assert stopping.process.wait(15) == 0
