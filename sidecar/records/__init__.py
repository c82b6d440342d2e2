"""Where a settled record goes, and how it is found again.

    recent   the latest records, for those who ask by id
    outbox   a thread for each place that records go to
    span     one request's OpenTelemetry span in OTLP's bytes
    archive  where settled records go, and how one is found again
"""
