"""Each reason and each warning: nothing of a good run, and shown to fire on one that lacks just that."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest

from perjoule.bench.measures.limits import LIMITS
from perjoule.bench.measures.result import result_of
from perjoule.bench.measures.run import run_of
from tests.bench.measures.made import LOAD, MS, SETTING, UUID, S, asked, closed_loop, record

OPEN = {**LOAD, "mode": "open", "arrivals": "poisson", "request_rate": 9.0, "concurrency": None}
PAGE = (Path(__file__).parents[3] / "docs" / "measures.md").read_text()


def late(samples, records, looks):
    for sample in samples:
        sample.intended_ns = sample.sent_ns - 6 * MS


def slow(samples, records, looks):
    for sample in samples:
        sample.intended_ns = round(sample.sent_ns * 0.94)
    return asked(load=OPEN)


def lagging(samples, records, looks):
    looks[7].loop_lag_ns = looks[8].loop_lag_ns = [19 * MS, 300 * MS]
    looks[9].loop_lag_ns = [19 * MS, 19 * MS]


def bundled(samples, records, looks):
    for sample in samples:
        sample.chunk_ns = [t_ns - 20 * MS + 50_000 if i % 4 == 3 else t_ns for i, t_ns in enumerate(sample.chunk_ns)]


def wrong_lengths(samples, records, looks):
    for sample in samples[:5]:
        sample.wanted_output_tokens += 1


def no_usage(samples, records, looks):
    for sample in samples[:5]:
        sample.output_tokens = None


def lost_records(samples, records, looks):
    del records[:5]


def unseen(samples, records, looks):
    for look in looks[10:16]:
        look.balance = None


def stuck(samples, records, looks):
    for look in looks[10:16]:
        look.balance = looks[10].balance


def begun_late(samples, records, looks):
    del looks[:12]


def ended_early(samples, records, looks):
    del looks[-8:]


def short(samples, records, looks):
    for each in samples, records:
        del each[200:]


def warming(samples, records, looks):
    for i, look in enumerate(looks):
        for board in look.boards:
            board["temperature_c"] = 60 + 0.1 * i


def began_anew(samples, records, looks):
    for look in looks[40:]:
        look.balance = {key: value - looks[39].balance[key] for key, value in look.balance.items() if key.endswith("_uj")}


def boards(key, value):
    def put(samples, records, looks):
        for look in looks[30:33]:
            for board in look.boards:
                board[key] = value
    return put


def microjoule(samples, records, looks):
    records[0]["energy_uj"] += 1


def shared(samples, records, looks):
    looks[-1].balance["measured_uj"] += 500_000_000
    looks[-1].balance["requests_uj"] += 500_000_000
    records.append(record(9_999, 500_000_000))


def missed(samples, records, looks):
    looks[-1].balance["measured_uj"] += 500_000_000
    looks[-1].balance["unattributed_uj"] += 500_000_000


def failing(samples, records, looks):
    for sample in samples[:5]:
        sample.outcome, sample.error = "errored", "connection reset"


def nothing(samples, records, looks):
    for sample in samples:
        sample.outcome = "cancelled"


def broken_off(samples, records, looks):
    samples[-1].outcome = "unfinished"


def asking(**more):
    return lambda samples, records, looks: asked(**more)


def no_joules(samples, records, looks):
    for each in records:
        each["energy_uj"] = each["prefill_uj"] = each["decode_uj"] = None


def statuses(status):
    def put(samples, records, looks):
        records[0]["status"] = status
    return put


def as_a_meter_tells(samples, records, looks):
    for look in looks:
        for board in look.boards:
            board |= {"temperature_c": None, "held_back_by": None}


def one_board_untold(samples, records, looks):
    for look in looks:
        look.boards += [{"uuid": "GPU-2", "power_w": 90.0, "temperature_c": 40.0, "held_back_by": None}]
    return asked(setting={**SETTING, "num_gpus": 2})


def no_boards(samples, records, looks):
    for look in looks:
        look.boards = []


def short_as_asked(samples, records, looks):
    for sample in samples[200:]:
        sample.outcome = "cancelled"
    del samples[200:], records[200:]
    return asked(steady_min_s=10)


CASES = [
    ("send_lag", late, 6), ("achieved_rate", slow, 0.94), ("loop_lag", lagging, 0.6 / 43.5), ("near_zero_gaps", bundled, 0.25),
    ("token_mismatch", wrong_lengths, 5 / 400), ("missing_usage", no_usage, 5 / 400), ("missing_records", lost_records, 5 / 400),
    ("sampling_gap", unseen, 3.5), ("sampling_gap", stuck, 3), ("sampling_gap", begun_late, 5),
    ("sampling_gap", ended_early, 2.72), ("short_steady", short, 20), ("short_steady", asking(steady_min_s=60), 38.5),
    ("thermal_drift", warming, 7.7), ("counter_reset", began_anew, 1),
    ("throttling", boards("held_back_by", ["hw_thermal_slowdown"]), 3 / 88),
    ("throttling", boards("held_back_by", ["sw_power_cap", "sw_thermal_slowdown"]), 3 / 88), ("gpu_count", boards("uuid", "GPU-2"), 1),
    ("not_closed", microjoule, 1), ("other_traffic", shared, 0.03), ("unattributed", missed, 0.03), ("failures", failing, 5 / 400),
    ("nothing_completed", nothing, 0), ("partial", broken_off, 1), ("partial", asking(partial=True), 1),
    ("partial", asking(planned=402), 2),
    ("energy_unavailable", no_joules, 1), ("short_steady_asked", short_as_asked, 20), ("simulated_energy", statuses("simulated"), 1),
    ("estimated_energy", statuses("mixed"), 1), ("power_capped", boards("held_back_by", ["gpu_idle", "sw_power_cap"]), 3 / 88),
    ("conditions_unknown", as_a_meter_tells, 2), ("conditions_unknown", one_board_untold, 1), ("conditions_unknown", no_boards, 2),
    ("settings_unknown", asking(setting={**SETTING, "driver_version": None}), 1)]


@pytest.fixture(scope="module")
def whole():
    return closed_loop(rounds=50)


@pytest.mark.parametrize(("code", "spoil", "value"), CASES, ids=[f"{code}-{nth}" for nth, (code, _, _) in enumerate(CASES)])
def test_each_can_fire(whole, code, spoil, value):
    """With the number behind it, its limit, and a sentence."""
    samples, records, looks = deepcopy(whole)
    wanted = spoil(samples, records, looks) or asked()
    said = result_of(run_of(wanted, samples, records, looks))
    limit = LIMITS[code]
    found = {each["code"]: each for each in said["warnings" if limit.warns else "reasons"]}
    assert code in found
    assert found[code]["value"] == pytest.approx(value, rel=0.06)
    assert found[code]["text"].startswith(limit.words)
    assert said["valid"] is (limit.warns and not said["reasons"])


def test_every_code_is_shown_to_fire():
    """A limit that nothing can pass protects nobody."""
    assert {code for code, _, _ in CASES} == LIMITS.keys()


def test_a_good_run_passes_them_all(whole):
    """Neither a reason nor a warning."""
    said = result_of(run_of(asked(), *whole))
    assert said["reasons"] == said["warnings"] == []


@pytest.mark.parametrize("code", LIMITS)
def test_every_limit_is_documented_as_it_is(code):
    """Its code, its limit and its words are a row of docs/measures.md."""
    limit = LIMITS[code]
    name = f"`{code}`{' (warning)' if limit.warns else ''}"
    far = f"{'≥' if limit.at_least else '≤'} {limit.limit:g} {limit.unit}".rstrip()
    assert f"| {name} | {far} | {limit.words} |" in PAGE


def test_a_slow_schedule_may_be_off_by_more(whole):
    """A request each ten seconds: 6 ms late is 0.06 % of the gap."""
    samples, records, looks = deepcopy(whole)
    for sample in samples[:2]:
        sample.intended_ns = sample.sent_ns - 6 * MS
    samples[1].sent_ns += 10 * S
    samples[1].intended_ns += 10 * S
    said = result_of(run_of(asked(), samples[:2], records[:2], looks))
    assert "send_lag" not in [each["code"] for each in said["reasons"]]


def test_lengths_that_are_not_exact_are_not_held_against_the_engine(whole):
    """It may end an answer when it likes, unless it was told not to."""
    samples, records, looks = deepcopy(whole)
    wrong_lengths(samples, records, looks)
    assert result_of(run_of(asked(exact_lengths=False), samples, records, looks))["valid"]


def test_what_was_not_checked_is_named(whole):
    """Which condition of a board nobody told; one that a single look tells was checked as far as it goes."""
    samples, records, looks = deepcopy(whole)
    as_a_meter_tells(samples, records, looks)
    looks[3].boards[0]["held_back_by"] = []
    (warned,) = result_of(run_of(asked(), samples, records, looks))["warnings"]
    assert warned["text"] == f"{LIMITS['conditions_unknown'].words}: temperature_c"


def test_a_board_at_its_power_limit_is_named_by_its_uuid_only_once(whole):
    """One board seen a hundred times is one."""
    run = run_of(asked(), *whole)
    assert {board["uuid"] for look in run.observations for board in look.boards} == {UUID}
    assert result_of(replace(run, asked=asked(setting={**SETTING, "num_gpus": 1})))["valid"]
