"""The demo's verdict: what it calls a problem, and how it measures the distance from the truth."""

import pytest

from perjoule.bench.demo_report import distances, report
from perjoule.bench.visits import plan


def metered(count=4):
    """Visits that went well, the balance they belong to and the truth."""
    visits = plan(count, seed=1)
    for number, visit in enumerate(visits, 1):
        visit.record = {"record_id": f"record-{number}", "request_id": visit.request_id, "outcome": "completed",
                        "input_tokens": 10, "output_tokens": number, "energy_uj": 1_000_000 * number,
                        "status": "simulated"}
    requests_uj = sum(visit.record["energy_uj"] for visit in visits)
    balance = {"measured_uj": requests_uj + 7, "requests_uj": requests_uj, "idle_uj": 5, "unattributed_uj": 2}
    truth = {visit.request_id: {"energy_uj": visit.record["energy_uj"]} for visit in visits}
    return visits, balance, truth


def test_all_well_is_no_problem():
    """One record each and an exact balance: no problems, distance 0, and a note that the joules are simulated."""
    told = report(*metered())
    assert told["problems"] == []
    assert told["distance_from_truth"]["perjoule"] == 0
    assert "simulated" in told["note"]
    assert [row["true_uj"] for row in told["requests"]] == [row["energy_uj"] for row in told["requests"]]
    assert sum(kind["requests"] for kind in told["kinds"]) == 4


def lose_a_record(visits, balance):
    balance["requests_uj"] -= visits[0].record["energy_uj"]
    balance["measured_uj"] -= visits[0].record["energy_uj"]
    visits[0].record = None


def fail(visits, balance):
    lose_a_record(visits, balance)
    visits[0].failure = "APIConnectionError: gone"


def repeat_a_record(visits, balance):
    visits[1].record["record_id"] = visits[0].record["record_id"]


def lose_a_microjoule(visits, balance):
    balance["idle_uj"] -= 1


def keep_a_microjoule(visits, balance):
    visits[0].record["energy_uj"] += 1


def know_no_joules(visits, balance):
    balance["requests_uj"] -= visits[0].record["energy_uj"]
    balance["measured_uj"] -= visits[0].record["energy_uj"]
    visits[0].record.update(energy_uj=None, status="unavailable")


@pytest.mark.parametrize(("harm", "said"), [
    (lose_a_record, "demo-001: no settled record"),
    (fail, "demo-001: APIConnectionError: gone"),
    (repeat_a_record, "two requests have the same record"),
    (lose_a_microjoule, "not conserved"),
    (keep_a_microjoule, "do not sum to"),
    (know_no_joules, "demo-001: no joules, unavailable"),
])
def test_whatever_is_wrong_is_said_once(harm, said):
    """Each kind of harm gives exactly one problem, in words."""
    visits, balance, truth = metered()
    harm(visits, balance)
    (problem,) = report(visits, balance, truth)["problems"]
    assert said in problem


def test_distances_by_hand():
    """Two requests that truly cost 1 and 3, shared as 2 and 2: half of the truth is in the wrong place."""
    rows = [{"energy_uj": 2, "true_uj": 1, "input_tokens": 0, "output_tokens": 1},
            {"energy_uj": 2, "true_uj": 3, "input_tokens": 4, "output_tokens": 3}]
    assert distances(rows) == {"perjoule": 0.5, "equal_split": 0.5, "by_output_tokens": 0, "by_all_tokens": 0.25}


def test_no_joules_no_distance():
    """Without one request that has both a share and a truth, the distances are unknown, not 0."""
    assert set(distances([]).values()) == {None}
