"""ML.ENERGY's folders, read by ML.ENERGY's own loader: every number arrives where it means the same."""

import json
import warnings
from dataclasses import asdict
from pathlib import Path

import pytest

from perjoule.bench.board.mlenergy import export, model_info
from perjoule.bench.board.mlenergy_files import NotTheirsError, gaps_s
from perjoule.bench.board.store import Stored
from perjoule.bench.measures.result import result_of
from tests.bench.board.made import GPUS, MODELS, invalid, result
from tests.bench.measures.made import SETTING, made_run

GAP_NS = 20_000_000
LATE_NS = 60_000_000


def run_folder(folder: Path, found, samples=None) -> Stored:
    """A run folder with the result and three streams of five chunks, of which the last gap of each is three times as long."""
    folder.mkdir(parents=True)
    path = folder / "result.json"
    path.write_text(json.dumps(found))
    if samples is None:
        chunks = [100_000_000 + GAP_NS * at for at in range(4)]
        chunks.append(chunks[-1] + LATE_NS)
        good = {"sent_ns": 0, "first_token_ns": chunks[0], "last_token_ns": chunks[-1], "end_ns": chunks[-1] + 9, "chunk_ns": chunks,
                "input_tokens": 480, "output_tokens": 5, "outcome": "completed", "error": None}
        bad = {"index": 3, "sent_ns": 0, "outcome": "errored", "error": "504 Gateway Timeout", "end_ns": 5}
        samples = "".join(json.dumps(one) + "\n" for one in [*({**good, "index": at} for at in range(3)), bad])
    if samples:
        (folder / "samples.jsonl").write_text(samples)
    return Stored(found, path)


@pytest.fixture
def loader():
    """ML.ENERGY's loader, in one process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        records = pytest.importorskip("mlenergy.data.records", reason="pip install mlenergy-data")
    return lambda root, **options: list(records.LLMRuns.from_raw_results(root, n_workers=1, **options))


def test_their_loader_reads_a_result_as_it_was(tmp_path, loader):
    """Joules, seconds, tokens, latencies and names, and what their tools compute from them."""
    found = result(MODELS[4], GPUS[1], 128, seed=3)
    export(run_folder(tmp_path / "run", found), tmp_path / "out")
    (one,) = loader(tmp_path / "out")
    steady = found["windows"]["mlenergy"]
    assert (one.model_id, one.nickname, one.gpu_model, one.num_gpus) == ("Qwen/Qwen3-30B-A3B", "Qwen3-30B-A3B", "H200", 1)
    assert (one.task, one.max_num_seqs, one.seed, one.weight_precision) == ("lm-arena-chat", 128, 3, "bfloat16")
    assert (one.total_params_billions, one.activated_params_billions, one.architecture) == (30, 3, "MoE")
    assert one.tensor_parallel == 1
    assert one.steady_state_energy_joules == steady["energy_j"]
    assert one.steady_state_duration_seconds == steady["duration_s"]
    assert one.energy_per_token_joules == pytest.approx(steady["energy_j"] / steady["output_tokens"])
    assert one.output_throughput_tokens_per_sec == pytest.approx(steady["output_tokens"] / steady["duration_s"])
    assert one.avg_power_watts == pytest.approx(steady["energy_j"] / steady["duration_s"])
    assert (one.median_itl_ms, one.p99_itl_ms) == (pytest.approx(20), pytest.approx(60))
    assert (one.avg_batch_size, one.completed_requests) == (pytest.approx(128 * 0.985), found["completed"])
    assert (one.is_stable, one.unstable_reason) == (True, "")
    assert one.output_lengths() == [5, 5, 5]
    power = one.timelines(metric="power.device_instant")
    points = zip(found["timeline"]["t_s"], found["timeline"]["power_w"], strict=True)
    inside = [watts for t, watts in points if steady["t0_s"] <= t <= steady["t1_s"]]
    assert power["value"].tolist() == pytest.approx(inside)


def test_their_loader_agrees_with_our_measures(tmp_path, loader):
    """A run as it lies on disk: what we say by their definitions is what their loader finds, bundles of tokens included."""
    run = made_run(setting={**SETTING, "model_id": "org/model-8B"})
    for sample in run.samples[::3]:
        sample.chunk_ns = sample.chunk_ns[:1] + sample.chunk_ns[1::2] + sample.chunk_ns[-1:]
    found = json.loads(json.dumps(result_of(run)))
    export(run_folder(tmp_path / "run", found, "".join(json.dumps(asdict(sample)) + "\n" for sample in run.samples)), tmp_path / "out")
    (one,) = loader(tmp_path / "out", stable_only=False)
    assert one.energy_per_token_joules == pytest.approx(found["steady_state_energy_per_token"], rel=1e-3)
    assert one.steady_state_energy_joules == pytest.approx(found["steady_state_energy"])
    assert one.completed_requests == found["completed"]
    assert one.mean_itl_ms == pytest.approx(found["mean_itl_ms"], rel=0.01)
    assert one.median_itl_ms == pytest.approx(found["median_itl_ms"], rel=0.03)


def test_their_loader_tells_repeats_and_sweeps_apart(tmp_path, loader):
    """Two seeds and two loads of one model are four rows; the engine's limit counts where the client sets none."""
    for concurrency in (64, 128):
        for seed in (1, 2):
            export(run_folder(tmp_path / f"{concurrency}-{seed}", result(concurrency=concurrency, seed=seed)), tmp_path / "out")
    opened = result(run_id="open", load={"mode": "open", "arrivals": "poisson", "request_rate": 4.0, "concurrency": None, "seed": 1})
    export(run_folder(tmp_path / "open", opened), tmp_path / "out")
    rows = loader(tmp_path / "out", stable_only=False)
    assert sorted((one.max_num_seqs, one.seed) for one in rows) == [(64, 1), (64, 2), (128, 1), (128, 2), (1024, 1)]
    assert [one.unstable_reason[:21] for one in rows if one.max_num_seqs == 1024] == ["low_batch_utilization"]


