"""One request's CloudEvent, in the shape that OpenMeter takes: who used what, as flat numbers to be summed."""

from datetime import UTC, datetime
from typing import Any

from perjoule.sidecar.record import EnergyRecord
from perjoule.sidecar.units import NS_PER_S, joules, seconds

TYPE = "perjoule.request.settled"
NO_TENANT = "anonymous"  # a subject must be something; these requests carried no key


def event_of(record: EnergyRecord) -> dict[str, Any]:
    """The event of a settled record, the same whenever it is made: `id` is the record's, `source` the run of the sidecar that settled it.

    What is not known is not there, since a meter would take null for a mistake. No text of a prompt or an answer is in a record.
    """
    facts, charge = record.facts, record.charge
    tokens = [count for count in (facts.input_tokens, facts.output_tokens) if count is not None]
    data = {
        "model": facts.model, "endpoint": facts.endpoint, "engine": facts.engine, "outcome": facts.outcome,
        "http_status": facts.http_status, "request_id": facts.request_id, "trace_id": facts.trace_id,
        "tokens": sum(tokens) if tokens else None, "input_tokens": facts.input_tokens, "cached_tokens": facts.cached_tokens,
        "output_tokens": facts.output_tokens, "reasoning_tokens": facts.reasoning_tokens, "unit": facts.unit, "units": facts.units,
        "job_id": facts.job_id, "duration_seconds": seconds(facts.end_ns),
        "energy_joules": None if charge.energy_uj is None else joules(charge.energy_uj), "energy_uj": charge.energy_uj,
        "active_uj": charge.active_uj, "uncertainty_uj": charge.uncertainty_uj, "energy_status": charge.status,
        "energy_method": charge.method, "energy_source": charge.source}
    return {"specversion": "1.0", "type": TYPE, "id": facts.record_id, "source": f"perjoule/{record.instance_id or 'unknown'}",
            "subject": facts.tenant or NO_TENANT, "time": _rfc3339(facts.arrival_unix_ns), "datacontenttype": "application/json",
            "data": {name: value for name, value in data.items() if value is not None}}


def _rfc3339(unix_ns: int) -> str:
    return f"{datetime.fromtimestamp(unix_ns // NS_PER_S, UTC):%Y-%m-%dT%H:%M:%S}.{unix_ns % NS_PER_S:09d}Z"
