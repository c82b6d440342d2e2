"""The doors in front of a real vLLM: tenants come in by their own keys, and what vLLM leaves open is closed, however it is spelled."""

import json
import re
from collections.abc import Callable

import anthropic
import openai
import pytest

from perjoule.sidecar.access.keys import entry_for
from tests.engines.serving import Sidecar
from tests.engines.vllm_cpu import API_KEY, MODEL, Vllm
from tests.engines.wire import exchange

pytestmark = pytest.mark.vllm

KEYS = {"tenant-a": "pj-a", "tenant-b": "pj-b"}
SPELLINGS = ["/metrics", "/metrics/", "/%6detrics", "/metrics/..%2fv1/models", "/metrics/../v1/models", "/v1/../metrics", "//metrics",
             "/metrics;a", "/METRICS", "/metrics%00", "/metrics/%2e%2e/v1/models", "/./metrics", "/v1%2f..%2fmetrics", "/load", "/%6coad",
             "/server_info", "/is_sleeping", "/version/../load", "/docs", "/openapi.json", "/openapi%2ejson"]
OPEN_BESIDE_THE_API = {"/health", "/ping", "/version", "/tokenize", "/detokenize", "/invocations", "/generative_scoring", "/pooling",
                       "/classify", "/score", "/rerank"}


@pytest.fixture(scope="module")
def guarded(vllm: Vllm, start_sidecar: Callable[..., Sidecar], tmp_path_factory: pytest.TempPathFactory) -> Sidecar:
    """A sidecar that knows two tenants' keys, and the engine's."""
    folder = tmp_path_factory.mktemp("keys")
    (folder / "keys.toml").write_text("".join(entry_for(name, key) for name, key in KEYS.items()))
    (folder / "engine.key").write_text(API_KEY)
    return start_sidecar(vllm.url, "--energy=simulated", f"--keys={folder / 'keys.toml'}", f"--upstream-key-file={folder / 'engine.key'}")


def shown(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_official_clients_come_in_by_their_own_keys(guarded: Sidecar) -> None:
    """OpenAI's by Authorization, Anthropic's by X-Api-Key; vLLM sees its own, and the records name the tenants."""
    with openai.OpenAI(base_url=f"{guarded.listen}/v1", api_key="pj-a", max_retries=0) as client:
        client.chat.completions.create(model=MODEL, max_tokens=4, messages=[{"role": "user", "content": "a"}],
                                       extra_headers={"X-Request-Id": "of-a"})
        assert client.models.list().data[0].id == MODEL
    with anthropic.Anthropic(base_url=guarded.listen, api_key="pj-b", max_retries=0) as claude:
        claude.messages.create(model=MODEL, max_tokens=4, messages=[{"role": "user", "content": "b"}],
                               extra_headers={"X-Request-Id": "of-b"})
    assert [guarded.record(request_id)["tenant"] for request_id in ("of-a", "of-b")] == ["tenant-a", "tenant-b"]


def test_official_clients_understand_a_refusal(guarded: Sidecar) -> None:
    """Neither a wrong key nor the engine's own is a key here."""
    for key in ("pj-x", API_KEY):
        with openai.OpenAI(base_url=f"{guarded.listen}/v1", api_key=key, max_retries=0) as client, \
                pytest.raises(openai.AuthenticationError) as refused:
            client.models.list()
        assert refused.value.type == "invalid_api_key"


def test_what_vllm_leaves_open_is_closed(guarded: Sidecar, vllm: Vllm) -> None:
    """vLLM tells everybody its metrics, whatever key it was started with; the sidecar tells nobody."""
    assert b"vllm:" in exchange(vllm.url, "/metrics").body
    assert exchange(guarded.listen, "/metrics").status == 401
    assert exchange(guarded.listen, "/metrics", headers=shown("pj-a")).status == 403


@pytest.mark.parametrize("path", SPELLINGS)
def test_no_spelling_leads_to_what_is_closed(path: str, guarded: Sidecar, vllm: Vllm) -> None:
    """Some of these vLLM answers, some not; through the sidecar none is."""
    answer = exchange(guarded.listen, path, headers=shown("pj-a"))
    assert answer.status == 403
    assert b"vllm:" not in answer.body


def test_some_spellings_would_lead_there(vllm: Vllm) -> None:
    """So that the test above tests something: vLLM itself answers these with its metrics, beside the plain one."""
    assert len([path for path in SPELLINGS if b"vllm:" in exchange(vllm.url, path).body]) > 3


def test_every_route_of_vllm_is_open_or_closed_on_purpose(guarded: Sidecar, vllm: Vllm) -> None:
    """By the engine's own list, in development mode: the API is open, and all the rest is closed."""
    routes = {re.sub(r"\{\w+\}", "x", path) for path in json.loads(exchange(vllm.url, "/openapi.json").body)["paths"]}
    closed = {path for path in routes if exchange(guarded.listen, path, headers=shown("pj-a")).status == 403}
    api = {path for path in routes if path.startswith(("/v1/", "/v2/", "/inference/", "/cohere/"))}
    operators = {path for path in api if path.endswith(("_lora_adapter", "/abort_requests"))}
    assert routes - closed == (api - operators) | (routes & OPEN_BESIDE_THE_API)
    assert {"/sleep", "/collective_rpc", "/load", "/reset_prefix_cache"} <= closed
