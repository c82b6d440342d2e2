"""What engines answer when they are asked who they are, written down from their sources and documentation, and servers that answer so."""

import json

from aiohttp import web
from aiohttp.test_utils import TestServer


def card(owner, **more):
    """A page of models with one on it."""
    return {"/v1/models": {"object": "list", "data": [{"id": "served-name", "object": "model", "created": 1, "owned_by": owner, **more}]}}


RANKS = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a/b"} 16.0
vllm:num_requests_running{engine="1",model_name="a/b"} 15.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="a/b"} 3.0
vllm:num_requests_waiting{engine="1",model_name="a/b"} 0.0
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{engine="0",model_name="a/b",reason="capacity"} 3.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="a/b",reason="deferred"} 0.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="a/b"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="a/b"} 0.75
# TYPE vllm:num_preemptions_total counter
vllm:num_preemptions_total{engine="0",model_name="a/b"} 2.0
vllm:num_preemptions_created{engine="0",model_name="a/b"} 1.7e+09
vllm:num_preemptions_total{engine="1",model_name="a/b"} 0.0
"""
V020 = RANKS + b"""# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="a/b"} 1000.0
# TYPE vllm:prefix_cache_queries_total counter
vllm:prefix_cache_queries_total{engine="0",model_name="a/b"} 990.0
# TYPE vllm:prefix_cache_hits_total counter
vllm:prefix_cache_hits_total{engine="0",model_name="a/b"} 256.0
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="a/b"} 4000.0
"""
V032 = V020 + b"""# TYPE vllm:prompt_tokens_cached_total counter
vllm:prompt_tokens_cached_total{engine="0",model_name="a/b"} 250.0
vllm:prompt_tokens_cached_total{engine="1",model_name="a/b"} 6.0
# TYPE vllm:estimated_flops_per_gpu_total counter
vllm:estimated_flops_per_gpu_total{engine="0",model_name="a/b"} 1.5e+15
# TYPE vllm:estimated_read_bytes_per_gpu_total counter
vllm:estimated_read_bytes_per_gpu_total{engine="0",model_name="a/b"} 2e+12
# TYPE vllm:estimated_write_bytes_per_gpu_total counter
vllm:estimated_write_bytes_per_gpu_total{engine="0",model_name="a/b"} 1e+11
"""
RUST = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{model_name="a/b",engine="0"} 2
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{model_name="a/b",engine="0"} 1
# EOF
"""
SGLANG = b"""# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{engine_type="unified",model_name="q",dp_rank="0",pp_rank="0",tp_rank="0"} 7.0
sglang:num_running_reqs{engine_type="unified",model_name="q",dp_rank="1",pp_rank="0",tp_rank="0"} 5.0
# TYPE sglang:num_running_reqs_offline_batch gauge
sglang:num_running_reqs_offline_batch{model_name="q"} 99.0
# TYPE sglang:num_queue_reqs gauge
sglang:num_queue_reqs{engine_type="unified",model_name="q",dp_rank="0",pp_rank="0",tp_rank="0"} 1.0
# TYPE sglang:token_usage gauge
sglang:token_usage{engine_type="unified",model_name="q",dp_rank="0"} 0.28
# TYPE sglang:num_retracted_requests_total counter
sglang:num_retracted_requests_total{model_name="q",dp_rank="0"} 4.0
# TYPE sglang:cached_tokens_total counter
sglang:cached_tokens_total{cache_source="device",model_name="q"} 30.0
sglang:cached_tokens_total{cache_source="host",model_name="q"} 12.0
"""
SGLANG_DIFFUSION = b"""# TYPE sglang:diffusion_num_queue_reqs gauge
sglang:diffusion_num_queue_reqs{role="monolithic",replica="0"} 3.0
# TYPE sglang:diffusion_num_running_reqs gauge
sglang:diffusion_num_running_reqs{role="monolithic",replica="0"} 1.0
"""
OMNI = b"""# TYPE vllm_omni:num_requests_running gauge
vllm_omni:num_requests_running{model_name="i"} 1.0
# TYPE vllm_omni:num_requests_waiting gauge
vllm_omni:num_requests_waiting{model_name="i"} 2.0
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{model_name="i",stage="0",replica="0"} 8.0
vllm:num_requests_waiting{model_name="i",stage="0",replica="0"} 8.0
"""
TGI = b"""# TYPE tgi_batch_current_size gauge
tgi_batch_current_size 6
# TYPE tgi_queue_size gauge
tgi_queue_size 2
"""
LLAMACPP = b"""# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed, excluding cached tokens
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 120
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 3
# TYPE llamacpp:requests_deferred gauge
llamacpp:requests_deferred 1
"""
INFO = {"max_concurrent_requests": 128, "model_id": "a/b", "model_dtype": "torch.float16", "version": "2.4.1", "max_batch_size": 16}
INFO_3 = {"model_id": "a/b", "model_sha": "e9", "model_pipeline_tag": "text-generation", "max_concurrent_requests": 128, "max_best_of": 2,
          "max_stop_sequences": 4, "max_input_tokens": 1024, "max_total_tokens": 2048, "validation_workers": 2,
          "max_client_batch_size": 4, "router": "text-generation-router", "version": "3.3.6", "sha": None, "docker_label": None}
COMFY = {"system": {"os": "posix", "comfyui_version": "0.3.70", "python_version": "3.12", "ram_total": 1}, "devices": [{"type": "cuda"}]}
QUEUE = {"queue_running": [[0, "id-1", {"3": {"class_type": "KSampler"}}, {}, ["9"]]], "queue_pending": [[1, "id-2"], [2, "id-3"]]}


def serving(pages, *, key=None):
    """A server that has these pages, and no others: a status, an object or bytes. Its `asked` are the paths it was asked for."""
    async def page(request):
        asked.append(request.path)
        if key is not None and request.headers.get("Authorization") != f"Bearer {key}":
            return web.Response(status=401)
        body = pages.get(request.path, 404)
        if isinstance(body, int):
            return web.Response(status=body)
        return web.Response(body=body if isinstance(body, bytes) else json.dumps(body).encode())

    asked = []
    app = web.Application()
    app.router.add_get("/{path:.*}", page)
    server = TestServer(app)
    server.asked = asked
    return server


def url_of(server):
    """Where it listens."""
    return str(server.make_url("/"))
