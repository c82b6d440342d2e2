"""SGLang by its contract: bytes, tokens, cache and aborts through the real `perjoule serve`, and prefill and decode apart."""

import asyncio
import json
import threading
import time

import pytest
from aiohttp.test_utils import TestServer

from perjoule.sidecar.ports import Device, Reading
from perjoule.sidecar.record import Status
from tests.adapters.engines.front import front_of
from tests.engines.serving import eventually
from tests.engines.wire import OURS, exchange, leave, passed_on
from tests.fakes.sglang import Sglang
from tests.fakes.sidecar import post, sidecar

NATIVE = {"text": "what does this cost", "sampling_params": {"max_new_tokens": 9}}
CHAT = {"model": "org/tiny", "messages": [{"role": "user", "content": "what does that cost us"}], "max_tokens": 9}
STREAM = {"stream": True}
USAGE = STREAM | {"stream_options": {"include_usage": True}}
RUNNING = STREAM | {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
APART = {"bootstrap_host": "10.0.0.7", "bootstrap_port": 8998, "bootstrap_room": 5_577_006_791_947_779_410}
servers: list[Sglang] = []


def make():
    servers.append(Sglang(interval=2))
    return servers[-1].app()


@pytest.fixture(scope="module")
def front(tmp_path_factory):
    """One sidecar for all tests, in front of an SGLang that sends two tokens to an event."""
    with front_of(make, tmp_path_factory.mktemp("sglang")) as it:
        eventually(lambda: it.sidecar.ask("/readyz")["engine"] == "sglang", "SGLang to be recognised")
        yield it


@pytest.mark.feature("sglang", "non-stream", "contract")
@pytest.mark.feature("sglang", "tokens-exact", "contract")
@pytest.mark.feature("sglang", "cached-known", "contract")
@pytest.mark.feature("sglang", "joules-per-unit", "contract")
@pytest.mark.parametrize(("path", "payload", "prompt"), [("/generate", NATIVE, 4), ("/v1/chat/completions", CHAT, 5)])
def test_an_answer_passes_whole(front, path, payload, prompt):
    """Asked twice: the second time the prompt was cached, and the record says so."""
    for turn in range(2):
        got, sent, record = front.asked(path, payload, f"whole {path} {turn}")
        assert passed_on(got, sent)
    assert (record["input_tokens"], record["output_tokens"], record["cached_tokens"]) == (prompt, 9, prompt)
    assert (record["input_source"], record["output_source"], record["outcome"]) == ("usage", "usage", "completed")
    assert record["energy_per_output_token_joules"] == pytest.approx(record["energy_joules"] / 9)


@pytest.mark.feature("sglang", "stream", "contract")
@pytest.mark.feature("sglang", "tokens-exact", "contract")
@pytest.mark.parametrize(("kind", "path", "payload", "source"), [
    ("native", "/generate", NATIVE | STREAM, "usage"), ("chat", "/v1/chat/completions", CHAT | STREAM, "frames"),
    ("chat with usage", "/v1/chat/completions", CHAT | USAGE, "usage"),
    ("chat with running usage", "/v1/chat/completions", CHAT | RUNNING, "usage")])
def test_a_stream_passes(front, kind, path, payload, source):
    """With usage tokens are exact though two come at once; without it, events are counted, a lower bound."""
    got, sent, record = front.asked(path, payload, f"streamed {kind}")
    assert passed_on(got, sent)
    assert (record["output_tokens"], record["output_source"], record["outcome"]) == (9 if source == "usage" else 5, source, "completed")
    comment = OURS.search(got.body)
    assert comment is not None
    assert got.body[comment.end():] == b"data: [DONE]\n\n"


def test_several_prompts_are_one_request(front):
    """Streamed or not: what all of them took."""
    payload = NATIVE | {"text": ["one two", "three four five"]}
    for name, more in (("whole", {}), ("streamed", STREAM)):
        got, sent, record = front.asked("/generate", payload | more, f"several {name}")
        assert passed_on(got, sent)
        assert record["output_tokens"] == 18
    assert front.asked("/generate", payload, "several again")[2]["input_tokens"] == 5


def test_an_error_is_the_engine_s(front):
    """In its own words."""
    got, sent, record = front.asked("/generate", NATIVE | {"sampling_params": {"max_new_tokens": -1}}, "error")
    assert passed_on(got, sent)
    assert (got.status, record["outcome"], record["error_type"]) == (400, "errored", "400")


@pytest.mark.feature("sglang", "abort-seen", "contract")
def test_who_leaves_is_not_computed_for(front):
    """The engine notices at once, and the record says what came until then."""
    server, before = servers[0], servers[0].left
    leave(front.sidecar.listen, "/generate", {"text": "go on", "sampling_params": {"max_new_tokens": 4000}, "stream": True},
          {"X-Request-Id": "left"}, after=5)
    record = front.sidecar.record("left")
    assert (record["outcome"], record["error_type"]) == ("cancelled", "client_disconnected")
    assert record["output_tokens"] >= 10
    eventually(lambda: server.left == before + 1 and server.running == 0, "the engine to stop")


@pytest.mark.feature("sglang", "queue-known", "contract")
def test_who_waits_is_known_to_have_waited(front):
    """With --enable-metrics its own API tells it, in a stream, too."""
    def ask(name, tokens, **more):
        exchange(front.sidecar.listen, "/generate", {"text": "a b", "sampling_params": {"max_new_tokens": tokens}, **more},
                 {"X-Request-Id": name})

    threads = [threading.Thread(target=ask, args=(f"long-{number}", 100)) for number in range(2)]
    for thread in threads:
        thread.start()
    eventually(lambda: servers[0].running == 2, "the batch to be full")
    ask("third", 2, stream=True)
    for thread in threads:
        thread.join()
    record = front.sidecar.record("third")
    assert front.sidecar.record("long-0")["queue_ns"] < record["queue_ns"] < record["end_ns"]


@pytest.mark.parametrize(("path", "payload"), [("/generate", NATIVE | APART), ("/v1/chat/completions", CHAT | STREAM | APART)])
def test_what_a_router_adds_for_prefill_and_decode_apart_goes_on_untouched(front, path, payload):
    """To the last digit: a room is a number of 63 bits."""
    got, sent, _ = front.asked(path, payload, f"apart {path}")
    assert passed_on(got, sent)
    assert json.loads(servers[0].bodies[-1]) == payload


def test_its_batch_is_known(front):
    """As its schedulers say."""
    eventually(lambda: front.sidecar.ask("/energy/setting")["max_num_seqs"] == 32, "the largest batch to be known")


class TwoBoards:
    """One that computes prompts, at 500 W, and one that decodes, at 300 W."""

    name, status, boundary = "steady", Status.MEASURED, "gpu-board"
    devices = (Device("GPU-p", "prefill"), Device("GPU-d", "decode"))
    period_ns, wrap_uj = 20_000_000, None

    def read(self):
        t_ns = time.monotonic_ns()
        shown_ns = t_ns // self.period_ns * self.period_ns
        return tuple(Reading(t_ns, t_ns, shown_ns * mw // 1_000_000, mw) for mw in (500_000, 300_000))

    def close(self): ...


async def test_prefill_and_decode_apart_are_each_charged_by_their_own_board():
    """Through the router of such a deployment: a request bears joules of both, and all of them are accounted for."""
    async with TestServer(Sglang(token_s=0.01).app()) as engine, sidecar(str(engine.make_url("/")), engine="sglang", counter=TwoBoards(),
                                                                         gpus="prefill=GPU-p;decode=GPU-d") as front:
        while not front.service.meter.balance.measured_uj:
            await front.send(post("/generate", json.dumps(NATIVE).encode()))
        payload = {**APART, "text": "another " * 400, "sampling_params": {"max_new_tokens": 60}, "stream": True}
        await front.send(post("/generate", json.dumps(payload).encode(), "X-Request-Id: apart"))
        while not (found := [record for record in front.sink.records if record.facts.request_id == "apart"]):
            await asyncio.sleep(0.02)
        [record] = found
        assert set(record.charge.devices) == {"GPU-p", "GPU-d"}
        assert record.charge.prefill_uj > 0
        assert record.charge.decode_uj > 0
        assert record.charge.prefill_uj + record.charge.decode_uj == record.charge.energy_uj
        assert front.service.meter.balance.conserved
