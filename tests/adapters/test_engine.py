"""What an engine says of itself, by the answers that engines give."""

import json

import pytest
from aiohttp import web

from perjoule.adapters.engine import recognise
from perjoule.bench.engine import running_engine
from perjoule.sidecar.ports import Engine

MODELS = {"object": "list", "data": [{"id": "served-name", "owned_by": "vllm", "root": "meta-llama/Llama-3.1-8B"}, {"id": "adapter"}]}


async def asked(pages):
    """What is recognised at a server that has these pages, and no others."""
    async def page(request):
        body = pages.get(request.path)
        if body is None:
            return web.Response(status=404)
        return web.Response(body=body if isinstance(body, bytes) else json.dumps(body).encode())

    app = web.Application()
    app.router.add_get("/{path:.*}", page)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return await recognise("http://{}:{}/".format(*runner.addresses[0][:2]))
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(("pages", "engine"), [
    ({"/v1/models": MODELS, "/version": {"version": "0.25.1"}}, Engine("vllm", "0.25.1", "meta-llama/Llama-3.1-8B")),
    ({"/version": {"version": "0.25.1"}, "/metrics": b'# HELP vllm:x y\nvllm:num_requests_running{engine="0",model_name="a/b"} 0.0\n'},
     Engine("vllm", "0.25.1", "a/b")),
    ({"/metrics": b"# HELP vllm:x y\n"}, Engine("vllm")),
    ({"/v1/models": {"data": [{"id": "q", "owned_by": "sglang", "root": "q"}]},
      "/get_server_info": {"version": "0.5.3", "dtype": "auto", "quantization": "fp8"}}, Engine("sglang", "0.5.3", "q", "fp8")),
    ({"/info": {"max_concurrent_requests": 128, "model_id": "a/b", "model_dtype": "torch.float16", "version": "3.3.0"}},
     Engine("tgi", "3.3.0", "a/b", "torch.float16")),
    ({"/v1/models": {"data": [{"id": "l", "owned_by": "llamacpp"}]}}, Engine("openai", None, "l")),
    ({"/v1/models": {"data": "none"}, "/metrics": b"\xff", "/info": b"["}, Engine("openai")),
    ({}, Engine("openai")),
])
async def test_engines_by_their_answers(pages, engine):
    """Name, version, model and precision where they are told, None where they are not."""
    assert await asked(pages) == engine


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
