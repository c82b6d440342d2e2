"""Text Generation Inference by its contract: bytes, tokens, queue and aborts through the real `perjoule serve`."""

import json
import re
import threading
import time

import pytest

from tests.adapters.engines.front import front_of
from tests.engines.serving import eventually
from tests.engines.wire import OURS, exchange, leave, passed_on
from tests.fakes.tgi import MODEL, Tgi

ASK = {"inputs": "what does this cost", "parameters": {"max_new_tokens": 8}}
DETAILS = {"inputs": "what does this cost", "parameters": {"max_new_tokens": 8, "details": True}}
CHAT = {"model": "tgi", "messages": [{"role": "user", "content": "what does this cost"}], "max_tokens": 8}
STREAM = {"stream": True}
USAGE = STREAM | {"stream_options": {"include_usage": True}}
WHOLE = {"generate": ("/generate", ASK), "generate with details": ("/generate", DETAILS), "the older name": ("/", ASK),
         "chat": ("/v1/chat/completions", CHAT), "completions": ("/v1/completions", {"prompt": ASK["inputs"], "max_tokens": 8})}
STREAMED = {"generate": ("/generate_stream", ASK), "generate with details": ("/generate_stream", DETAILS),
            "the older name": ("/", ASK | STREAM),
            "chat": ("/v1/chat/completions", CHAT | STREAM), "chat with usage": ("/v1/chat/completions", CHAT | USAGE)}
servers: list[Tgi] = []


def make():
    servers.append(Tgi())
    return servers[-1].app()


@pytest.fixture(scope="module")
def front(tmp_path_factory):
    """One sidecar for all tests."""
    with front_of(make, tmp_path_factory.mktemp("tgi")) as it:
        eventually(lambda: it.sidecar.ask("/readyz")["engine"] == "tgi", "TGI to be recognised")
        yield it


@pytest.mark.feature("tgi", "non-stream", "contract")
@pytest.mark.feature("tgi", "joules-per-unit", "contract")
@pytest.mark.feature("tgi", "queue-known", "contract")
@pytest.mark.parametrize("kind", WHOLE)
def test_an_answer_passes_whole_and_its_head_is_read(front, kind):
    """Bytes as they were; tokens from the body or, where that has none, the head; how long it waited, from the head."""
    got, sent, record = front.asked(*WHOLE[kind], f"whole {kind}")
    assert passed_on(got, sent)
    assert (record["input_tokens"], record["output_tokens"], record["outcome"], record["engine"]) == (4, 8, "completed", "tgi")
    in_body = kind in ("chat", "completions")
    assert record["output_source"] == ("usage" if in_body or "details" in kind else "engine")
    assert record["input_source"] == ("usage" if in_body else "engine")
    assert record["queue_ns"] == int(sent.headers["x-queue-time"]) * 1_000_000
    assert got.headers["x-energy-status"] == "simulated"
    assert record["energy_per_output_token_joules"] == pytest.approx(record["energy_joules"] / 8)


@pytest.mark.feature("tgi", "stream", "contract")
@pytest.mark.parametrize("kind", STREAMED)
def test_a_stream_passes_and_each_token_is_counted(front, kind):
    """Every token with text is an event; the energy comment comes before `[DONE]`, or where there is none, last."""
    got, sent, record = front.asked(*STREAMED[kind], f"streamed {kind}")
    assert passed_on(got, sent)
    told = kind in ("generate with details", "chat with usage")
    assert (record["output_tokens"], record["output_source"]) == (8, "usage" if told else "frames")
    assert record["input_source"] == ("usage" if told else "estimated")
    assert record["outcome"] == "completed"
    comment = OURS.search(got.body)
    assert comment is not None
    assert json.loads(comment[1])["status"] == "simulated"
    assert got.body[comment.end():] == (b"data: [DONE]\n\n" if "chat" in kind else b"")


@pytest.mark.feature("tgi", "tokens-exact", "contract")
@pytest.mark.parametrize(("path", "more", "tokens"), [("/generate_stream", {}, 5), ("/generate", {}, 5), ("/v1/chat/completions", USAGE, 5),
                                                      ("/v1/chat/completions", STREAM, 4)])
def test_the_token_that_ends_an_answer_is_one(front, path, more, tokens):
    """It has no text, so that a chat's stream shows it in its usage only: without, the count is a lower bound."""
    payload = {"inputs": "go <stop>"} if "generate" in path else {"messages": [{"role": "user", "content": "go <stop>"}]}
    got, sent, record = front.asked(path, payload | more, f"stop {path} {len(more)}")
    assert passed_on(got, sent)
    assert record["output_tokens"] == tokens
    assert (record["output_source"] == "frames") is (path == "/generate_stream" or more == STREAM)


