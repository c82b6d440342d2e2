"""Traces are read to the digit: times, lengths, failures, sessions and shared blocks; what cannot be read is named with its line."""

from itertools import pairwise
from pathlib import Path

import pytest

from perjoule.bench.workloads.filters import windowed
from perjoule.bench.workloads.open import workload_of
from perjoule.bench.workloads.workload import Workload, WorkloadError

FILES = Path(__file__).parent / "files"


def read(kind: str, name: str, **more: tuple[float, float]) -> Workload:
    return workload_of(f"{kind}:{FILES / name}", seed=1, **more)


def test_azure_2023_has_seven_digits_and_no_zone() -> None:
    """Times are from the first row on, exact to the microsecond; a row without output is dropped and counted."""
    workload = read("azure2023", "azure2023.csv")
    assert [(turn.at_s, turn.input_tokens, turn.output_tokens) for turn in workload.turns] == [
        (0.0, 374, 44), (4.314579, 396, 109), (4.541877, 879, 55), (61.0, 91, 16)]
    assert (workload.read, workload.dropped) == (5, {"no output tokens": 1})
    assert (workload.name, workload.source, len(workload.sha256)) == ("azure2023/azure2023", "azure2023:azure2023.csv", 64)


def test_azure_2024_has_a_zone_and_a_fraction_only_where_it_is_not_zero() -> None:
    assert [turn.at_s for turn in read("azure2024", "azure2024.csv").turns] == [0.0, 0.00993, 2.0]


def test_a_trace_of_one_year_is_not_taken_for_the_other() -> None:
    """They are not the same traffic: what is called by one name must not be the other."""
    with pytest.raises(WorkloadError, match="got a trace of 2023, expected one of 2024: say azure2023:"):
        read("azure2024", "azure2023.csv")


@pytest.mark.parametrize(("kind", "name", "window"), [
    ("azure2023", "azure2023.csv", (4.4, 61.0)),
    ("burstgpt", "burstgpt_3.csv", (40.0, 90.0)),
    ("burstgpt", "burstgpt_1.csv", (40.0, 118.0)),
])
def test_a_window_while_reading_is_the_filter_of_that_window(kind: str, name: str, window: tuple[float, float]) -> None:
    """But for the memory, and for when a row that is dropped anyway was dropped: kept turns and the sum of counts are equal."""
    cut = read(kind, name, window=window)
    assert all(window[0] <= (turn.at_s or 0.0) < window[1] for turn in cut.turns)
    at_once, after = windowed(cut, window), windowed(read(kind, name), window)
    assert at_once.turns == after.turns
    assert at_once.dropped == after.dropped
    assert at_once.sha256 == after.sha256
    assert at_once.turns[0].think_s == 0


def test_burstgpt_keeps_both_models_and_all_times_and_drops_failures() -> None:
    """What vLLM's loader calls BurstGPT is GPT-4's rows without their times; this is the trace."""
    workload = read("burstgpt", "burstgpt_1.csv")
    assert [(turn.at_s, turn.input_tokens, turn.output_tokens) for turn in workload.turns] == [
        (0.0, 472, 18), (40.0, 1087, 230), (113.0, 417, 276)]
    assert (workload.read, workload.dropped, workload.notes) == (4, {"failed (0 response tokens)": 1}, ())


def test_burstgpt_with_eight_columns_has_sessions_that_think() -> None:
    """From the end of the answer (time + Elapsed time) to the next request; an answer that ended later than that leaves no time."""
    workload = read("burstgpt", "burstgpt_3.csv")
    assert [(turn.session, turn.at_s, turn.think_s) for turn in workload.turns] == [
        ("a", 0.0, 0.0), ("b", 51.0, 0.0), ("a", 82.0, 39.0), ("a", 89.0, 0.0), (None, 144.0, 0.0)]
    assert workload.dropped == {"failed (0 response tokens)": 1}
    assert "Elapsed time" in workload.notes[0]


def test_mooncake_is_spread_inside_its_buckets_in_the_order_of_the_file() -> None:
    """No request leaves its bucket of three seconds, none stays at its beginning, and the notes say that it was done."""
    workload = read("mooncake", "mooncake.jsonl")
    times = [turn.at_s or 0.0 for turn in workload.turns]
    assert times[0] == 0.0
    assert all(earlier < later for earlier, later in pairwise(times))
    assert times[2] < 3.0 < times[5] < 6.0
    assert [turn.blocks for turn in workload.turns] == [(0, 1, 2), (0, 1, 3), (0, 4), (0,), (5,), (0, 1)]
    assert [turn.output_tokens for turn in workload.turns] == [500, 490, 794, 7, 8, 9]
    assert workload.notes == ("The trace has times only every 3 s; each request was put at a random place inside its bucket (seed 1).",)
    assert workload == read("mooncake", "mooncake.jsonl")
    assert workload_of(f"mooncake:{FILES / 'mooncake.jsonl'}", seed=2).turns != workload.turns


