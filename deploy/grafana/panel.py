"""One panel, as a person writes it down and as Grafana reads it."""

from dataclasses import dataclass, field
from typing import Any

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLORS = {"requests": "green", "idle": "#808080", "unattributed": "red", "completed": "green", "errored": "red", "cancelled": "orange"}


@dataclass(frozen=True)
class Panel:
    """What is asked, as (PromQL, legend), and how it is drawn: `stat`, `timeseries`, `stacked`, `bargauge`, `heatmap` or `table`."""

    title: str
    unit: str
    description: str
    asks: tuple[tuple[str, str], ...]
    kind: str = "timeseries"
    width: int = 12
    units: dict[str, str] = field(default_factory=dict)  # of a table: by the name of a column

    @property
    def height(self) -> int:
        """In rows of the grid."""
        return 4 if self.kind == "stat" else 9

    def as_json(self, number: int, x: int, y: int) -> dict[str, Any]:
        """The panel as Grafana reads it."""
        instant = self.kind in ("stat", "bargauge", "table")
        form = {"table": "table", "heatmap": "heatmap"}.get(self.kind, "time_series")
        targets = [{"refId": chr(65 + place), "datasource": DATASOURCE, "editorMode": "code", "expr": expr, "legendFormat": legend,
                    "instant": instant, "range": not instant, "format": form} for place, (expr, legend) in enumerate(self.asks)]
        return {"id": number, "type": "timeseries" if self.kind == "stacked" else self.kind, "title": self.title,
                "description": self.description, "datasource": DATASOURCE,
                "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height}, "targets": targets,
                "fieldConfig": {"defaults": self._defaults(), "overrides": self._overrides()}, "options": self._options(),
                **({"transformations": self._joined()} if self.kind == "table" else {})}

    def _defaults(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"unit": self.unit, "noValue": "not known"}
        if self.kind == "stat" and self.unit == "none":
            shown["decimals"] = 0  # Prometheus extrapolates
        if self.kind in ("timeseries", "stacked"):
            stacked = self.kind == "stacked"
            stacking = {"mode": "normal" if stacked else "none", "group": "A"}
            shown |= {"min": 0, "custom": {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 50 if stacked else 10,
                                           "showPoints": "never", "spanNulls": False, "stacking": stacking}}
        return shown

    def _overrides(self) -> list[dict[str, Any]]:
        colored = [(f"/^{word}/", {"id": "color", "value": {"mode": "fixed", "fixedColor": color}}) for word, color in COLORS.items()
                   if any(legend.startswith((word, "{{outcome}}")) for _, legend in self.asks)]
        units = [(f"/^{name}$/", {"id": "unit", "value": unit}) for name, unit in self.units.items()]
        return [{"matcher": {"id": "byRegexp", "options": name}, "properties": [what]} for name, what in colored + units]

    def _options(self) -> dict[str, Any]:
        reduced = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        text = "value_and_name" if self.asks[0][1] else "value"  # the name is the kind of joules
        return {
            "stat": {"reduceOptions": reduced, "textMode": text, "colorMode": "none", "graphMode": "none", "orientation": "auto"},
            "bargauge": {"reduceOptions": reduced, "displayMode": "basic", "orientation": "horizontal", "namePlacement": "top",
                         "showUnfilled": True, "text": {"titleSize": 14, "valueSize": 14}},
            "heatmap": {"calculate": False, "yAxis": {"unit": self.unit}, "cellGap": 1, "color": {"mode": "scheme", "scheme": "Oranges"}},
            "table": {"showHeader": True, "cellHeight": "sm"},
        }.get(self.kind, {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
                          "tooltip": {"mode": "multi", "sort": "desc"}})

    def _joined(self) -> list[dict[str, Any]]:
        """The answers to several questions as one table."""
        order = {name: place for place, name in enumerate(("instance", "tenant", "source", "status", "version"))}
        names = {f"Value #{chr(65 + place)}": legend for place, (_, legend) in enumerate(self.asks)}
        return [{"id": "merge", "options": {}}, {
            "id": "organize", "options": {"excludeByName": {"Time": True}, "indexByName": order, "renameByName": names}}]


def stat(title: str, unit: str, description: str, expr: str, *, each: str = "status", width: int = 4) -> Panel:
    """One number for each value of a label; the label of joules is their kind."""
    return Panel(title, unit, description, ((expr, f"{{{{{each}}}}}" if each else ""),), "stat", width)
