"""What an engine says of its load and of its largest batch, by the pages of each kind and version."""

import json

import pytest
from aiohttp import web
from hypothesis import example, given
from hypothesis import strategies as st

from perjoule.adapters.engines.comfyui import read_queue
from perjoule.adapters.engines.questions import largest_batch, load, recognise
from perjoule.adapters.engines.samples import MOST_LINES, Names, read_load
from perjoule.sidecar.http.addresses import read_address
from perjoule.sidecar.http.fetch import MOST_BYTES
from perjoule.sidecar.http.sockets import Listener, listening_socket, url_of
from perjoule.sidecar.http.tls import server_context
from perjoule.sidecar.ports import Engine, Load
from perjoule.sidecar.settings.config import Config
from tests.adapters.engines import pages
from tests.adapters.engines.pages import card, serving
from tests.adapters.engines.pages import url_of as where
from tests.fakes.certificates import make_certificates

VLLM = Load(31, 3, ranks={"0": (16, 3), "1": (15, 0)}, kv_use=0.75, preemptions=2)
NAMES = Names("run", "wait", rank="engine", preemptions=("thrown_total",))


@pytest.mark.parametrize(("name", "answers", "told"), [
    ("vllm", {"/metrics": pages.RANKS}, VLLM),
    ("vllm", {"/metrics": pages.V020}, Load(31, 3, ranks=VLLM.ranks, kv_use=0.75, preemptions=2, prompt_tokens=1000, cached_tokens=256,
                                            output_tokens=4000)),
    ("vllm", {"/metrics": pages.V032}, Load(31, 3, ranks=VLLM.ranks, kv_use=0.75, preemptions=2, prompt_tokens=1000, cached_tokens=256,
                                            output_tokens=4000, flops=1_500_000_000_000_000, read_bytes=2_000_000_000_000,
                                            written_bytes=100_000_000_000)),
    ("vllm", {"/metrics": pages.RUST}, Load(2, 1, ranks={"0": (2, 1)})),
    ("vllm-omni", {"/metrics": pages.OMNI}, Load(1, 2, 2.0, whole=True, ranks={"": (1, 2)})),
    ("sglang", {"/metrics": pages.SGLANG}, Load(12, 1, 5.0, ranks={"0": (7, 1), "1": (5, 0)}, kv_use=0.28, preemptions=4,
                                                cached_tokens=42)),
    ("sglang-diffusion", {"/metrics": pages.SGLANG_DIFFUSION}, Load(1, 3, whole=True, ranks={"0": (1, 3)})),
    ("tgi", {"/metrics": pages.TGI}, Load(6, 2, ranks={"": (6, 2)})),
    ("llamacpp", {"/metrics": pages.LLAMACPP}, Load(3, 1, ranks={"": (3, 1)}, prompt_tokens=120)),
    ("llamacpp", {"/metrics": 501}, None),  # without --metrics
    ("comfyui", {"/queue": pages.QUEUE}, Load(1, 2, whole=True)),
    ("transformers", {"/metrics": pages.RANKS}, None),
])
async def test_the_load_of_each_engine(name, answers, told):
    """Summed over ranks; what a version does not have is not told. A name that is not known tries all ways, and finds the same."""
    async with serving(answers) as server:
        assert await load(where(server), name=name) == told
        if name != "transformers":
            assert await load(where(server)) == told


@pytest.mark.parametrize(("name", "answers", "limit"), [
    ("sglang", {"/server_info": {"max_running_requests": 48}}, 48),
    ("sglang", {"/get_server_info": {"max_running_requests": 48, "dp_size": 2}}, 96),
    ("sglang", {"/get_server_info": {"max_running_requests": 48, "dp_size": 2, "enable_dp_attention": True}}, 48),
    ("sglang", {"/server_info": {"max_running_requests": None, "internal_states": [
        {"effective_max_running_requests_per_dp": 52}, {"effective_max_running_requests_per_dp": 52}]}}, 104),
    ("sglang", {"/server_info": {"max_running_requests": 7, "internal_states": [{}, None, 3]}}, 7),
    ("sglang", {"/server_info": {"max_running_requests": None}}, None),
    ("llamacpp", {"/props": {"total_slots": 4}}, 4), ("llamacpp", {"/props": b"no JSON"}, None), ("llamacpp", {"/props": []}, None),
    ("tgi", {"/info": pages.INFO}, 16), ("tgi", {"/info": pages.INFO_3}, None),
    ("comfyui", {"/system_stats": pages.COMFY}, 1),
    ("vllm", {"/metrics": pages.V032}, None), ("", {}, None)])
async def test_the_limit_is_what_the_engine_names(name, answers, limit):
    """Over all its ranks; whatever else is said is no limit."""
    async with serving(answers) as server:
        assert await largest_batch(where(server), name=name) == limit
        assert await largest_batch(where(server)) == limit