def test_mooncake_with_times_of_its_own_is_left_alone(tmp_path: Path) -> None:
    """Its synthetic trace has Poisson arrivals to the millisecond; equal times are then chance, not buckets."""
    file = tmp_path / "synthetic.jsonl"
    file.write_text("".join(f'{{"timestamp": {at}, "input_length": 1, "output_length": 2, "hash_ids": [{at}]}}\n'
                            for at in (11, 52, 52, 40)))
    workload = workload_of(f"mooncake:{file}", seed=1)
    assert [turn.at_s for turn in workload.turns] == [0.0, 0.029, 0.041, 0.041]
    assert workload.notes == ()


def test_rows_out_of_order_are_put_in_time_and_said(tmp_path: Path) -> None:
    file = tmp_path / "b.csv"
    file.write_text("Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,a,1,1,2,x\n9,a,2,1,2,x\n7,a,3,1,2,x\n")
    workload = workload_of(f"burstgpt:{file}", seed=0)
    assert [(turn.at_s, turn.input_tokens) for turn in workload.turns] == [(0, 1), (2, 3), (4, 2)]
    assert workload.notes == ("1 rows were before the one above them in the file, and have been put in time.",)


AZURE, BURST = "TIMESTAMP,ContextTokens,GeneratedTokens\n", "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
GOOD = "2023-11-16 18:15:46.6805900,374,44\n"


@pytest.mark.parametrize(("kind", "content", "said"), [
    ("azure2023", "", "line 1: got '', expected the header TIMESTAMP"),
    ("azure2023", AZURE, "got no rows, expected at least one"),
    ("azure2023", AZURE + GOOD + "2023-11-16,a,4\n", "line 3: got '2023-11-16,a,4', expected TIMESTAMP"),
    ("azure2023", AZURE + GOOD + "\n2023-11-16 18:15:47+00:00,1,4\n", "line 4: got '2023-11-16 18:15:47"),
    ("azure2023", AZURE + GOOD + "2023-11-16 18:15:45,1,4\n", "line 3: got -1.68059 s after the first row"),
    ("azure2023", AZURE + GOOD + "2023-11-16 18:15:48,-1,4\n", "line 3: got 1.31941 s after the first row, -1 and 4 tokens"),
    ("azure2023", AZURE + "\udcff", "line 2: got bytes that are not UTF-8"),
    ("burstgpt", AZURE, "line 1: got 'TIMESTAMP,ContextTokens,GeneratedTokens', expected the header Timestamp,Model"),
    ("burstgpt", BURST + "5,ChatGPT,472,18,490\n", "line 2: got '5,ChatGPT,472,18,490', expected Timestamp,Model"),
    ("burstgpt", BURST + "nan,ChatGPT,472,18,490,API log\n", "line 2: got nan s after the first row"),
    ("mooncake", "{}\n", "line 1: got '{}', expected an object with the integers"),
    ("mooncake", '\n{"timestamp": 0.5, "input_length": 1, "output_length": 1, "hash_ids": [1]}', "line 2: got "),
    ("mooncake", '{"timestamp": 0, "input_length": 513, "output_length": 1, "hash_ids": [1]}', "got 1 hash_ids for 513 tokens, expected"),
    ("sharegpt", "[\n}", "line 2: got "),
    ("sharegpt", "{}", "got dict, expected a list"),
    ("sharegpt", '[{"id": 1, "conversations": [{"from": "nobody", "value": "x"}]}]', "conversation 1: got "),
    ("sharegpt", "[]", "got no questions"),
    ("jsonl", "", "got no lines, expected on each a request body"),
    ("jsonl", '{"prompt": "a"}\n[1]\n', r"line 2: got '\[1\]', expected a request body"),
    ("jsonl", '{"at_s": "noon", "prompt": "a"}', "line 1: \"at_s\": got 'noon', expected seconds"),
    ("jsonl", '{"at_s": 1, "prompt": "a"}\n{"prompt": "b"}', 'line 2: got no "at_s", expected one'),
    ("jsonl", '{"method": "GET", "url": "/v1/models", "body": {}}', 'expected "method" POST'),
    ("jsonl", '{"input_tokens": 0, "output_tokens": 3}', "n at least 1"),
])
def test_what_cannot_be_read_is_named_with_its_line(tmp_path: Path, kind: str, content: str, said: str) -> None:
    file = tmp_path / "trace"
    file.write_text(content, errors="surrogateescape")
    with pytest.raises(WorkloadError, match=said):
        workload_of(f"{kind}:{file}", seed=1)


@pytest.mark.parametrize("kind", ["azure2023", "burstgpt", "mooncake", "sharegpt", "jsonl"])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, kind: str) -> None:
    with pytest.raises(WorkloadError, match="none: got No such file or directory, expected a file that can be read"):
        workload_of(f"{kind}:{tmp_path / 'none'}", seed=1)
