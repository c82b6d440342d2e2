"""Any record, for Hypothesis."""

from hypothesis import strategies as st

from perjoule.sidecar.dialects.endpoints import OPERATIONS
from perjoule.sidecar.record import Charge, EnergyRecord, Outcome, RequestFacts, Status, TokenSource, Unit, UnitSource

texts = st.text(max_size=200)
numbers = st.integers(0, 2**63 - 1)
ns = st.integers(0, 2**50)
ids = st.integers(1, 2**64 - 1).map("{:016x}".format)
traces = st.integers(1, 2**128 - 1).map("{:032x}".format)


def maybe(strategy):
    return st.none() | strategy


facts = st.builds(
    RequestFacts, record_id=texts, request_id=texts, arrival_unix_ns=ns, end_ns=ns, outcome=st.sampled_from(Outcome),
    endpoint=st.sampled_from(sorted(OPERATIONS)), engine=texts, streamed=st.booleans(), http_status=maybe(st.integers(100, 599)),
    error_type=maybe(texts), model=maybe(texts), response_model=maybe(texts), response_id=maybe(texts), finish_reason=maybe(texts),
    tenant=maybe(texts), trace_id=traces, span_id=ids, parent_span_id=maybe(ids), first_byte_ns=maybe(ns), first_token_ns=maybe(ns),
    last_token_ns=maybe(ns), queue_ns=maybe(ns), input_tokens=maybe(numbers), cached_tokens=maybe(numbers), output_tokens=maybe(numbers),
    reasoning_tokens=maybe(numbers), input_source=maybe(st.sampled_from(TokenSource)), output_source=maybe(st.sampled_from(TokenSource)),
    unit=maybe(st.sampled_from(Unit)), units=maybe(st.integers(0, 10**6) | st.floats(0, 1e6)),
    units_source=maybe(st.sampled_from(UnitSource)), work_tokens=maybe(numbers), steps=maybe(numbers), width=maybe(numbers),
    height=maybe(numbers), frames=maybe(numbers), job_id=maybe(texts))
charges = st.builds(
    Charge, status=st.sampled_from(Status), method=texts, source=texts, settled=st.booleans(), boundary=texts,
    devices=st.lists(texts, max_size=3).map(tuple), energy_uj=maybe(numbers), active_uj=maybe(numbers), prefill_uj=maybe(numbers),
    decode_uj=maybe(numbers), steady_uj=maybe(numbers), steady_ns=maybe(ns), uncertainty_uj=maybe(numbers), calibration_id=maybe(texts),
    windows=st.integers(0, 1000), concurrency_mean=maybe(st.floats(0, 1e6)), evidence=maybe(texts))
records = st.builds(EnergyRecord, facts, charges)
