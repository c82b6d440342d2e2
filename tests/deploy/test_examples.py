"""deploy/examples: held against Kubernetes' schemas and ours, the Ray Serve application run on a cluster of two nodes."""

import asyncio
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import aiohttp
import pytest
import yaml

from perjoule.sidecar.settings import sources
from tests.fakes import postgres

EXAMPLES = Path(__file__).parents[2] / "deploy" / "examples"
KSERVE = yaml.safe_load((EXAMPLES / "kserve" / "inferenceservice.yaml").read_text())["spec"]["predictor"]
STACK = yaml.safe_load((EXAMPLES / "production-stack" / "sidecar.yaml").read_text())["spec"]["template"]["spec"]
RAY = os.environ.get("PERJOULE_RAY_PYTHON", "")
PATIENCE_S = 120.0
MODEL = "Qwen/Qwen3-8B"


@pytest.mark.parametrize("pod", [KSERVE, STACK], ids=["kserve", "production-stack"])
def test_the_pod_is_one_and_the_sidecar_finds_its_engine(pod):
    """By Kubernetes' schema; every variable is a setting; the boards are written where the sidecar reads them."""
    schemas = pytest.importorskip("kubernetes_validate")
    whole = pod | {"containers": [{"image": "vllm/vllm-openai:v0.25.1"} | container for container in pod["containers"]]}
    schemas.validate({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "any"}, "spec": whole}, "1.33", strict=True)
    boards, sidecar = pod["initContainers"]
    told = {one["name"]: one["value"] for one in sidecar["env"] if "value" in one}
    assert sources.load({}, told).upstream == "http://127.0.0.1:8001"
    assert sidecar["args"][2] in boards["args"][0]
    assert sidecar["restartPolicy"] == "Always"


def test_the_engine_moves_and_the_sidecar_takes_its_port():
    """What the stack leads to is the sidecar's port; the engine's is on loopback."""
    values = yaml.safe_load((EXAMPLES / "production-stack" / "values.yaml").read_text())["servingEngineSpec"]
    ports = {"kserve": KSERVE["containers"][0]["ports"][0]["containerPort"], "stack": values["containerPort"]}
    for pod, port, words in ((KSERVE, ports["kserve"], KSERVE["containers"][0]["args"]),
                             (STACK, ports["stack"], values["modelSpec"][0]["vllmConfig"]["extraArgs"])):
        listen = next(one["value"] for one in pod["initContainers"][1]["env"] if one["name"] == "PERJOULE_LISTEN")
        assert listen == f"0.0.0.0:{port}"
        assert {"127.0.0.1", "8001"} <= set(" ".join(words).replace("=", " ").split())


CLUSTER = """
import sys
from app import build
from ray import serve
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "dashboard_host": "127.0.0.1"})
cluster.add_node(num_cpus=2)
cluster.connect()
serve.start(http_options={"port": int(sys.argv[2])})
serve.run(build({"model": sys.argv[3], "replicas": "2", "boards": "0", "energy": "simulated", "ledger": sys.argv[1]}))
print("up", flush=True)
sys.stdin.readline()
serve.shutdown()
cluster.shutdown()
"""


@pytest.mark.skipif(not RAY or not postgres.IS_THERE, reason="PERJOULE_RAY_PYTHON names the Python of an environment with ray[serve]")
async def test_replicas_on_several_nodes_write_to_one_ledger(tmp_path):
    """Every request has its record there, whichever sidecar wrote it, and each sidecar's own account adds up."""
    from perjoule.adapters.ledger.store import Ledger

    for name, module in (("vllm", "tests.deploy.vllm"), ("perjoule", "perjoule.main")):
        (tmp_path / name).write_text(f'#!/bin/sh\nPYTHONPATH={Path(__file__).parents[2]} exec {sys.executable} -m {module} "$@"\n')
        (tmp_path / name).chmod(0o755)
    port = 18_000 + os.getpid() % 1000
    with postgres.postgres() as server:
        url = server.fresh()
        cluster = await asyncio.create_subprocess_exec(
            RAY, "-c", CLUSTER, url, str(port), MODEL, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=dict(os.environ) | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "RAY_USAGE_STATS_ENABLED": "0",
                                    "PYTHONPATH": str(EXAMPLES / "ray-serve")})
        try:
            async with asyncio.timeout(PATIENCE_S):
                while (line := await cluster.stdout.readline()) != b"up\n":
                    assert line, "the cluster has ended"
            async with aiohttp.ClientSession() as session:
                async def ask(number, stream):
                    body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 20, "stream": stream}
                    async with session.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body,
                                            headers={"X-Request-Id": f"r{number}"}) as answer:
                        assert answer.status == 200
                        return await answer.read()

                answers = await asyncio.gather(*(ask(number, bool(number % 2)) for number in range(40)))
            assert sum(b": energy {" in answer for answer in answers) == 20
        finally:
            cluster.stdin.close()
            await asyncio.wait_for(cluster.wait(), PATIENCE_S)
        with closing(Ledger(url)) as ledger:
            records = [record for number in range(40) for record in [ledger.get(f"r{number}")] if record is not None]
    assert len(records) == 40
    assert len({record["instance_id"] for record in records}) == 2
