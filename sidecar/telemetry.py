"""Every name that perjoule shows to other software, as data: headers, span attributes, metrics and their buckets.

Names of the OpenTelemetry GenAI conventions are held here as text, since those conventions are in development and move
between repositories; `GENAI_CONVENTIONS` says which state of them was taken. docs/telemetry.md and docs/metrics.md
explain each name, and a test holds them to it.
"""

from dataclasses import dataclass
from enum import StrEnum

GENAI_CONVENTIONS = "OpenTelemetry GenAI semantic conventions v1.41 (development)"
OPT_IN = "OTEL_SEMCONV_STABILITY_OPT_IN"  # a list; with this word in it, names are those of the newest state that is known here:
OPT_IN_LATEST = "gen_ai_latest_experimental"  # semantic-conventions-genai beside v1.44, where only the names for tokens differ
SCHEMA_URL = "https://opentelemetry.io/schemas/1.41.0"
INSTANCE_ID = "service.instance.id"  # of the resource: the run of the sidecar
SCOPE = "perjoule"  # the instrumentation scope, and service.name unless OTEL_* says otherwise

DURATION_BUCKETS_S = (.01, .02, .04, .08, .16, .32, .64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""`gen_ai.server.request.duration`, as the conventions advise."""
FIRST_TOKEN_BUCKETS_S = (.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1., 2.5, 5., 7.5, 10.)
"""`gen_ai.server.time_to_first_token`, as the conventions advise."""
TOKEN_TIME_BUCKETS_S = (.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1., 2.5)
"""`gen_ai.server.time_per_output_token`, as the conventions advise."""
TOKEN_BUCKETS = (1., 4., 16., 64., 256., 1024., 4096., 16384., 65536., 262144., 1048576., 4194304., 16777216., 67108864.)
"""`gen_ai.client.token.usage`, as the conventions advise."""
JOULE_BUCKETS_J = (.1, .25, .5, 1., 2.5, 5., 10., 25., 50., 100., 250., 500., 1000., 2500., 5000., 10000., 100000.)
"""Joules of one request, for which there is no convention: from an embedding to a video."""


class Header(StrEnum):
    """HTTP fields: INCLUDE is what a client asks for, the others are what it is told, in headers or trailers."""

    JOULES = "X-Energy-Joules"
    ACTIVE_JOULES = "X-Energy-Active-Joules"
    METHOD = "X-Energy-Method"
    STATUS = "X-Energy-Status"
    UNCERTAINTY_JOULES = "X-Energy-Uncertainty-Joules"
    PER_IMAGE = "X-Energy-Joules-Per-Image"
    PER_VIDEO_SECOND = "X-Energy-Joules-Per-Video-Second"
    PER_AUDIO_SECOND = "X-Energy-Joules-Per-Audio-Second"
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
    GENAI_REQUEST_ID = "gen_ai.request.id"  # vLLM's, which has it from us
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
    SEQUENCE = "perjoule.record.sequence"
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
    UNIT = "perjoule.unit"
    UNITS = "perjoule.units"
    UNIT_JOULES = "perjoule.energy.per_unit.joules"
    WORK_TOKENS = "perjoule.work.tokens"
    STEPS = "perjoule.work.steps"
    JOB_ID = "perjoule.job.id"


OTHER_ERROR = "_OTHER"  # error.type where nothing better is known, as the conventions ask
FIRST_TOKEN_EVENT = "perjoule.first_token"  # noqa: S105  the span event at the first output token


class Kind(StrEnum):
    """What a metric is."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


_UNITS = {"joules": "J", "seconds": "s", "watts": "W"}


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One metric; `name` is as Prometheus scrapes it, with the unit before `_total`. `conventional` is the name that OpenTelemetry's
    conventions have for it, `latest` the one of their newest state where that differs."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    conventional: str = ""
    latest: str = ""

    @property
    def unit(self) -> str:
        """The unit as OpenTelemetry writes it, empty for what is merely counted."""
        words = self.name.removesuffix("_total").split("_")
        return "{token}" if "tokens" in words else _UNITS.get(words[-1], "")

    @property
    def otlp_name(self) -> str:
        """The name over OTLP. One of ours has dots there, so that a collector which writes it to Prometheus makes `name` of it again."""
        return self.conventional or self.name.removesuffix("_total").replace("_", ".")


LABELS = {"model": Attribute.REQUEST_MODEL, "endpoint": Attribute.ENDPOINT, "engine": Attribute.PROVIDER, "outcome": Attribute.OUTCOME,
          "status": Attribute.ENERGY_STATUS, "source": Attribute.ENERGY_SOURCE, "tenant": Attribute.TENANT, "phase": "perjoule.phase",
          "direction": "gen_ai.token.type", "sink": "perjoule.sink", "gpu": "hw.id", "result": "perjoule.result",
          "unit": "perjoule.unit"}
"""What each label is called as an attribute of an OTLP metric."""

_SERVED = ("model", "endpoint", "engine")
REQUESTS = Metric("perjoule_requests_total", Kind.COUNTER, "Requests that ended", ("model", "endpoint", "outcome"))
REQUEST_JOULES = Metric("perjoule_request_joules_total", Kind.COUNTER, "Energy attributed to requests that ended",
                        ("model", "outcome", "phase", "status"))
TOKENS = Metric("perjoule_tokens_total", Kind.COUNTER, "Tokens of requests that ended", ("model", "direction"))
CACHED_TOKENS = Metric("perjoule_cached_tokens_total", Kind.COUNTER, "Of the input tokens, those that the engine had in its cache", _SERVED,
                       latest="gen_ai.client.inference.usage.cache_read.input_tokens")
REASONING_TOKENS = Metric("perjoule_reasoning_tokens_total", Kind.COUNTER, "Of the output tokens, those of reasoning", _SERVED,
                          latest="gen_ai.client.inference.usage.reasoning.output_tokens")
UNITS = Metric("perjoule_units_total", Kind.COUNTER, "Images, and seconds of video and audio, of completed requests", ("model", "unit"))
UNIT_JOULES = Metric("perjoule_unit_joules_total", Kind.COUNTER, "Energy attributed to the requests that these are of",
                     ("model", "unit", "status"))
STEADY_JOULES = Metric("perjoule_steady_joules_total", Kind.COUNTER, "Of the energy of requests, drawn in steady windows",
                       ("model", "status"))
STEADY_SECONDS = Metric("perjoule_steady_seconds_total", Kind.COUNTER, "Time that requests spent in steady windows, summed", ("model",))

TENANT_REQUESTS = Metric("perjoule_tenant_requests_total", Kind.COUNTER, "Requests of a tenant that ended", ("tenant", "outcome"))
TENANT_JOULES = Metric("perjoule_tenant_joules_total", Kind.COUNTER, "Energy attributed to a tenant's requests that ended",
                       ("tenant", "outcome", "status"))
TENANT_TOKENS = Metric("perjoule_tenant_tokens_total", Kind.COUNTER, "Tokens of a tenant's requests that ended", ("tenant", "direction"))

DURATION = Metric("perjoule_request_duration_seconds", Kind.HISTOGRAM, "Arrival to the end of the response",
                  (*_SERVED, "outcome"), DURATION_BUCKETS_S, "gen_ai.server.request.duration")
FIRST_TOKEN = Metric("perjoule_time_to_first_token_seconds", Kind.HISTOGRAM, "Arrival to the first output token, but for errored requests",
                     _SERVED, FIRST_TOKEN_BUCKETS_S, "gen_ai.server.time_to_first_token")
TOKEN_TIME = Metric("perjoule_time_per_output_token_seconds", Kind.HISTOGRAM,
                    "First to last output token, for each token after the first, but for errored requests",
                    _SERVED, TOKEN_TIME_BUCKETS_S, "gen_ai.server.time_per_output_token")
TOKEN_SIZES = Metric("perjoule_request_tokens", Kind.HISTOGRAM, "Tokens of one request", (*_SERVED, "direction"), TOKEN_BUCKETS,
                     "gen_ai.client.token.usage")
ENERGY_SIZES = Metric("perjoule_request_energy_joules", Kind.HISTOGRAM, "Energy attributed to one request", ("model", "status"),
                      JOULE_BUCKETS_J)
LATEST_TOKENS = {direction: (f"gen_ai.client.inference.operation.{direction}_tokens", f"gen_ai.client.inference.usage.{direction}_tokens")
                 for direction in ("input", "output")}
"""What the newest conventions have instead of `gen_ai.client.token.usage`: a histogram and a counter for each direction."""
TOKEN_MODALITY, UNKNOWN_MODALITY = "gen_ai.token.modality", "unknown"  # of those counters; engines do not tell it

_LEDGER = ("source", "status")
MEASURED_JOULES = Metric("perjoule_energy_measured_joules_total", Kind.COUNTER,
                         "What the energy counter advanced: requests + idle + unattributed", _LEDGER)
REQUESTS_JOULES = Metric("perjoule_energy_requests_joules_total", Kind.COUNTER,
                         "Of what was measured, attributed to requests", _LEDGER)
IDLE_JOULES = Metric("perjoule_energy_idle_joules_total", Kind.COUNTER,
                     "Of what was measured, drawn while nothing ran", _LEDGER)
UNATTRIBUTED_JOULES = Metric("perjoule_energy_unattributed_joules_total", Kind.COUNTER,
                             "Of what was measured, with no request to bear it", _LEDGER)
SETTLED_JOULES = Metric("perjoule_energy_settled_joules_total", Kind.COUNTER,
                        "Of what was attributed to requests, those whose record is settled", _LEDGER)

POWER_WATTS = Metric("perjoule_power_watts", Kind.GAUGE, "Power of the boards now", _LEDGER)
BOARD_JOULES = Metric("perjoule_board_joules_total", Kind.COUNTER, "What a board's energy counter advanced since its first change",
                      ("gpu", *_LEDGER), conventional="hw.energy")
BOARD_WATTS = Metric("perjoule_board_watts", Kind.GAUGE, "Power of a board now", ("gpu", *_LEDGER), conventional="hw.power")
BOARD_PROCESSES = Metric("perjoule_board_processes", Kind.GAUGE, "Processes that compute on a board: an engine has one", ("gpu",))
IN_FLIGHT = Metric("perjoule_requests_in_flight", Kind.GAUGE, "Requests between arrival and end")
UNKNOWN_REQUESTS = Metric("perjoule_engine_unknown_requests", Kind.GAUGE,
                          "Requests that the engine runs and that did not come through here, at least; absent where it does not tell")
ENGINE_STEPS = Metric("perjoule_engine_steps_told_total", Kind.COUNTER, "Steps of the engine that it has told itself (--steps)")
ENGINE_STEPS_IGNORED = Metric("perjoule_engine_steps_ignored_total", Kind.COUNTER, "Messages of it that said nothing that can be true")
ENGINE_STEPS_BELIEVED = Metric("perjoule_engine_steps_believed", Kind.GAUGE,
                               "1 while joules are divided by the steps that the engine tells, 0 while by what clients see")
METERING_FAILURES = Metric("perjoule_metering_failures_total", Kind.COUNTER, "Failures of the meter; a record may be lost by one")
SAMPLER_READS = Metric("perjoule_sampler_reads_total", Kind.COUNTER, "Successful reads of the energy counter")
SAMPLER_ERRORS = Metric("perjoule_sampler_errors_total", Kind.COUNTER, "Failed reads of the energy counter")
OUTBOX_PENDING = Metric("perjoule_outbox_pending_records", Kind.GAUGE, "Records that wait to be stored", ("sink",))
OUTBOX_STORED = Metric("perjoule_outbox_stored_records_total", Kind.COUNTER, "Records stored", ("sink",))
OUTBOX_DROPPED = Metric("perjoule_outbox_dropped_records_total", Kind.COUNTER,
                        "Records lost because the sink refused them, or failed for too long", ("sink",))
METRIC_EXPORTS = Metric("perjoule_metric_exports_total", Kind.COUNTER, "Times that metrics were sent over OTLP, or not",
                        ("result",))
READY = Metric("perjoule_ready", Kind.GAUGE, "Whether traffic should be sent here, as /readyz says: 1 or 0")
ENERGY_FAILING = Metric("perjoule_energy_failing", Kind.GAUGE,
                        "Whether the source of energy cannot be read or is waited for, as /readyz says: 1 or 0")
BUILD_INFO = Metric("perjoule_build_info", Kind.GAUGE, "The program that runs; always 1", ("version", "python"))
TARGET_INFO = Metric("target_info", Kind.GAUGE, "Who this is, as OpenTelemetry says it; always 1",
                     ("service_name", "service_version", "service_instance_id"))

METRICS = (REQUESTS, REQUEST_JOULES, TOKENS, CACHED_TOKENS, REASONING_TOKENS, UNITS, UNIT_JOULES, STEADY_JOULES, STEADY_SECONDS, DURATION,
           FIRST_TOKEN, TOKEN_TIME, TOKEN_SIZES, ENERGY_SIZES, TENANT_REQUESTS, TENANT_JOULES, TENANT_TOKENS, MEASURED_JOULES,
           REQUESTS_JOULES, IDLE_JOULES, UNATTRIBUTED_JOULES, SETTLED_JOULES, POWER_WATTS, BOARD_JOULES, BOARD_WATTS, BOARD_PROCESSES,
           IN_FLIGHT, UNKNOWN_REQUESTS, ENGINE_STEPS, ENGINE_STEPS_IGNORED, ENGINE_STEPS_BELIEVED, METERING_FAILURES, SAMPLER_READS,
           SAMPLER_ERRORS, OUTBOX_PENDING, OUTBOX_STORED, OUTBOX_DROPPED, METRIC_EXPORTS, READY, ENERGY_FAILING, BUILD_INFO, TARGET_INFO)
