"""One record as a row of the ledger: a tuple of its columns. The ledger's tests hold the columns to those of its table."""

from typing import Any

from perjoule.sidecar.record import EnergyRecord, Outcome, Status

Row = tuple[Any, ...]
COLUMNS = ("record_id", "request_id", "instance_id", "sequence", "arrival_unix_ns", "duration_ns", "tenant", "model", "engine", "endpoint",
           "outcome", "http_status", "input_tokens", "output_tokens", "energy_uj", "active_uj", "prefill_uj", "decode_uj", "steady_uj",
           "status", "method", "trace_id", "record")
_PLAIN: dict[str, str] = {word: str(word) for word in (*Outcome, *Status)}  # drivers take long to find out what a word of an Enum is


def row_of(record: EnergyRecord) -> Row:
    """The COLUMNS of a record; the last is all of it, as JSON."""
    facts, charge = record.facts, record.charge
    return (
        facts.record_id, _text(facts.request_id), record.instance_id, record.sequence, facts.arrival_unix_ns, facts.end_ns,
        _text(facts.tenant) or None, _text(facts.model) or None, facts.engine, facts.endpoint, _PLAIN[facts.outcome], facts.http_status,
        facts.input_tokens, facts.output_tokens, charge.energy_uj, charge.active_uj, charge.prefill_uj, charge.decode_uj,
        charge.steady_uj, _PLAIN[charge.status], charge.method, facts.trace_id, record.as_text().decode())


def _text(text: str | None) -> str | None:
    """Without the one character that PostgreSQL does not take; the record's JSON has it, escaped."""
    return text.replace("\0", "\ufffd") if text and "\0" in text else text
