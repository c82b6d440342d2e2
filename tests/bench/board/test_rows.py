"""A result as one row: units in the names, unknown as None, GPUs and loads as people say them."""

import pytest

from perjoule.bench.board.rows import gpu_name, load_text, row
from tests.bench.board.made import result


@pytest.mark.parametrize(("model", "said"), [
    ("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA H200", "H200"), ("NVIDIA A100-SXM4-80GB", "A100"), ("NVIDIA GH200 480GB", "GH200"),
    ("NVIDIA L40S", "L40S"), ("AMD Instinct MI300X", "MI300X"), ("NVIDIA GeForce RTX 4090", "RTX 4090"),
    ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"), (None, None), ("", None)])
def test_gpus_are_called_as_people_call_them(model, said):
    """The maker and the memory are left out, what tells one board from another is kept."""
    assert gpu_name(model) == said


@pytest.mark.parametrize(("load", "said"), [
    ({"mode": "closed", "concurrency": 64, "request_rate": None}, "64 at once"),
    ({"mode": "open", "arrivals": "poisson", "request_rate": 8.0}, "8 req/s poisson"),
    ({"mode": "open", "arrivals": "gamma", "request_rate": 2.5, "concurrency": 16}, "16 at once 2.5 req/s gamma"),
    ({"mode": "trace", "arrivals": "trace", "time_scale": 1.0}, "trace"),
    ({"mode": "trace", "arrivals": "trace", "time_scale": 0.5}, "trace, time ×0.5"),
    ({}, "")])
def test_loads_in_few_words(load, said):
    """What was asked of the engine fits a cell."""
    assert load_text(load) == said


def test_a_row_has_the_numbers_of_the_result():
    """Each number is where the page looks for it, and the uncertainty is half the interval, relative."""
    found = result()
    one = row(found)
    metric = found["metrics"]["energy_per_output_token"]
    assert one["energy_per_output_token_j"] == metric["value"]
    assert one["uncertainty"] == pytest.approx((metric["high"] - metric["low"]) / 2 / metric["value"])
    assert one["energy_per_response_j"] == found["metrics"]["energy_per_response"]["value"]
    assert (one["p50_itl_ms"], one["p99_ttft_ms"]) == (found["p50_itl_ms"], found["p99_ttft_ms"])
    steady = found["windows"]["steady"]
    assert one["output_tokens_per_s"] == pytest.approx(steady["output_tokens"] / steady["duration_s"])
    assert (one["avg_power_w"], one["steady_s"]) == (steady["avg_power_w"], steady["duration_s"])
    assert (one["gpu"], one["load"], one["load_size"]) == ("H100", "64 at once", 64)


def test_what_a_result_does_not_say_is_none():
    """The least result there may be makes a row; NaN is no number."""
    one = row({"run_id": "a", "valid": False, "setting": {}, "load": {}, "windows": {"steady": None},
               "metrics": {"energy_per_output_token": {"value": float("nan"), "low": None, "high": None}}})
    assert {key for key, value in one.items() if value not in (None, "")} == {"run_id", "valid", "partial"}


def test_without_a_steady_window_the_whole_run_counts():
    """Throughput and power are then of the run, and no steady time is claimed."""
    found = result()
    found["windows"]["steady"] = None
    one = row({**found, "steady_state_duration": None})
    assert one["output_tokens_per_s"] == found["output_throughput"]
    assert one["avg_power_w"] == found["windows"]["whole"]["avg_power_w"]
    assert one["steady_s"] is None


def test_latencies_come_from_distributions_where_the_flat_names_are_missing():
    """ML.ENERGY's flat names first, ours else."""
    found = {key: value for key, value in result().items() if "_itl_ms" not in key}
    assert row(found)["p95_itl_ms"] == found["distributions"]["icl"]["p95"]