@pytest.mark.parametrize("page", [b"", b"<html>", b"run 1.0", b"run NaN\nwait 1", b"run +Inf\nwait 1", b"run x\nwait 1",
                                  b"run -1\nwait 1", b"run 1e12\nwait 1",
                                  b"run 1\nwait 1\nthrown_total 1e12", b"run 1\nwait 1\nthrown_total 1e40", b"run 1\nwait{ 1",
                                  b"running 1\nwaiting 2", b"\xff\xfe\nrun", b"run\nwait"])
def test_no_load_is_read_from_what_tells_none(page):
    """Pages without both gauges, and gauges without a number."""
    assert read_load(page, NAMES) is None


@given(st.binary(max_size=200))
@example(b'run{engine="0"} 1\nwait{engine="0"} ')
@example(b"run 1e400\nwait 1\n")
def test_no_page_is_too_strange(page):
    """Whatever comes is a load or none, with and without the real thing beside it."""
    read_load(page, NAMES)
    read_load(b'run{engine="0"} 1\nwait{engine="0"} 2\n' + page, NAMES)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=12), st.integers(0, 50))
def test_a_page_is_read_like_prometheus_would(samples, between):
    """Found among thousands of other lines, in any order, at the page's begin or end."""
    other = b"".join(b'runner{engine="0"} %d\n# HELP run x\n' % number for number in range(between))
    page = b"".join(b'run{engine="%d"} %d\n' % (rank, running) + other + b'wait{engine="%d",m="a"} %d\n' % (rank, waiting)
                    for rank, running, waiting in samples)
    found = read_load(page[:-1], NAMES)
    assert found is not None
    assert (found.running, found.waiting) == (sum(s[1] for s in samples), sum(s[2] for s in samples))
    assert set(found.ranks) == {str(s[0]) for s in samples}
    assert found.preemptions is None


def test_one_name_on_every_line_is_no_page():
    """What would take long to parse is not."""
    assert read_load(b"run 1\n" * (MOST_LINES + 1) + b"wait 1\n", NAMES) is None


@pytest.mark.parametrize("page", [b"", b"[]", b"{}", b'{"queue_running": 1, "queue_pending": []}'])
def test_no_queue_is_read_from_what_is_none(page):
    """Of ComfyUI."""
    assert read_queue(page) is None


async def test_a_page_of_two_megabytes_is_searched_and_not_read():
    """Lines that nobody asked for are not parsed: these could not be."""
    line = b'vllm:request_time_seconds_bucket{engine="0,le=0.5} twelve\nvllm:num_requests_running_more{{{ 5\n'
    async with serving({"/metrics": line * ((2 << 20) // len(line)) + pages.V032}) as server:
        found = await load(where(server), name="vllm")
    assert found is not None
    assert (found.running, found.flops) == (31, 1_500_000_000_000_000)


async def test_a_page_without_end_is_none():
    """No more is read than any engine has to say."""
    async with serving({"/metrics": pages.RANKS + b"# " + b"x" * MOST_BYTES}) as server:
        assert await load(where(server), name="vllm") is None


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    """Certificates, made once."""
    return make_certificates(tmp_path_factory.mktemp("pem"))


@pytest.mark.parametrize("kind", ["tcp6", "unix", "mtls"])
async def test_an_engine_is_asked_wherever_it_listens(kind, tmp_path, pem):
    """By IPv6, over a unix socket, and with certificates of both sides."""
    async def page(request):
        answers = card("llamacpp") | {"/metrics": pages.LLAMACPP.decode(), "/props": {"total_slots": 4}}
        body = answers.get(request.path)
        return web.Response(status=404) if body is None else web.Response(text=body if isinstance(body, str) else json.dumps(body))

    settings = pem.upstream_mutual if kind == "mtls" else {}
    tls = server_context(pem("server.pem"), pem("server.key"), pem("ca.pem")) if kind == "mtls" else None
    listener = Listener(listening_socket(read_address({"tcp6": "[::1]:0", "unix": f"unix:{tmp_path}/a"}.get(kind, "127.0.0.1:0"))))
    config = Config(upstream=url_of(listener.listening, tls=tls is not None), **settings)
    server = web.Server(page)
    await listener.serve(server, tls)
    asked = config.upstream, config.upstream_tls()
    found = await recognise(*asked), await largest_batch(*asked), await load(*asked)
    assert found == (Engine("llamacpp", None, "served-name"), 4, Load(3, 1, ranks={"": (3, 1)}, prompt_tokens=120))
    if tls is not None:
        stranger = Config(upstream=config.upstream, upstream_tls_ca=pem("other.pem")).upstream_tls()
        assert await recognise(config.upstream, stranger) is None
        assert await recognise(config.upstream) is None
    listener.close()
    await server.shutdown()
    assert (await recognise(*asked), await largest_batch(*asked), await load(*asked)) == (None, None, None)
