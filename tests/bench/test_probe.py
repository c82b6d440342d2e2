"""`perjoule probe` measures what is there, says plainly when nothing is, and its exit code is the answer."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from perjoule.adapters.nvml import NvmlCounter
from perjoule.adapters.replay import ReplayCounter
from perjoule.bench import probe
from perjoule.bench.polling import RATES_NS, measure
from perjoule.bench.sensor import Answer, judge, study
from perjoule.sidecar.record import Status
from perjoule.sidecar.units import NS_PER_MS, NS_PER_S
from tests.fakes.nvml import FakeBoard, FakeNvml


class Clock:
    """Time that passes only in sleeps, and a little with each look, so that a measurement takes no time."""

    def __init__(self) -> None:
        self.t_ns = 0

    def now(self) -> int:
        self.t_ns += 1_000
        return self.t_ns

    def sleep(self, seconds: float) -> None:
        self.t_ns += int(seconds * NS_PER_S)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A minute of 400 W: a new value every 100 ms, instant power 400 W give or take 1 mW."""
    rows = [[k * 100 * NS_PER_MS, k * 100 * NS_PER_MS + 3 * NS_PER_MS, 40_000 * k] for k in range(601)]
    powers = [[k * 100 * NS_PER_MS, 400_000 + k % 2] for k in range(601)]
    path = tmp_path / "steady.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"gpu": "H200", "counter": rows, "power": powers}).encode()))
    return path


def test_measures_each_rate_from_change_to_change(recording: Path) -> None:
    """A steady recording is found as it is: 100 ms, 400 W by counter and by power, at every poll rate."""
    clock, shares = Clock(), []
    (spans,) = measure(ReplayCounter(recording, clock.now), 20, shares.append, clock.now, clock.sleep)
    assert [span.poll_ns for span in spans] == list(RATES_NS)
    assert all(span.readings[-1].energy_uj > span.readings[-2].energy_uj for span in spans)
    found = study(spans)
    assert found.period_ns == pytest.approx(100 * NS_PER_MS, rel=0.02)
    assert [watts for _, watts in found.rates] == pytest.approx([400] * 4, rel=0.005)
    assert judge(found, Status.MEASURED) == (Answer.YES, [])
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1, abs=0.05)


def test_a_dead_counter_does_not_hang_the_probe() -> None:
    """A counter that stands still is given up on after a second at each edge."""
    clock = Clock()
    counter = NvmlCounter("all", FakeNvml(FakeBoard("GPU-a", step_mj=0), FakeBoard("GPU-b")))
    boards = measure(counter, 1, now=clock.now, sleep=clock.sleep)
    assert clock.t_ns < 12 * NS_PER_S
    assert judge(study(boards[0]), Status.MEASURED)[0] is Answer.NO
    assert study(boards[1]).counter_w is not None


def test_instant_power_is_looked_at_between_slow_polls() -> None:
    """On NVML the 500 ms span has far more looks at power than reads of the counter."""
    clock = Clock()
    (spans,) = measure(NvmlCounter("all", FakeNvml(FakeBoard("GPU-a"))), 8, now=clock.now, sleep=clock.sleep)
    assert len(spans[-1].powers) > 10 * len(spans[-1].readings)


@pytest.mark.parametrize(("off", "pids", "answer", "code"), [
    (0.0, (7,), "yes", 0),
    (0.0, (7, 8), "with care", 0),
    (0.05, (7,), "no", 1),
])
def test_the_answer_and_the_exit_code_on_a_board(recording: Path, capsys: pytest.CaptureFixture[str], off: float,
                                                 pids: tuple[int, ...], answer: str, code: int) -> None:
    """A good board is trusted; shared by two processes, with care; five percent off its instant power, not."""
    clock = Clock()
    (spans,) = measure(ReplayCounter(recording, clock.now), 20, now=clock.now, sleep=clock.sleep)
    counter = NvmlCounter("all", FakeNvml(FakeBoard("GPU-a", pids=pids)))
    assert probe.report(counter, [replace(study(spans), disagreement=off)], as_json=False) == code
    out = capsys.readouterr().out
    assert f"Can the joules be trusted here? {answer}." in out
    assert "580.159" in out


def test_no_source_says_what_was_tried(capsys: pytest.CaptureFixture[str]) -> None:
    """A named source that is not there: exit 1, the reason, and no number."""
    assert probe.run(["--energy", "replay:nowhere.json.gz"]) == 1
    out = capsys.readouterr().out
    assert "no energy source" in out
    assert "nowhere.json.gz" in out


def test_no_source_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """The same for a program."""
    assert probe.run(["--energy", "replay:nowhere.json.gz", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["source"], told["answer"]) == (None, "no")
    assert "nowhere.json.gz" in told["tried"]["replay:nowhere.json.gz"]


@pytest.mark.parametrize("argv", ["--energy rapl:0", "--energy dcgm", "--seconds 0", "--seconds nan"])
def test_a_wrong_flag_exits_2(argv: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What was got and what was expected, on standard error."""
    with pytest.raises(SystemExit) as caught:
        probe.run(argv.split())
    assert caught.value.code == 2
    assert "expected" in capsys.readouterr().err


def test_the_table(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A recording is measured, and called simulated: exit 1."""
    assert probe.run(["--energy", f"replay:{recording}", "--seconds", "1.2"]) == 1
    out = capsys.readouterr().out
    assert "Can the joules be trusted here? no." in out
    assert "H200 (replayed)" in out
    assert "simulated" in out


def test_json_has_every_finding(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--json is the findings, the answer and the reasons, and nothing else on standard output."""
    assert probe.run(["--energy", f"replay:{recording}", "--seconds", "1.2", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["source"], told["status"], told["answer"]) == ("replay", "simulated", "no")
    (device,) = told["devices"]
    assert device["uuid"] == "replay:steady.json.gz"
    assert device["quantum_uj"] == 40_000_000
