"""The Helm chart and the manifests that it makes: rendered by Helm itself, held against Kubernetes' own schemas, their scripts run."""

import asyncio
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import aiohttp
import pytest
import yaml

from perjoule import __version__
from perjoule.bench.child import child
from perjoule.bench.dialect import MODEL
from perjoule.meter import _parser
from perjoule.sidecar.http.addresses import read_address
from perjoule.sidecar.settings import sources

helm = pytest.importorskip("helm_python", reason="pip install helm-python-sdk: Helm as a library")
schemas = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate: Kubernetes' schemas")

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "deploy" / "helm"))
from render import CHART, HEAD, rendered  # noqa: E402  a script beside the chart

PATIENCE_S = 60.0
VERSIONS = ("1.29", "1.33", "1.37")
OPERATORS = {"ServiceMonitor"}  # kinds that are not Kubernetes' own
VALUES = {
    "its own": {},
    "records in PostgreSQL, spans": {"sidecar": {"ledger": "db", "otlp": "http://c:4318",
                                                 "env": [{"name": "PERJOULE_WORKERS", "value": "2"}]}},
    "DCGM's exporter": {"meter": {"enabled": False}, "sidecar": {"energy": "dcgm:http://dcgm-exporter:9400"}},
    "meters only": {"engine": {"enabled": False}},
    "two boards, no runtime class": {"engine": {"gpus": 2, "runtimeClassName": "", "tolerations": [], "nodeSelector": {"gpu": "h200"}},
                                     "meter": {"runtimeClassName": "", "tolerations": [], "nodeSelector": {}}},
    "nothing of Prometheus'": {"serviceMonitor": {"enabled": False}, "networkPolicy": {"enabled": False}},
}


def objects(**values):
    """What the chart makes, by kind and name."""
    made = [one for one in yaml.safe_load_all(rendered(values)) if one]
    return {(one["kind"], one["metadata"]["name"]): one for one in made}


OURS = objects()
POD = OURS["Deployment", "perjoule-engine"]["spec"]["template"]["spec"]
BOARDS, SIDECAR = POD["initContainers"]
(ENGINE,) = POD["containers"]
(METER,) = OURS["DaemonSet", "perjoule-meter"]["spec"]["template"]["spec"]["containers"]


def environment(container):
    """Its variables, secrets under their key's name."""
    return {one["name"]: one.get("value") or one["valueFrom"]["secretKeyRef"]["key"] for one in container["env"]}


def test_helm_has_nothing_to_say():
    """`helm lint`; and the chart deploys this version."""
    assert helm.lint(str(CHART))["errors"] == []
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == __version__


def test_the_manifests_are_what_the_chart_makes():
    """Who changes one runs `python deploy/helm/render.py`, too."""
    assert (ROOT / "deploy" / "kubernetes" / "perjoule.yaml").read_text() == HEAD + rendered({})


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_kubernetes_takes_each_object(values, version):
    """By its schema, strictly: a misspelt field is none."""
    for (kind, _), one in objects(**values).items():
        if kind not in OPERATORS:
            schemas.validate(one, version, strict=True)


@pytest.mark.parametrize("values", [{"engin": {}}, {"engine": {"gpus": 0}}, {"meter": {"enabled": "yes"}}, {"secret": ""},
                                    {"meter": {"enabled": False}}], ids=str)
