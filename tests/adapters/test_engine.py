"""What an engine says of itself, by the answers that engines give: who it is, its largest batch, its queue."""

import json

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from perjoule.adapters.engine import Queue, largest_batch, queue, read_queue, recognise
from perjoule.bench.engine import running_engine
from perjoule.sidecar.http.addresses import read_address
from perjoule.sidecar.http.sockets import Listener, listening_socket, url_of
from perjoule.sidecar.http.tls import server_context
from perjoule.sidecar.ports import Engine
from perjoule.sidecar.settings.config import Config
from tests.fakes.certificates import make_certificates

MODELS = {"object": "list", "data": [{"id": "served-name", "owned_by": "vllm", "root": "meta-llama/Llama-3.1-8B"}, {"id": "adapter"}]}
VLLM = """# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 16.0
vllm:num_requests_running{engine="1",model_name="m"} 15.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 3.0
vllm:num_requests_waiting{engine="1",model_name="m"} 0.0
"""


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


def serving(answers):
    """An engine that answers these paths."""
    app = web.Application()
    for path, answer in answers.items():
        async def handler(_, answer=answer):
            return web.Response(text=answer) if isinstance(answer, str) else web.json_response(answer)
        app.router.add_get(path, handler)
    return TestServer(app)


@pytest.mark.parametrize(("answers", "limit"), [
    ({"/get_server_info": {"max_running_requests": 48}}, 48), ({"/props": {"total_slots": 4}}, 4),
    ({"/get_server_info": {"max_running_requests": None}}, None), ({"/props": "no JSON"}, None), ({"/props": []}, None), ({}, None)])
async def test_the_limit_is_what_the_engine_names(answers, limit):
    """SGLang and llama.cpp name it; whatever else is said is no limit."""
    async with serving(answers) as server:
        assert await largest_batch(str(server.make_url("/"))) == limit


async def test_the_queue_is_summed_over_ranks():
    """Two ranks of one vLLM are one engine here."""
    async with serving({"/metrics": VLLM}) as server:
        assert await queue(str(server.make_url("/"))) == Queue(31, 3)


@pytest.mark.parametrize("text", ["", "<html>", "vllm:num_requests_running 1.0", VLLM.replace("16.0", "NaN"), VLLM.replace("16.0", "+Inf")])
def test_no_queue_is_read_from_what_tells_none(text):
    """Pages without both gauges, and gauges without a number."""
    assert read_queue(text) is None


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    """Certificates, made once."""
    return make_certificates(tmp_path_factory.mktemp("pem"))


@pytest.mark.parametrize("kind", ["tcp6", "unix", "mtls"])
async def test_an_engine_is_asked_wherever_it_listens(kind, tmp_path, pem):
    """By IPv6, over a unix socket, and with certificates of both sides."""
    async def page(request):
        pages = {"/metrics": VLLM, "/version": '{"version": "1"}', "/props": '{"total_slots": 4}'}
        return web.Response(text=pages[request.path]) if request.path in pages else web.Response(status=404)

    settings = pem.upstream_mutual if kind == "mtls" else {}
    tls = server_context(pem("server.pem"), pem("server.key"), pem("ca.pem")) if kind == "mtls" else None
    listener = Listener(listening_socket(read_address({"tcp6": "[::1]:0", "unix": f"unix:{tmp_path}/a"}.get(kind, "127.0.0.1:0"))))
    config = Config(upstream=url_of(listener.listening, tls=tls is not None), **settings)
    server = web.Server(page)
    await listener.serve(server, tls)
    asked = config.upstream, config.upstream_tls()
    assert (await recognise(*asked), await largest_batch(*asked), await queue(*asked)) == (Engine("vllm", "1", "m"), 4, Queue(31, 3))
    if tls is not None:
        stranger = Config(upstream=config.upstream, upstream_tls_ca=pem("other.pem")).upstream_tls()
        assert await recognise(config.upstream, stranger) is None
        assert await recognise(config.upstream) is None
    listener.close()
    await server.shutdown()
    assert (await recognise(*asked), await largest_batch(*asked), await queue(*asked)) == (None, None, None)


async def test_nobody_there_is_nothing_known():
    """No answer is no limit and no queue."""
    server = serving({})
    async with server:
        url = str(server.make_url("/"))
    assert (await largest_batch(url), await queue(url)) == (None, None)


async def test_an_engine_that_guards_everything_is_asked_with_its_key():
    """As SGLang does, and others behind a gateway; without the key it cannot be told what it is."""
    async def page(request):
        if request.headers.get("Authorization") != "Bearer sk-engine":
            return web.Response(status=401)
        return web.json_response({"/get_server_info": {"version": "0.5.3", "max_running_requests": 96}, "/v1/models": {
            "data": [{"id": "q", "owned_by": "sglang"}]}}.get(request.path, {}))

    app = web.Application()
    app.router.add_get("/{path:.*}", page)
    async with TestServer(app) as server:
        url = str(server.make_url("/"))
        assert await recognise(url, None, "sk-engine") == Engine("sglang", "0.5.3", "q")
        assert await largest_batch(url, None, "sk-engine") == 96
        assert await recognise(url) == Engine("openai")
