"""The dashboards and the alert rules, against a real Prometheus that scrapes a real sidecar under traffic."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from perjoule.sidecar import telemetry
from tests.deploy.monitored import PROMETHEUS, TENANTS, monitored

ROOT = Path(__file__).parents[2]
GRAFANA = ROOT / "deploy" / "grafana"
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((GRAFANA / "dashboards").glob("*.json"))}
PANELS = {f"{name}: {panel['title']}": panel for name, board in DASHBOARDS.items() for panel in board["panels"]}
RULES = (PROMETHEUS / "perjoule.rules.yml").read_text()
ALERTS = re.findall(r"alert: (\w+)", RULES)
PATIENCE_S = 90.0


def needs(program):
    """Skips without Debian's package `prometheus`, and fails so in CI."""
    if shutil.which(program) is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no {program}: apt-get install prometheus")


def asked(text):
    """An expression as Grafana would send it, with all sidecars, models and tenants."""
    text = text.replace("$__rate_interval", "20s").replace("$__range", "1m")
    text = re.sub(r"\$(instance|model|tenant)\b", ".*", text)
    assert "$" not in text, text
    return text


def test_the_dashboards_are_what_the_generator_writes(tmp_path):
    """Who changes a panel runs `python deploy/grafana/generate.py`, too."""
    subprocess.run([sys.executable, GRAFANA / "generate.py", tmp_path], check=True, timeout=60)
    made = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    assert made == DASHBOARDS


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_can_be_read(name):
    """Panels do not lie on each other, have a unit and a description, and name the chosen data source; links and variables are there."""
    board = DASHBOARDS[name]
    assert board["uid"] == f"perjoule-{name}"
    assert board["id"] is None
    cells = [(x, y) for panel in board["panels"] for place in [panel["gridPos"]] for x in range(place["x"], place["x"] + place["w"])
             for y in range(place["y"], place["y"] + place["h"])]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in board["panels"]}) == len({panel["title"] for panel in board["panels"]}) == len(board["panels"])
    for panel in board["panels"]:
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert {one["datasource"]["uid"] for one in [panel, *panel["targets"]]} == {"${datasource}"}
    used = set(re.findall(r"\$(\w+)", json.dumps([panel["targets"] for panel in board["panels"]])))
    chosen = {variable["name"] for variable in board["templating"]["list"]}
    assert used - {"__rate_interval", "__range"} <= chosen
    assert chosen <= used | {"datasource"}


@pytest.mark.parametrize("title", PANELS)
def test_a_joule_is_shown_with_its_kind(title):
    """Wherever a panel shows joules or watts, the legend, or the column beside, says of which kind they are."""
    panel = PANELS[title]
    if panel["type"] in ("heatmap", "table") or panel["fieldConfig"]["defaults"]["unit"] not in ("joule", "watt"):
        return
    assert all("{{status}}" in target["legendFormat"] for target in panel["targets"])
    assert panel["type"] != "stat" or panel["options"]["textMode"] == "value_and_name"


def test_panels_and_rules_name_metrics_that_there_are():
    """Every `perjoule_…` in a question is one of sidecar/telemetry.py, and has the labels that it is asked for."""
    metrics = {name: metric for metric in telemetry.METRICS for name in (
        [f"{metric.name}_bucket"] if metric.kind is telemetry.Kind.HISTOGRAM else [metric.name])}
    texts = [target["expr"] for panel in PANELS.values() for target in panel["targets"]]
    for text in texts + re.findall(r"(?m)^ +expr: ((?:.|\n {10,})+)", RULES):
        for name, where in re.findall(r"\b(perjoule_\w+)(?:\{(.*?)\})?", text):
            assert name in metrics, text
            assert set(re.findall(r"(\w+)=", where)) <= {*metrics[name].labels, "instance", "job"}, text


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_what_to_do(alert):
    """Each has a section in docs/grafana.md, and its link leads there; each is fired by a unit test of the rules."""
    assert f"runbook_url: docs/grafana.md#{alert.lower()}\n" in RULES
    assert f"\n### {alert}\n" in (ROOT / "docs" / "grafana.md").read_text()
    fired = re.findall(rf"- alertname: {alert}\n +eval_time: \w+\n +exp_alerts:\n", (PROMETHEUS / "perjoule.rules.test.yml").read_text())
    assert fired


@pytest.mark.parametrize("command", [
    ("check", "rules", "perjoule.rules.yml"), ("check", "config", "prometheus.yml"), ("test", "rules", "perjoule.rules.test.yml")],
    ids=" ".join)
def test_promtool_is_content(command):
    """The rules parse, the configuration loads, and each alert fires when it should and not before."""
    needs("promtool")
    done = subprocess.run(["promtool", *command], cwd=PROMETHEUS, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
async def test_no_panel_is_without_data(tmp_path):
    """Every question of every panel has an answer, every variable has values, all rules load, and the right alerts fire for real."""
    needs("prometheus")
    async with monitored(tmp_path) as running:
        missing = {(title, target["refId"]): asked(target["expr"]) for title, panel in PANELS.items() for target in panel["targets"]}
        give_up_s = time.monotonic() + PATIENCE_S
        while missing and time.monotonic() < give_up_s:
            await running.visits()
            answers = await asyncio.gather(*map(running.series, missing.values()))
            missing = {which: expr for (which, expr), found in zip(missing.items(), answers, strict=True) if not found}
        assert missing == {}
        for board in DASHBOARDS.values():
            for variable in board["templating"]["list"][1:]:
                metric, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()
                values = await running.ask(f"label/{label}/values", **{"match[]": asked(metric)})
                assert values, variable["name"]
                assert label != "tenant" or set(TENANTS) <= set(values)
        shown = {one["metric"]["status"] for one in await running.series(asked(PANELS["conservation: Measured"]["targets"][0]["expr"]))}
        assert shown == {"simulated"}
        for title, panel in PANELS.items():
            if panel["fieldConfig"]["defaults"]["unit"] == "percentunit":
                shares = [float(one["value"][1]) for one in await running.series(asked(panel["targets"][0]["expr"]))]
                assert all(-0.1 < share < 1.1 for share in shares), title  # Prometheus extrapolates
        for title in ("conservation: Missing", "conservation: Missing, by sidecar"):
            (gone,) = await running.series(asked(PANELS[title]["targets"][0]["expr"]))
            assert abs(float(gone["value"][1])) < 1e-6
        rules = [rule for group in (await running.ask("rules"))["groups"] for rule in group["rules"]]
        assert {rule["name"] for rule in rules if rule["type"] == "alerting"} == set(ALERTS)
        assert {rule["health"] for rule in rules} == {"ok"}
        fired, expected = set(), {"PerjouleDown", "PerjouleSimulated"}
        while not expected <= fired and time.monotonic() < give_up_s:
            fired |= {alert["labels"]["alertname"] for alert in (await running.ask("alerts"))["alerts"] if alert["state"] == "firing"}
            await asyncio.sleep(0.1)
        assert fired - {"PerjouleUnattributedHigh"} == expected  # on a busy machine the counter falls silent
