"""An engine's largest batch, and its queue, from what engines really say."""

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from perjoule.adapters.engine_limits import Queue, largest_batch, queue, read_queue

VLLM = """# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 16.0
vllm:num_requests_running{engine="1",model_name="m"} 15.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 3.0
vllm:num_requests_waiting{engine="1",model_name="m"} 0.0
"""


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


async def test_nobody_there_is_nothing_known():
    """No answer is no limit and no queue."""
    server = serving({})
    async with server:
        url = str(server.make_url("/"))
    assert (await largest_batch(url), await queue(url)) == (None, None)
