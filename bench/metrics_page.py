"""Writes docs/metrics.md from the metrics' own data: `python -m perjoule.bench.metrics_page`; a test holds the page to it.

What follows from the data is in the tables: name, kind, unit, labels, the name over OTLP, buckets. What does not is said here.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from perjoule.sidecar import telemetry
from perjoule.sidecar.records.tally import LINES, MODELS, TENANTS
from perjoule.sidecar.telemetry import Metric

PAGE = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"

OPENING = f"""\
# Metrics

`/metrics` on the operator's port speaks the Prometheus text format and, to who asks, OpenMetrics with exemplars: each bucket names the
trace of the latest request in it. With `--otlp` the same numbers are sent over OTLP every minute ([telemetry.md](telemetry.md#metrics)).
What is unknown is absent, never 0: without an energy source there is no joule in the scrape. Simulated joules say so in every series.

This page is written by `python -m perjoule.bench.metrics_page` from `sidecar/telemetry.py`.

## Labels

| label | over OTLP | values |
|---|---|---|
| `model` | `{telemetry.LABELS["model"]}` | what the request named: the first {MODELS}, then `other`; `unknown` named none |
| `tenant` | `{telemetry.LABELS["tenant"]}` | whose key it was: the first {TENANTS}, then `other`; `unknown` had none |
| `endpoint` | `{telemetry.LABELS["endpoint"]}` | the route, as in [the record](records.md) |
| `engine` | `{telemetry.LABELS["engine"]}` | the engine; over OTLP `gen_ai.operation.name` comes with it |
| `outcome` | `{telemetry.LABELS["outcome"]}` | `completed`, `errored` or `cancelled` |
| `phase` | `{telemetry.LABELS["phase"]}` | `prefill` or `decode` |
| `direction` | `{telemetry.LABELS["direction"]}` | `input` or `output` |
| `status` | `{telemetry.LABELS["status"]}` | the kind of joule, [as in the record](records.md#what-it-cost) |
| `source` | `{telemetry.LABELS["source"]}` | where joules are read: `nvml`, `simulated`, … |
| `gpu` | `{telemetry.LABELS["gpu"]}` | the board's UUID |
| `unit` | `{telemetry.LABELS["unit"]}` | `image`, `video_second` or `audio_second` |
| `sink` | `{telemetry.LABELS["sink"]}` | `ledger`, `otlp`, … |
| `result` | `{telemetry.LABELS["result"]}` | `sent` or `failed` |
"""

SECTIONS: Sequence[tuple[str, str, Sequence[Metric]]] = (
    ("Requests", f"""\
They are counted when a request is settled, up to a quarter of a second after its end. The buckets of times and tokens are those of the
OpenTelemetry GenAI conventions. A request's energy is one number in a histogram, and split by phase in a counter. Whoever names many
models on many routes gets no more series than for {LINES} of their combinations: beyond, each model is `other`.""",
     (telemetry.REQUESTS, telemetry.REQUEST_JOULES, telemetry.TOKENS, telemetry.CACHED_TOKENS, telemetry.REASONING_TOKENS,
      telemetry.UNITS, telemetry.UNIT_JOULES, telemetry.STEADY_JOULES, telemetry.STEADY_SECONDS, telemetry.DURATION,
      telemetry.FIRST_TOKEN, telemetry.TOKEN_TIME, telemetry.TOKEN_SIZES, telemetry.ENERGY_SIZES, telemetry.IN_FLIGHT)),
    ("Tenants", """\
Who has more than that many should ask the ledger, which knows each ([records.md](records.md)).""",
     (telemetry.TENANT_REQUESTS, telemetry.TENANT_JOULES, telemetry.TENANT_TOKENS)),
    ("The balance", """\
The first is the sum of the next three, at every scrape. Inside, that holds exactly, in integer microjoules (`/energy/balance` shows it);
in a scrape, up to the rounding of float64. Of what is attributed to requests, a part belongs to some that still run: those whose record
is settled are the last of the table, and the sum of `perjoule_tenant_joules_total` over all its labels.""",
     (telemetry.MEASURED_JOULES, telemetry.REQUESTS_JOULES, telemetry.IDLE_JOULES, telemetry.UNATTRIBUTED_JOULES,
      telemetry.SETTLED_JOULES)),
    ("Boards", """\
A board's joules count from the first change of its counter that was seen, the balance from the moment when every board was. Processes of
others on a board are said where the driver tells ([groups.md](groups.md)): their joules are counted as the engine's requests'.""",
     (telemetry.POWER_WATTS, telemetry.BOARD_JOULES, telemetry.BOARD_WATTS, telemetry.BOARD_PROCESSES)),
)
REST = ("The meter itself", """\
Two alerts are worth having: `rate(perjoule_outbox_dropped_records_total[5m]) > 0` (records are being lost) and
`rate(perjoule_sampler_reads_total[1m]) == 0` (joules are missing). More are in [grafana.md](grafana.md).""")

QUESTIONS = (
    ("does the balance hold? (0, up to rounding)",
     " - ".join(metric.name for metric in (telemetry.MEASURED_JOULES, telemetry.REQUESTS_JOULES, telemetry.IDLE_JOULES,
                                           telemetry.UNATTRIBUTED_JOULES))),
    ("is every settled joule somebody's? (0, up to rounding)",
     f"sum({telemetry.SETTLED_JOULES.name}) - sum({telemetry.TENANT_JOULES.name})"),
    ("joules per output token, by model",
     (f"sum by (model) (rate({telemetry.REQUEST_JOULES.name}[5m]))"
      f" / sum by (model) (rate({telemetry.TOKENS.name}{{direction=\"output\"}}[5m]))")),
    ("joules of a request, 95th percentile, by model",
     f"histogram_quantile(0.95, sum by (le, model) (rate({telemetry.ENERGY_SIZES.name}_bucket[5m])))"),
    ("time per output token, median, by model",
     f"histogram_quantile(0.5, sum by (le, model) (rate({telemetry.TOKEN_TIME.name}_bucket[5m])))"),
    ("kilowatt hours of each tenant in a day", f"sum by (tenant) (increase({telemetry.TENANT_JOULES.name}[1d])) / 3.6e6"),
    ("the share of energy spent on requests that nobody received",
     f"sum(rate({telemetry.REQUEST_JOULES.name}{{outcome!=\"completed\"}}[1h])) / sum(rate({telemetry.REQUEST_JOULES.name}[1h]))"),
    ("the share of energy that was idle", f"rate({telemetry.IDLE_JOULES.name}[1h]) / rate({telemetry.MEASURED_JOULES.name}[1h])"),
    ("the share of requests' energy in steady windows",
     f"sum(rate({telemetry.STEADY_JOULES.name}[1h])) / sum(rate({telemetry.REQUEST_JOULES.name}[1h]))"),
)


def page() -> str:
    """The whole page."""
    told = {metric for _, _, metrics in SECTIONS for metric in metrics}
    title, text = REST
    rest = tuple(metric for metric in telemetry.METRICS if metric not in told)
    parts = [OPENING, *(_section(*section) for section in SECTIONS), _section(title, text, rest), _buckets(),
             _questions()]
    return "\n".join(parts)


def _section(title: str, text: str, metrics: Sequence[Metric]) -> str:
    head = f"## {title}\n\n| metric | kind | labels | over OTLP | meaning |\n|---|---|---|---|---|\n"
    return head + "".join(f"{row}\n" for row in map(_row, metrics)) + f"\n{text}\n"


def _row(metric: Metric) -> str:
    kind = f"{metric.kind}, {metric.unit.strip('{}')}" if metric.unit else str(metric.kind)
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    over = "the resource" if metric.name.endswith("_info") else f"`{metric.otlp_name}`"
    return f"| `{metric.name}` | {kind} | {labels} | {over} | {metric.help[0].lower() + metric.help[1:]} |"


def _buckets() -> str:
    rows = [f"| {metric.name.removeprefix('perjoule_')} | {' '.join(f'{bound:.12g}' for bound in metric.buckets)} |"
            for metric in telemetry.METRICS if metric.buckets]
    return "## Buckets\n\n| histogram | bounds |\n|---|---|\n" + "\n".join(rows) + "\n"


def _questions() -> str:
    asked = "\n\n".join(f"# {question}\n{_wrapped(expression)}" for question, expression in QUESTIONS)
    return f"## Useful questions\n\n```promql\n{asked}\n```\n"


def _wrapped(expression: str) -> str:
    """A long expression in lines, broken before its operators."""
    return expression if len(expression) <= 100 else expression.replace(" / ", "\n  / ").replace(" - ", "\n  - ")


def main() -> int:
    """Write the page."""
    PAGE.write_text(page())
    print(f"wrote {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
