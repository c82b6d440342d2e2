"""The calibration finds what is wrong: each of its checks is shown a client that fails it."""

import orjson
import pytest

from perjoule.bench.child import FailedError
from perjoule.bench.load import calibrate as module
from perjoule.bench.load.calibrate import Seen, calibrate, compared, limits, ours, run, spread
from perjoule.bench.load.calibration_report import plot, tables
from perjoule.bench.load.vllm_client import seen

MS = 1_000_000


def server(count=3, chunks=2):
    """What a golden server saw of requests every 100 ms, with a chunk every 10 ms."""
    return [{"request_id": f"x-{number}", "arrived_ns": number * 100 * MS,
             "sent_ns": [number * 100 * MS + at * 10 * MS for at in range(chunks)]} for number in range(count)]


def client(log, late_ns=0):
    return Seen({one["request_id"]: (one["arrived_ns"], [ns + late_ns for ns in one["sent_ns"]]) for one in log}, [])


def test_a_perfect_client_has_no_error():
    """At 10 requests a second, from whenever it began."""
    found = compared(server(), client(server()), 10.0)
    assert {found[name]["max"] for name in ("arrival_error_ms", "stamp_error_ms", "gap_error_ms")} == {0}
    assert found["achieved_rate"] == pytest.approx(10)


def test_stamps_that_are_late_are_seen():
    """All by 3 ms: their gaps are right."""
    found = compared(server(), client(server(), 3 * MS), 10.0)
    assert (found["stamp_error_ms"]["p50"], found["gap_error_ms"]["max"]) == (3, 0)
    log = server()
    one_late = client(log)
    one_late.requests["x-1"][1][1] += 7 * MS
    assert compared(log, one_late, 10.0)["gap_error_ms"]["max"] == 7


def test_arrivals_that_are_late_are_seen():
    """One by 8 ms; a rate that is not the one asked for adds up."""
    log = server()
    log[2]["arrived_ns"] += 8 * MS
    assert compared(log, client(log), 10.0)["arrival_error_ms"]["max"] == 8
    assert compared(server(101), client(server(101)), 10.1)["arrival_error_ms"]["max"] == pytest.approx(99, abs=1)


@pytest.mark.parametrize("spoil", [
    lambda log: log.pop(), lambda log: log.append(log[0]), lambda log: log[0]["sent_ns"].pop(),
    lambda log: log[0].update(request_id="y-0")])
def test_accounts_that_differ_are_refused(spoil):
    """A request or a chunk more or less, on either side."""
    log = server()
    said = client(server())
    spoil(log)
    with pytest.raises(FailedError, match="the client tells of"):
        compared(log, said, 10.0)


def test_the_limit_is_the_highest_rate_that_was_kept():
    """By the best of the rounds."""
    def step(name, rate, p99):
        return {"client": name, "rate": rate, "arrival_error_ms": {"p99": p99}}
    p99s = {50: (1, 9, 1), 71: (1, 2, 3), 100: (6, 7, 9), 141: (6, 5, 8), 200: (9, 6, 6)}
    steps = [step("a", rate, p99) for rate, rounds in p99s.items() for p99 in rounds]
    assert limits([*steps, step("b", 50, 9)]) == {"a": 141, "b": None}


def test_ranks():
    """The nearest, and of one value that value."""
    assert spread([i * MS for i in range(1, 101)]) == {"p50": 50, "p99": 100, "max": 100}
    assert spread([]) is None
    assert spread([MS]) == {"p50": 1, "p99": 1, "max": 1}


def test_vllms_result_is_read():
    """Start, time to first token, and gaps become instants."""
    assert seen({"start_times": [1.0, 2.0], "ttfts": [0.5, 0.25], "itls": [[0.25, 0.25], []]}) == {
        "vllm-0": (10**9, [1_500_000_000, 1_750_000_000, 2 * 10**9]), "vllm-1": (2 * 10**9, [2_250_000_000])}


async def test_a_client_is_calibrated_and_shown(monkeypatch, tmp_path):
    """Rates are raised round by round; counts are exact, at 100 streams as well; tables and picture come of it."""
    for name, value in {"FIRST_RATE": 500.0, "MOST_RATE": 710.0, "LIMIT_MS": 1e9, "STREAM_TOKENS": 10}.items():
        monkeypatch.setattr(module, name, value)
    said = []
    found = await calibrate({"ours": ours(2)}, 0.1, 2, 4, 2.0, said.append)
    assert [one["rate"] for one in found["steps"]] == [500, 707] * 2
    assert found["limits"] == {"ours": 707}
    assert len(said) == 4
    assert found["streams"][0]["requests"] == 200
    assert found["streams"][0]["stamp_error_ms"]["p50"] > 0
    assert orjson.loads(orjson.dumps(found)) == found
    assert len(list(tables(found))) == 3
    plot(found, tmp_path / "client.svg")
    assert (tmp_path / "client.svg").stat().st_size > 1000


@pytest.mark.parametrize("argv", [
    ["--processes", "0"], ["--repeats", "0"], ["--vllm-python", "x"], ["--plot", "x.pdf"], ["--tokens", "many"]])
def test_wrong_flags(argv, capsys):
    """Exit code 2, and what was expected."""
    with pytest.raises(SystemExit) as ended:
        run(argv)
    assert ended.value.code == 2
    assert argv[0] in capsys.readouterr().err


async def test_a_client_that_fails_twice_in_a_row_is_not_asked_again(monkeypatch):
    """In that round; the other goes on."""
    monkeypatch.setattr(module, "MOST_RATE", 500.0)
    monkeypatch.setattr(module, "LIMIT_MS", 5.0)
    late_ns = {"good": 0, "bad": 80 * MS}

    async def step(name, client, plan, tokens, gap_ms):
        log = [{"request_id": f"x-{n}", "arrived_ns": round(n * 1e9 / (plan.request_rate or 1)), "sent_ns": [0]} for n in range(100)]
        log[50]["arrived_ns"] += late_ns[name]
        log[51]["arrived_ns"] += late_ns[name]
        return {"client": name, "rate": plan.request_rate, "concurrency": None} | compared(log, client(log), plan.request_rate)

    monkeypatch.setattr(module, "step", step)
    clients = {name: lambda log: Seen({one["request_id"]: (0, [0]) for one in log}, []) for name in late_ns}
    found = await calibrate(clients, 1.0, 2, 1, 1.0, lambda text: None)
    assert [one["rate"] for one in found["steps"] if one["client"] == "bad"] == [100, 141] * 2
    assert [one["rate"] for one in found["steps"] if one["client"] == "good"] == [100, 141, 200, 283, 400] * 2
    assert found["limits"] == {"good": 400, "bad": None}
