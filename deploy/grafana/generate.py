"""Writes the Grafana dashboards: `python deploy/grafana/generate.py` into `dashboards/`, or into the folder that is named.

They are one table of panels, four times (`tables.py`); written as JSON by hand, four thousand lines would say less. Every joule that a
panel shows is shown with its kind (`measured`, `simulated`, …), which is asked of the sidecar that counted it.
"""

import json
import sys
from pathlib import Path
from typing import Any

from panel import DATASOURCE, Panel
from promql import HERE
from tables import CONSERVATION, FLEET, ONE_MODEL, ONE_TENANT

FOLDER = Path(__file__).parent / "dashboards"
SCHEMA_VERSION = 39  # Grafana 11; later ones read it
COLUMNS = 24


def variable(name: str, label: str, query: str) -> dict[str, Any]:
    """A choice above the panels; all of them unless somebody chooses."""
    return {"name": name, "label": label, "type": "query", "datasource": DATASOURCE, "multi": True, "hide": 0,
            "includeAll": True, "allValue": ".*", "refresh": 2, "sort": 1, "regex": "", "options": [],
            "current": {"text": ["All"], "value": ["$__all"]},
            "query": {"qryType": 1, "query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"}}


SOURCE = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1, "hide": 0, "regex": "",
          "multi": False, "includeAll": False, "options": []}
INSTANCE = variable("instance", "Sidecar", "label_values(perjoule_requests_in_flight, instance)")
BY_MODEL = variable("model", "Model", f"label_values(perjoule_requests_total{{{HERE}}}, model)")
BY_TENANT = variable("tenant", "Tenant", f"label_values(perjoule_tenant_requests_total{{{HERE}}}, tenant)")
DROPDOWN = {"type": "dashboards", "title": "perjoule", "tags": ["perjoule"], "asDropdown": True, "includeVars": True, "keepTime": True,
            "targetBlank": False, "icon": "external link", "tooltip": "", "url": ""}


def dashboard(name: str, description: str, panels: list[Panel], *variables: dict[str, Any]) -> dict[str, Any]:
    """A whole dashboard, its panels in rows from left to right."""
    placed, x, y, height = [], 0, 0, panels[0].height
    for number, panel in enumerate(panels, 1):
        if x + panel.width > COLUMNS or panel.height != height:
            x, y, height = 0, y + height, panel.height
        placed.append(panel.as_json(number, x, y))
        x += panel.width
    return {"uid": f"perjoule-{name}", "id": None, "title": f"perjoule / {name}", "description": description, "tags": ["perjoule"],
            "schemaVersion": SCHEMA_VERSION, "version": 1, "editable": True, "graphTooltip": 1, "refresh": "30s", "timezone": "browser",
            "time": {"from": "now-1h", "to": "now"}, "timepicker": {}, "fiscalYearStartMonth": 0, "annotations": {"list": []},
            "links": [DROPDOWN], "templating": {"list": [SOURCE, INSTANCE, *variables]}, "panels": placed}


DASHBOARDS = (
    dashboard("fleet", "What all sidecars draw, and what for.", FLEET),
    dashboard("model", "What a model costs, and what it is asked for.", ONE_MODEL, BY_MODEL),
    dashboard("tenant", "Who uses how much.", ONE_TENANT, BY_TENANT),
    dashboard("conservation", "Is every joule accounted for?", CONSERVATION),
)

if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    for made in DASHBOARDS:
        (folder / f"{made['uid'].removeprefix('perjoule-')}.json").write_text(json.dumps(made, indent=2, ensure_ascii=False) + "\n")