def test_what_cannot_work_is_refused(values):
    """By the chart's schema, before anything is made; joules from nowhere by the chart."""
    with pytest.raises(helm.HelmError):
        rendered(values)


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_what_selects_finds(values):
    """Services, policies and the monitor select pods or services that there are, by ports that these have."""
    there = objects(**values)
    pods = {name: one["spec"]["template"] for (kind, name), one in there.items() if kind in ("Deployment", "DaemonSet")}

    def found(labels):
        ((_, pod),) = [each for each in pods.items() if labels.items() <= each[1]["metadata"]["labels"].items()]
        parts = [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
        return {port["name"] for part in parts for port in part.get("ports", [])}

    for (kind, _), one in there.items():
        spec = one["spec"]
        if kind == "Service":
            assert {port["targetPort"] for port in spec["ports"]} <= found(spec["selector"])
        elif kind == "NetworkPolicy":
            assert {port["port"] for rule in spec["ingress"] for port in rule["ports"]} <= found(spec["podSelector"]["matchLabels"])
        elif kind == "ServiceMonitor":
            (service,) = [each for (its, _), each in there.items()
                          if its == "Service" and spec["selector"]["matchLabels"].items() <= each["metadata"]["labels"].items()]
            assert {end["port"] for end in spec["endpoints"]} <= {port["name"] for port in service["spec"]["ports"]}
            assert service["metadata"]["labels"][spec["jobLabel"]] == "perjoule"  # what the alerts ask for
        else:
            assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()


def test_our_containers_have_no_rights():
    """No root, nothing to write but volumes, no capability; none of them takes a board but for a moment."""
    for container in (BOARDS, SIDECAR, METER):
        rights = container["securityContext"]
        assert rights["runAsNonRoot"]
        assert rights["readOnlyRootFilesystem"]
        assert not rights["allowPrivilegeEscalation"]
        assert rights["capabilities"] == {"drop": ["ALL"]}
    assert "nvidia.com/gpu" not in str([SIDECAR["resources"], METER["resources"]])
    assert BOARDS["resources"]["limits"]["nvidia.com/gpu"] == ENGINE["resources"]["limits"]["nvidia.com/gpu"]
    assert SIDECAR["restartPolicy"] == "Always"


def test_every_setting_is_one(tmp_path):
    """The sidecar's variables and the meter's flags are read as they would be, and lead the one to the other and to the engine."""
    (tmp_path / "perjoule.toml").write_text('gpus = "GPU-1"\n')
    config = sources.load({"config": str(tmp_path / "perjoule.toml")}, environment(SIDECAR))
    assert config.gpus == "GPU-1"
    assert f"--port={config.upstream.rpartition(':')[2]}" in ENGINE["args"]
    assert "--host=127.0.0.1" in ENGINE["args"]
    meter = _parser().parse_args(METER["args"][1:])
    told = read_address(config.energy.removeprefix("meter:"))
    assert (told.host, told.port) == ("perjoule-meter", read_address(meter.listen).port)
    assert {name for name in environment(SIDECAR) if name.startswith("PERJOULE_")} - {"PERJOULE_ADMIN_TOKEN", "PERJOULE_ENERGY_TOKEN"} <= {
        f"PERJOULE_{name.upper()}" for name in config.__slots__}


def test_the_boards_of_the_pod_are_written_down(tmp_path):
    """The init container's script, with NVML's answers for two boards."""
    (tmp_path / "pynvml.py").write_text(
        "def nvmlInit(): pass\ndef nvmlDeviceGetCount(): return 2\ndef nvmlDeviceGetHandleByIndex(place): return place\n"
        "def nvmlDeviceGetUUID(place): return f'GPU-{place}'\n")
    command = [sys.executable, *BOARDS["command"][1:], BOARDS["args"][0].replace("/run/perjoule", str(tmp_path))]
    subprocess.run(command, check=True, env={"PYTHONPATH": str(tmp_path)}, timeout=PATIENCE_S)
    assert tomllib.loads((tmp_path / "perjoule.toml").read_text()) == {"gpus": "GPU-0,GPU-1"}


async def test_the_engine_is_held_until_nothing_runs():
    """Its preStop ends when the last request has, and no sooner; and it leaves time for the sidecar."""
    script = ENGINE["lifecycle"]["preStop"]["exec"]["command"][2]
    drain_s = int(re.search(r"monotonic\(\) \+ (\d+)", script)[1])
    assert POD["terminationGracePeriodSeconds"] >= drain_s + 40
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 400, "stream": True, "ignore_eos": True}
    async with child("perjoule.bench.engine", "--port", "0", "--speed", "2") as engine, aiohttp.ClientSession() as session:
        script = script.replace("http://127.0.0.1:8001", engine["url"]).replace("time.sleep(5)", "time.sleep(0)")
        async with session.post(engine["url"] + "/v1/chat/completions", json=body) as answer:
            await answer.content.readline()
            held = await asyncio.create_subprocess_exec(sys.executable, "-c", script, env=dict(os.environ))
            running = asyncio.ensure_future(held.wait())
            async for line in answer.content:
                if b"[DONE]" in line:
                    break
                assert not running.done()
        assert await asyncio.wait_for(running, PATIENCE_S) == 0
