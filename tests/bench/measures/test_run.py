"""The folder of a run: what is written is read, what was cut off is not counted, what is wrong is named."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.bench.load.sample import Observation, Sample
from perjoule.bench.measures.run import ASKED, OBSERVATIONS, RECORDS, SAMPLES, line, read_run, run_of, write_run
from tests.bench.measures.made import asked, made_run, record

TIMES = st.one_of(st.none(), st.integers(0, 2**62))
SAMPLE = st.builds(Sample, index=st.integers(0, 99), intended_ns=st.integers(0, 2**62), sent_ns=st.integers(0, 2**62), first_byte_ns=TIMES,
                   chunk_ns=st.lists(st.integers(0, 2**62)), output_tokens=st.one_of(st.none(), st.integers(0, 9)), error=st.text())


@given(st.lists(SAMPLE, unique_by=lambda sample: sample.index))
def test_any_samples_come_back_as_they_were(tmp_path_factory, samples):
    """In the order of the schedule."""
    folder = tmp_path_factory.mktemp("run")
    write_run(folder, run_of({}, samples, [], []))
    back = read_run(folder).samples
    for sample in back:
        sample.chunk_ns = list(sample.chunk_ns)
    assert back == sorted(samples, key=lambda sample: sample.index)


def test_a_whole_run_comes_back(tmp_path):
    """Samples, records, those of others, observations, and what was asked; and can be written again."""
    run = made_run(rounds=2)
    write_run(tmp_path / "a", run)
    write_run(tmp_path / "b", read_run(tmp_path / "a"))
    again = read_run(tmp_path / "b")
    assert (again.asked, again.observations, again.records, again.others) == (run.asked, run.observations, run.records, run.others)
    assert (tmp_path / "a" / SAMPLES).read_bytes() == (tmp_path / "b" / SAMPLES).read_bytes()


def test_a_record_is_found_by_its_id_else_by_the_requests():
    """The settled one of several; what is nobody's is kept apart."""
    samples = [Sample(0, 0, 0, record_id="r0", request_id="x"), Sample(1, 0, 0, request_id="run-1"), Sample(2, 0, 0, request_id="gone"),
               Sample(3, 0, 0)]
    records = [record(0, 5), record(0, 3, settled=False), record(1, 7), record(8, 9), record(9, 1, request_id="")]
    run = run_of({}, samples, records, [])
    assert {index: found["energy_uj"] for index, found in run.records.items()} == {0: 5, 1: 7}
    assert [found["record_id"] for found in run.others] == ["r8", "r9"]


def test_of_a_sample_that_was_sent_again_the_last_counts():
    """As after a resume."""
    assert [sample.sent_ns for sample in run_of({}, [Sample(0, 0, 1), Sample(0, 0, 2)], [], []).samples] == [2]


def test_a_last_line_that_was_cut_off_is_not_counted(tmp_path):
    """What a crash left of it."""
    (tmp_path / ASKED).write_text("{}")
    whole = line(Sample(0, 0, 1)) + line(Sample(1, 0, 1))
    (tmp_path / SAMPLES).write_bytes(whole[:-1])
    assert [sample.index for sample in read_run(tmp_path).samples] == [0]


@pytest.mark.parametrize(("name", "text", "said"), [
    (ASKED, "[]", r"run.json: got list, expected an object"),
    (SAMPLES, "{}\n", r"samples.jsonl, line 1: got a row that is no Sample: .*index"),
    (SAMPLES, '{"index": 0, "intended_ns": 0, "sent_ns": 0, "chunk_ns": ["x"]}\n', r"samples.jsonl, line 1: chunk_ns: "),
    (SAMPLES, "7\n", r"samples.jsonl, line 1: got int, expected an object"),
    (RECORDS, '{"record_id": "a"}\n', r"records.jsonl, line 1: got no request_id, settled, outcome, energy_uj, expected a record"),
    (OBSERVATIONS, '{"t_ns": 1, "unix_ns": 2}\nnonsense\n', r"observations.jsonl, line 2: "),
])
def test_what_cannot_be_read_is_named(tmp_path, name, text, said):
    """With its file and line."""
    write_run(tmp_path, made_run(rounds=1))
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=said):
        read_run(tmp_path)


def test_a_folder_without_a_run_is_refused(tmp_path):
    """Neither without what was asked nor without samples; records and observations may be missing."""
    with pytest.raises(ValueError, match=r"got no run.json, expected the folder of a run"):
        read_run(tmp_path)
    (tmp_path / ASKED).write_text(json.dumps(asked()))
    with pytest.raises(ValueError, match=r"got no samples.jsonl, expected one"):
        read_run(tmp_path)
    (tmp_path / SAMPLES).write_bytes(b"")
    assert read_run(tmp_path).observations == []
    assert line(Observation(1, 2)).endswith(b"\n")
