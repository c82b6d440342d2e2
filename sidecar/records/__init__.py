"""Where a settled record goes, and how it is found again.

    recent   the latest records, for those who ask by id
    outbox   a thread for each place that records go to
    feed     the same for a place that is fed from the ledger, and so never misses one
    tally    what all settled records add up to
    span     one request's OpenTelemetry span in OTLP's bytes
    row      one request's row of the ledger
    event    one request's CloudEvent
    archive  where settled records go, and how one is found again
"""
