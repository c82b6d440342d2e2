"""Every name that perjoule shows to other software, as data: headers, span attributes, metrics and their buckets.

Names of the OpenTelemetry GenAI conventions are held here as text, since those conventions are in development and move
between repositories; `GENAI_CONVENTIONS` says which state of them was taken. docs/telemetry.md and docs/metrics.md
explain each name, and a test holds them to it.
"""

from dataclasses import dataclass
from enum import StrEnum

GENAI_CONVENTIONS = "OpenTelemetry GenAI semantic conventions v1.41 (development)"
SCHEMA_URL = "https://opentelemetry.io/schemas/1.41.0"
SCOPE = "perjoule"  # the instrumentation scope, and service.name unless OTEL_* says otherwise

DURATION_BUCKETS_S = (.01, .02, .04, .08, .16, .32, .64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""`gen_ai.server.request.duration`, as the conventions advise."""
FIRST_TOKEN_BUCKETS_S = (.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1., 2.5, 5., 7.5, 10.)
"""`gen_ai.server.time_to_first_token`, as the conventions advise."""


class Header(StrEnum):
    """HTTP fields: INCLUDE is what a client asks for, the others are what it is told, in headers or trailers."""

    JOULES = "X-Energy-Joules"
    ACTIVE_JOULES = "X-Energy-Active-Joules"
    METHOD = "X-Energy-Method"
    STATUS = "X-Energy-Status"
    UNCERTAINTY_JOULES = "X-Energy-Uncertainty-Joules"
    RECORD = "X-Energy-Record"
    INCLUDE = "X-Energy-Include"


class Attribute(StrEnum):
    """Span attributes. Those of `perjoule.*` are ours; the unit is the last word where there is one."""

    OPERATION = "gen_ai.operation.name"
    PROVIDER = "gen_ai.provider.name"
    REQUEST_MODEL = "gen_ai.request.model"
    REQUEST_STREAM = "gen_ai.request.stream"
    RESPONSE_MODEL = "gen_ai.response.model"
    RESPONSE_ID = "gen_ai.response.id"
    FINISH_REASONS = "gen_ai.response.finish_reasons"
    TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
    INPUT_TOKENS = "gen_ai.usage.input_tokens"
    CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
    OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
    REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"
    HTTP_METHOD = "http.request.method"
    HTTP_STATUS = "http.response.status_code"
    ERROR_TYPE = "error.type"
    RECORD_ID = "perjoule.record.id"
    REQUEST_ID = "perjoule.request.id"
    ENDPOINT = "perjoule.endpoint"
    OUTCOME = "perjoule.outcome"
    TENANT = "perjoule.tenant"
    QUEUE_SECONDS = "perjoule.queue.seconds"
    INPUT_SOURCE = "perjoule.usage.input_source"
    OUTPUT_SOURCE = "perjoule.usage.output_source"
    ENERGY_STATUS = "perjoule.energy.status"
    ENERGY_METHOD = "perjoule.energy.method"
    ENERGY_SOURCE = "perjoule.energy.source"
    ENERGY_SETTLED = "perjoule.energy.settled"
    ENERGY_JOULES = "perjoule.energy.joules"
    ENERGY_MICROJOULES = "perjoule.energy.microjoules"
    ACTIVE_JOULES = "perjoule.energy.active.joules"
    PREFILL_JOULES = "perjoule.energy.prefill.joules"
    DECODE_JOULES = "perjoule.energy.decode.joules"
    STEADY_JOULES = "perjoule.energy.steady.joules"
    STEADY_SECONDS = "perjoule.energy.steady.seconds"
    UNCERTAINTY_JOULES = "perjoule.energy.uncertainty.joules"
    BOUNDARY = "perjoule.energy.boundary"
    DEVICES = "perjoule.energy.gpu.uuids"
    CALIBRATION_ID = "perjoule.energy.calibration.id"
    WINDOWS = "perjoule.energy.windows"
    CONCURRENCY = "perjoule.energy.concurrency.mean"


OTHER_ERROR = "_OTHER"  # error.type where nothing better is known, as the conventions ask
FIRST_TOKEN_EVENT = "perjoule.first_token"  # noqa: S105  the span event at the first output token


class Kind(StrEnum):
    """What a Prometheus metric is."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One Prometheus metric; `name` is as scraped, with the unit before `_total`."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


REQUESTS = Metric("perjoule_requests_total", Kind.COUNTER, "Requests that ended", ("model", "endpoint", "outcome"))
REQUEST_JOULES = Metric("perjoule_request_joules_total", Kind.COUNTER, "Energy attributed to requests that ended",
                        ("model", "outcome", "phase", "status"))
TOKENS = Metric("perjoule_tokens_total", Kind.COUNTER, "Tokens of requests that ended", ("model", "direction"))
DURATION = Metric("perjoule_request_duration_seconds", Kind.HISTOGRAM, "Arrival to the end of the response",
                  ("model", "endpoint"), DURATION_BUCKETS_S)
FIRST_TOKEN = Metric("perjoule_time_to_first_token_seconds", Kind.HISTOGRAM, "Arrival to the first output token",
                     ("model", "endpoint"), FIRST_TOKEN_BUCKETS_S)

_LEDGER = ("source", "status")
MEASURED_JOULES = Metric("perjoule_energy_measured_joules_total", Kind.COUNTER,
                         "What the energy counter advanced: requests + idle + unattributed", _LEDGER)
REQUESTS_JOULES = Metric("perjoule_energy_requests_joules_total", Kind.COUNTER,
                         "Of what was measured, attributed to requests", _LEDGER)
IDLE_JOULES = Metric("perjoule_energy_idle_joules_total", Kind.COUNTER,
                     "Of what was measured, drawn while nothing ran", _LEDGER)
UNATTRIBUTED_JOULES = Metric("perjoule_energy_unattributed_joules_total", Kind.COUNTER,
                             "Of what was measured, with no request to bear it", _LEDGER)

POWER_WATTS = Metric("perjoule_power_watts", Kind.GAUGE, "Power of the boards now", _LEDGER)
BOARD_PROCESSES = Metric("perjoule_board_processes", Kind.GAUGE, "Processes that compute on a board: an engine has one", ("gpu",))
IN_FLIGHT = Metric("perjoule_requests_in_flight", Kind.GAUGE, "Requests between arrival and end")
METERING_FAILURES = Metric("perjoule_metering_failures_total", Kind.COUNTER, "Failures of the meter; a record may be lost by one")
SAMPLER_READS = Metric("perjoule_sampler_reads_total", Kind.COUNTER, "Successful reads of the energy counter")
SAMPLER_ERRORS = Metric("perjoule_sampler_errors_total", Kind.COUNTER, "Failed reads of the energy counter")
OUTBOX_PENDING = Metric("perjoule_outbox_pending_records", Kind.GAUGE, "Records that wait to be stored", ("sink",))
OUTBOX_STORED = Metric("perjoule_outbox_stored_records_total", Kind.COUNTER, "Records stored", ("sink",))
OUTBOX_DROPPED = Metric("perjoule_outbox_dropped_records_total", Kind.COUNTER,
                        "Records lost because the sink failed for too long", ("sink",))

METRICS = (REQUESTS, REQUEST_JOULES, TOKENS, DURATION, FIRST_TOKEN, MEASURED_JOULES, REQUESTS_JOULES, IDLE_JOULES,
           UNATTRIBUTED_JOULES, POWER_WATTS, BOARD_PROCESSES, IN_FLIGHT, METERING_FAILURES, SAMPLER_READS, SAMPLER_ERRORS, OUTBOX_PENDING,
           OUTBOX_STORED, OUTBOX_DROPPED)
