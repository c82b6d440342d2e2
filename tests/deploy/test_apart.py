"""docs/deploy.md, "Apart, with TLS", by its own commands: sidecar, engine and meter in three network namespaces."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.deploy import spaces
from tests.engines import vllm_cpu

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "deploy.md").read_text()
BLOCKS = {block.partition("\n")[0].removeprefix("# ").partition(";")[0]: block for block in re.findall(r"(?ms)^```bash\n(.*?)^```", PAGE)}
MAKE, AWAY, ONCE = BLOCKS["as root: a bridge, and three namespaces at it"], BLOCKS["as root: away with them"], BLOCKS["once"]
VLLM = os.environ.get("PERJOULE_APART_VLLM", "")  # the Python of a real vLLM, which starts for minutes; else ours under its command line
PATIENCE_S = 300.0 if VLLM else 60.0


class Hosts:
    """Three namespaces in which blocks of the page are run, in one folder that all of them see."""

    def __init__(self, folder):
        self.folder, self.running = folder, {}
        for name, module in (("vllm", "tests.deploy.vllm"), ("perjoule", "perjoule.main")):
            (folder / name).write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m {module} "$@"\n')
            (folder / name).chmod(0o755)
        if VLLM:
            model, flags = folder / "model", " ".join(vllm_cpu.FLAGS)
            subprocess.run([VLLM, Path(vllm_cpu.__file__).with_name("tiny_model.py"), model], check=True, timeout=PATIENCE_S)
            settings = " ".join(f"{name}={value}" for name, value in vllm_cpu.ENVIRONMENT.items())
            (folder / "vllm").write_text(f'#!/bin/sh\nname=$2; shift 2\nexec env {settings} {VLLM} -m vllm.entrypoints.openai.api_server '
                                         f'--model={model} --served-model-name="$name" {flags} "$@"\n')
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PERJOULE_")}
        self.environment = kept | {"PATH": f"{folder}:{os.environ['PATH']}", "ENERGY": "simulated", "XDG_STATE_HOME": str(folder / "state")}

    def start(self, space, block):
        """It runs until `stop`; what it says is in a file of its name."""
        with (self.folder / f"{space}.log").open("ab") as log:
            command = ["ip", "netns", "exec", space, "bash", "-c", block]
            self.running[space] = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, env=self.environment,
                                                   start_new_session=True)

    def stop(self, space):
        vllm_cpu.end_group(self.running.pop(space))

    def ask(self, space, block):
        """Its standard output."""
        return subprocess.run(["ip", "netns", "exec", space, "bash", "-c", block], cwd=self.folder, env=self.environment, text=True,
                              capture_output=True, check=False, timeout=PATIENCE_S).stdout

    def said(self):
        return "".join(f"--- {log.name}\n{log.read_text()}" for log in self.folder.glob("*.log"))


@pytest.fixture
def hosts(tmp_path):
    """The page's namespaces, gone at the end whatever happened."""
    if not spaces.available() or shutil.which("openssl") is None or shutil.which("curl") is None:
        pytest.skip("no network namespaces here (root, iproute2, openssl and curl)")
    with spaces.alone():
        subprocess.run(["bash", "-c", AWAY], capture_output=True, check=False)
        made = Hosts(tmp_path)
        try:
            subprocess.run(["bash", "-ec", MAKE], check=True, capture_output=True, text=True)
            subprocess.run(["bash", "-ec", ONCE], check=True, capture_output=True, text=True, cwd=tmp_path)
            yield made
        finally:
            for space in list(made.running):
                made.stop(space)
            subprocess.run(["bash", "-c", AWAY], capture_output=True, check=False)


def asked_until(hosts, wanted):
    """The page's client, again until its answer shows that."""
    give_up_s = time.monotonic() + PATIENCE_S
    while True:
        answer = hosts.ask("pj-sidecar", BLOCKS["a client, on the sidecar's host"])
        if re.search(wanted, answer, re.IGNORECASE):
            return answer
        assert time.monotonic() < give_up_s, answer + hosts.said()
        time.sleep(0.2)


def test_the_page_is_enough(hosts):
    """Whatever comes last: the sidecar serves without the meter, and gives joules once it is there."""
    hosts.start("pj-sidecar", BLOCKS["on the sidecar's host"])
    hosts.start("pj-engine", BLOCKS["on engine.internal"])
    asked_until(hosts, "200 OK\n(.+\n)*x-energy-status: unavailable")
    hosts.start("pj-meter", BLOCKS["on meter.internal"])
    answer = asked_until(hosts, r"x-energy-status: simulated")
    (joules,) = re.findall(r"(?i)x-energy-joules: ([0-9.]+)", answer)
    assert float(joules) > 0
    setting = hosts.ask("pj-sidecar", "curl -s http://127.0.0.1:9464/energy/setting")
    assert '"energy_clock_off_us":0' in setting.replace(" ", ""), setting
    for place in ("https://engine.internal:8000/health", "https://meter.internal:9465"):  # nobody is believed, and nothing told, without
        assert hosts.ask("pj-sidecar", f"curl -s {place} || echo refused").strip() == "refused"
    assert "is waited for" in (hosts.folder / "pj-sidecar.log").read_text()
