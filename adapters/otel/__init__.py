"""OpenTelemetry: a span for each record and the metrics, sent to an OTLP collector over HTTP or gRPC.

    environment  what the `OTEL_*` variables and `--otlp` say
    transport    one message to a collector, and what its answer means
    spans        records as spans
    metrics      the metrics, every minute
"""

if __name__ == "adapters.otel":
    raise ImportError("import perjoule.adapters.otel; the folder is not the package")