@pytest.mark.feature("tgi", "tokens-exact", "contract")
@pytest.mark.parametrize("prompts", [["one two three"], ["one two three", "four five"]])
def test_completions_tell_usage_with_each_prompt_s_last_token(front, prompts):
    """What the request took is the sum."""
    got, sent, record = front.asked("/v1/completions", {"prompt": prompts, "max_tokens": 6, "stream": True}, f"{len(prompts)} prompts")
    assert passed_on(got, sent)
    assert (record["output_tokens"], record["input_tokens"]) == (6 * len(prompts), 3 if len(prompts) == 1 else 5)
    assert (record["output_source"], record["input_source"]) == ("usage", "usage")


@pytest.mark.parametrize(("status", "prompt"), [(422, "word " * 65), (429, "<overload> now"), (424, "this will <fail> soon")])
def test_an_error_is_the_engine_s(front, status, prompt):
    """With its own words and status; in a stream it is an event of a 200, and an error all the same."""
    got, sent, record = front.asked("/generate", {"inputs": prompt}, f"error {status}")
    assert passed_on(got, sent)
    assert (got.status, record["outcome"], record["error_type"]) == (status, "errored", str(status))
    for path, payload in (("/generate_stream", {"inputs": prompt}),
                          ("/v1/chat/completions", STREAM | {"messages": [{"role": "user", "content": prompt}]})):
        got, sent, record = front.asked(path, payload, f"error {status} {path}")
        assert passed_on(got, sent)
        assert (got.status, record["outcome"]) == (200, "errored")
        assert record["error_type"] == (json.loads(sent.body.split(b"data: ")[-1])["error_type"] if path == "/generate_stream" else "error")
        assert record["output_tokens"] == (3 if status == 424 else 0)


@pytest.mark.feature("tgi", "abort-seen", "contract")
def test_who_leaves_is_not_computed_for(front):
    """The engine notices at once, and the record says what came until then."""
    server, before = servers[0], servers[0].left
    leave(front.sidecar.listen, "/generate_stream", {"inputs": "go on", "parameters": {"max_new_tokens": 2000}},
          {"X-Request-Id": "left"}, after=5)
    record = front.sidecar.record("left")
    assert (record["outcome"], record["error_type"]) == ("cancelled", "client_disconnected")
    assert record["output_tokens"] >= 5
    eventually(lambda: server.left == before + 1 and server.running == 0, "the engine to stop")


@pytest.mark.feature("tgi", "queue-known", "contract")
def test_who_waits_is_known_to_have_waited(front):
    """The batch holds two; the third's record says how long it was in the queue."""
    def ask(name, tokens):
        exchange(front.sidecar.listen, "/generate", {"inputs": "a b", "parameters": {"max_new_tokens": tokens}}, {"X-Request-Id": name})

    threads = [threading.Thread(target=ask, args=(f"long-{number}", 100)) for number in range(2)]
    for thread in threads:
        thread.start()
    eventually(lambda: servers[0].running == 2, "the batch to be full")
    ask("third", 2)
    for thread in threads:
        thread.join()
    record = front.sidecar.record("third")
    assert 0 < record["queue_ns"] < record["end_ns"]
    assert record["queue_ns"] > front.sidecar.record("long-0")["queue_ns"]


def test_who_goes_around_the_sidecar_is_seen(front):
    """Two run past it, one through it: /readyz, the metrics and the log say so."""
    stop = threading.Event()

    def ask(url):
        while not stop.is_set():
            exchange(url, "/generate", {"inputs": "a b", "parameters": {"max_new_tokens": 2000}})

    threads = [threading.Thread(target=ask, args=(url,)) for url in (front.sidecar.listen, front.engine, front.engine)]
    for thread in threads:
        thread.start()
    try:
        deadline = time.monotonic() + 60
        while (front.sidecar.ask("/readyz")["load"] or {}).get("unknown_requests") != 2:
            assert time.monotonic() < deadline, "waited in vain for strangers to be seen"
            time.sleep(0.2)
        gauge = re.compile(rb"^perjoule_engine_unknown_requests [12]\.", re.MULTILINE)
        eventually(lambda: gauge.search(exchange(front.sidecar.admin, "/metrics").body), "the gauge")
        assert re.search(rb"the engine runs at least [12] requests that did not come through here", front.sidecar.log.read_bytes())
    finally:
        servers[0].token_s = 0
        stop.set()
        for thread in threads:
            thread.join()


def test_the_model_and_version_are_known(front):
    """As `/info` says."""
    setting = front.sidecar.ask("/energy/setting")
    assert (setting["engine"], setting["engine_version"], setting["model_id"]) == ("tgi", "3.3.6-dev0", MODEL)
