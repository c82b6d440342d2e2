"""docs/metrics.md is what its writer writes, and every expression on it is one that Prometheus understands."""

import json
import re
import shutil
import subprocess

import pytest

from perjoule.bench.metrics_page import PAGE, QUESTIONS, page
from perjoule.sidecar import telemetry


def test_the_page_is_up_to_date():
    """Run `python -m perjoule.bench.metrics_page` after a change of sidecar/telemetry.py."""
    assert PAGE.read_text() == page()


def test_every_question_is_promql_about_metrics_that_exist(tmp_path):
    """promtool takes each as a rule; the names in them are of the page (a histogram's with its ending)."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed; tests/run does that as root")
    rules = [{"record": f"question:{number}", "expr": expression} for number, (_, expression) in enumerate(QUESTIONS)]
    file = tmp_path / "rules.json"  # which is YAML, too
    file.write_text(json.dumps({"groups": [{"name": "questions", "rules": rules}]}))
    judged = subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True, timeout=60, check=False)
    assert judged.returncode == 0, judged.stdout + judged.stderr
    assert f"{len(QUESTIONS)} rules found" in judged.stdout
    known = {metric.name + ending for metric in telemetry.METRICS for ending in ("", "_bucket")}
    assert {name for _, expression in QUESTIONS for name in re.findall(r"perjoule_[a-z_]+", expression)} <= known