def test_their_energy_is_the_rate_times_the_length_and_ours_is_beside_it(tmp_path):
    """Same name, same meaning; what a request really cost has a name of its own."""
    found = result()
    folder = export(run_folder(tmp_path / "run", found), tmp_path / "out")
    written = json.loads((folder / "results.json").read_text())
    first, *_, failed = written["results"]
    assert first["energy"] == pytest.approx(5 * written["steady_state_energy_per_token"])
    assert first["energy_measured_j"] == found["requests"]["energy_j"][0]
    assert first["itl"] == [0.02, 0.02, 0.02, 0.06]
    assert (failed["success"], failed["error"], failed["energy"]) == (False, "504 Gateway Timeout", None)
    assert written["steady_state_rule"] == "mlenergy/1"


@pytest.mark.parametrize(("chunk_ns", "tokens", "gaps"), [
    ([0, 20, 40, 60], 4, [20, 20, 20]), ([0, 20, 40], 6, [20, 0, 20, 0]), ([0, 20, 40], 7, [20, 0, 20, 0, 0]),
    ([0, 20, 40], None, [20, 20]),
    ([0, 20, 40], 2, [20, 20]), ([5], 3, []), ([], 3, [])])
def test_tokens_that_came_together_are_zeros_after_the_gap(chunk_ns, tokens, gaps):
    """As in their results; no token is lost but those of the first chunk, which has no gap before it."""
    assert gaps_s([1_000_000 * t for t in chunk_ns], tokens) == [gap / 1000 for gap in gaps]


@pytest.mark.parametrize(("name", "total", "active", "kind"), [
    ("meta-llama/Llama-3.1-8B-Instruct", 8, 8, "Dense"), ("Qwen/Qwen3-30B-A3B", 30, 3, "MoE"), ("Qwen/Qwen2.5-0.5B", 0.5, 0.5, "Dense"),
    ("openai/gpt-oss-20b", 20, 20, "Dense")])
def test_sizes_are_read_from_names(name, total, active, kind):
    """As far as names tell them."""
    found = model_info(name, None, {})
    assert (found["total_parameters_billion"], found["active_parameters_billion"], found["architecture"]) == (total, active, kind)


@pytest.mark.parametrize("name", ["mistralai/Mixtral-8x7B-Instruct", "deepseek-ai/DeepSeek-R1", "models/v3B2"])
def test_sizes_that_names_do_not_tell_must_be_told(name):
    """Eight experts of seven billions share layers: no sum of them is the size."""
    with pytest.raises(NotTheirsError, match="does not tell the parameters"):
        model_info(name, None, {})
    told = model_info(name, "fp8", {"total_parameters_billion": 46.7, "active_parameters_billion": 12.9, "nickname": "Nick"})
    assert told == {"nickname": "Nick", "total_parameters_billion": 46.7, "active_parameters_billion": 12.9, "architecture": "MoE",
                    "weight_precision": "fp8"}


def without(found, *keys):
    """A copy of a result that lacks something."""
    return {**found, **{key: {} for key in keys}}


@pytest.mark.parametrize(("found", "samples", "said"), [
    (invalid(result()), None, "not valid: send_lag"),
    (without(result(), "windows"), None, "no steady state"),
    ({**result(), "load": {"mode": "open"}, "setting": {**result()["setting"], "max_num_seqs": None}}, None, "no batch limit"),
    ({**result(), "setting": {**result()["setting"], "model_id": None}}, None, "got model_id None"),
    (result(), "", "no gaps between tokens"),
    (result(), '{"index": 0, "sent_ns": 0, "outcome": "completed", "chunk_ns": [5]}\n', "no gaps between tokens: got none"),
])
def test_what_they_have_no_place_for_is_refused_and_nothing_is_written(tmp_path, found, samples, said):
    """A row with invented numbers would be worse than none."""
    stored = run_folder(tmp_path / "run", found, samples)
    with pytest.raises(NotTheirsError, match=said):
        export(stored, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_cannot_leave_the_folder(tmp_path):
    """A model called ../../x stays inside, and a + in a name is no separator."""
    found = result(run_id="../../r+u")
    found["setting"] = {**found["setting"], "model_id": "../../etc/pass+wd-8B", "workload": "a/b+c"}
    folder = export(run_folder(tmp_path / "run", found), tmp_path / "out")
    assert folder.resolve().is_relative_to((tmp_path / "out").resolve())
    assert {path.name for path in tmp_path.iterdir()} == {"run", "out"}
