"""Whatever a run was, it has a result: no division by nothing, no number that is none, and sums that hold."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perjoule.bench.load.sample import Observation, Sample
from perjoule.bench.measures.result import result_of
from perjoule.bench.measures.run import run_of
from tests.bench.measures.made import LOAD, SETTING, UUID, asked, record

TIME = st.integers(0, 10**10)
MAYBE = st.none() | st.integers(0, 1000)
LOADS = st.sampled_from([LOAD, {**LOAD, "mode": "open", "request_rate": 5.0, "concurrency": None}, {**LOAD, "mode": "trace"}, {},
                         {**LOAD, "concurrency": 1}])
ASKED = st.builds(asked, load=LOADS, setting=st.sampled_from([SETTING, {}, {**SETTING, "max_num_seqs": None}]), planned=MAYBE,
                  objectives=st.sampled_from(["", "ttft:1ms", "tpot:1s e2e_intended:1s"]), exact_lengths=st.booleans())


@st.composite
def samples(draw):
    """Requests at any stage, in any way."""
    found = []
    for index in draw(st.lists(st.integers(0, 30), max_size=12, min_size=1)):
        times = sorted(draw(st.lists(TIME, min_size=3, max_size=9)))
        intended_ns, sent_ns, *chunks = times
        chunks = chunks[:draw(st.integers(0, len(chunks)))]
        found.append(Sample(index, intended_ns, sent_ns, first_byte_ns=chunks[0] if chunks else None,
                            first_token_ns=chunks[0] if chunks else None, last_token_ns=chunks[-1] if chunks else None,
                            end_ns=draw(st.sampled_from([None, times[-1]])), chunk_ns=chunks,
                            input_tokens=draw(MAYBE), output_tokens=draw(MAYBE), wanted_output_tokens=draw(MAYBE),
                            outcome=draw(st.sampled_from(["completed", "errored", "cancelled", "unfinished"])), record_id=f"r{index}"))
    return found


@st.composite
def looks(draw):
    """A balance that adds up, or none, or one that began anew."""
    found, parts = [], [0, 0, 0]
    for t_ns in sorted(draw(st.lists(TIME, max_size=12))):
        parts = [part + draw(st.integers(0, 10**9)) for part in parts] if draw(st.integers(0, 9)) else [0, 0, 0]
        balance = {"measured_uj": sum(parts), **dict(zip(("requests_uj", "idle_uj", "unattributed_uj"), parts, strict=True))}
        found.append(Observation(t_ns, t_ns, draw(st.sampled_from([balance, balance, None])),
                                 [{"uuid": UUID, "temperature_c": draw(MAYBE)}], loop_lag_ns=draw(st.lists(TIME, max_size=2))))
    return found


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=60)
@given(ASKED, samples(), st.lists(st.builds(record, st.integers(0, 40), st.integers(0, 10**9), settled=st.booleans())), looks())
def test_any_run_has_a_result(wanted, requests, records, observations):
    """It is JSON without NaN, counts every request once, and divides the counter without a remainder that it hides."""
    said = json.loads(json.dumps(result_of(run_of(wanted, requests, records, observations)), allow_nan=False))
    assert sum(count for how, count in said["outcomes"].items() if how != "errors") == len({sample.index for sample in requests})
    assert said["valid"] is not bool(said["reasons"])
    closure = said["closure"]
    if closure["counter_j"] is not None:
        parts_j = closure["records_j"] + closure["others_j"] + closure["idle_j"] + closure["unattributed_j"]
        assert closure["counter_j"] - parts_j == pytest.approx(closure["difference_uj"] / 1e6, abs=1e-3)
    for metric in said["metrics"].values():
        assert metric["low"] is None or metric["low"] <= metric["high"]
