"""Who an engine is, by what engines of each kind and version answer."""

import asyncio

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from perjoule.adapters.engines import pages as asked_for
from perjoule.adapters.engines.questions import ADAPTERS, recognise
from perjoule.bench.engine import running_engine
from perjoule.sidecar.ports import Engine
from perjoule.sidecar.settings.config import Config
from tests.adapters.engines import pages
from tests.adapters.engines.pages import card, serving, url_of


@pytest.mark.parametrize(("answers", "engine"), [
    (card("vllm", root="a/b", max_model_len=8192) | {"/version": {"version": "0.25.1"}, "/metrics": pages.V020},
     Engine("vllm", "0.25.1", "a/b")),
    (card("vllm", root="a/b") | {"/version": {"version": "0.33.0"}, "/metrics": pages.RUST}, Engine("vllm", "0.33.0", "a/b")),  # Rust
    ({"/v1/models": 401, "/version": {"version": "0.25.1"}, "/metrics": pages.V032}, Engine("vllm", "0.25.1", "a/b")),  # without its key
    ({"/metrics": b"# HELP vllm:x y\n"}, Engine("vllm")),
    (card("vllm", root="i") | {"/version": {"version": "0.30.0"}, "/metrics": pages.OMNI}, Engine("vllm-omni", "0.30.0", "i")),
    (card("sglang", root="q") | {"/server_info": {"version": "0.5.20", "dtype": "auto", "quantization": "fp8"}},
     Engine("sglang", "0.5.20", "q", "fp8")),
    (card("sglang", root="q") | {"/get_server_info": {"version": "0.5.3", "dtype": "bfloat16", "quantization": None}},
     Engine("sglang", "0.5.3", "q", "bfloat16")),
    (card("sglang", root="w", num_gpus=1, task_type="T2I", dit_precision="bf16", vae_precision="fp32"),
     Engine("sglang-diffusion", None, "w", "bf16")),
    ({"/info": pages.INFO}, Engine("tgi", "2.4.1", "a/b", "torch.float16")),
    (card("a/b") | {"/info": pages.INFO_3, "/metrics": pages.TGI}, Engine("tgi", "3.3.6", "a/b")),
    (card("llamacpp", meta={"n_ctx": 4096, "ftype": "Q4_K - Medium"}) | {"/props": {"total_slots": 4, "build_info": "b6500-abc"}},
     Engine("llamacpp", "b6500-abc", "served-name", "Q4_K - Medium")),
    ({"/load_model": 405, "/reset": 405, "/health": {"status": "ok"}} | card("someone"), Engine("transformers")),
    ({"/load_model": 405}, Engine("openai")),
    ({"/system_stats": pages.COMFY}, Engine("comfyui", "0.3.70")),
    ({"/system_stats": {"system": {"os": "posix"}}}, Engine("openai")),
    (card("somebody", root="r"), Engine("openai", None, "r")),
    ({"/v1/models": {"data": "none"}, "/metrics": b"\xff", "/info": b"["}, Engine("openai")),
    ({"/v1/models": {"data": [7]}, "/info": [], "/props": b"", "/system_stats": {"system": 1, "devices": []}}, Engine("openai")),
    ({}, Engine("openai")),
])
async def test_engines_by_their_answers(answers, engine):
    """Name, version, model and precision where they are told, None where they are not; the name is one that `--engine` takes."""
    async with serving(answers) as server:
        assert await recognise(url_of(server)) == engine
    assert Config(upstream="http://a", engine=engine.name).engine == engine.name


def test_every_engine_can_be_named():
    """What is recognised, the operator may say himself."""
    choices = Config.__dataclass_fields__["engine"].metadata["choices"]
    assert {adapter.name for adapter in ADAPTERS} | {"auto", "openai", "diffusion"} == set(choices)


@pytest.mark.parametrize(("last", "answers", "most"), [
    ("vllm", card("vllm", root="a/b") | {"/version": {"version": "0.25.1"}, "/metrics": pages.V032}, ["/v1/models", "/version"]),
    ("transformers", {"/load_model": 405, "/reset": 405}, ["/load_model", "/reset"]),
    ("comfyui", {"/system_stats": pages.COMFY}, ["/system_stats"]),
    ("tgi", card("a/b") | {"/info": pages.INFO_3}, ["/info"]),
])
async def test_who_is_known_is_asked_little(last, answers, most):
    """Every ten seconds it is asked again: no page of metrics, no cache of models is read for that."""
    async with serving(answers) as server:
        found = await recognise(url_of(server), last=last)
        assert found is not None
        assert found.name == last
        assert server.asked == most


async def test_another_engine_behind_the_port_is_recognised():
    """What it was last is looked at first, and no more."""
    async with serving(card("sglang", root="q")) as server:
        assert await recognise(url_of(server), last="tgi") == Engine("sglang", None, "q")


async def test_an_engine_too_busy_for_all_its_pages_is_there(monkeypatch):
    """One page came, so somebody answers; where none does, nobody is there."""
    monkeypatch.setattr(asked_for, "TIMEOUT_S", 0.5)
    hangs = asyncio.Event()

    async def answer(request):
        if request.path not in answered:
            await hangs.wait()
        return web.json_response(card("vllm", root="a/b")["/v1/models"])

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    async with TestServer(app) as server:
        answered = {"/v1/models"}
        assert await recognise(url_of(server), last="vllm") == Engine("vllm", None, "a/b")
        answered = set()
        assert await recognise(url_of(server), last="vllm") is None
        hangs.set()


async def test_an_engine_that_guards_everything_is_asked_with_its_key():
    """As SGLang and llama.cpp do, and others behind a gateway; without the key it cannot be told what it is."""
    answers = card("sglang", root="q") | {"/server_info": {"version": "0.5.3"}}
    async with serving(answers, key="sk-engine") as server:
        assert await recognise(url_of(server), None, "sk-engine") == Engine("sglang", "0.5.3", "q")
        assert await recognise(url_of(server)) == Engine("openai")


async def test_the_embedded_engine_speaks_as_vllm():
    """With a version and a model."""
    async with running_engine() as engine:
        found = await recognise(engine.url)
    assert found is not None
    assert found.name == "vllm"
    assert found.version
    assert found.model


async def test_nobody_is_nobody():
    """A port at which nothing listens."""
    assert await recognise("http://127.0.0.1:9") is None


@pytest.mark.parametrize(("found", "known", "is_news"), [
    (Engine("vllm", "1", "m"), None, True),
    (Engine("vllm", "1", "m"), Engine("vllm", "1", "m"), False),
    (Engine("vllm", "1", "n"), Engine("vllm", "1", "m"), True),
    (Engine("vllm", "2", "m"), Engine("vllm", "1", "m"), True),
    (Engine("vllm", "1", "m"), Engine("openai"), True),
    (Engine("vllm", "1"), Engine("vllm", "1", "m"), False),
    (Engine("openai"), Engine("vllm", "1", "m"), False),
    (Engine("openai", None, "n"), Engine("vllm", "1", "m"), True),
])
def test_what_is_news(found, known, is_news):
    """Another model, version or engine is; less said of the same is not."""
    assert found.is_news(known) is is_news
