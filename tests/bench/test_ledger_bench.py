"""The ledger's bench: a small run of it finds numbers for all that its table names."""

import json

from perjoule.bench.ledger_bench import day, main
from perjoule.sidecar.units import NS_PER_S


def test_a_small_run_has_all_numbers(tmp_path):
    """Six hundred records, without the relay: every rate and time is there and more than nothing."""
    assert main(["--records", "600", "--seconds", "0", "--out", str(tmp_path / "ledger")]) in (0, 1)  # as fast as the machine is today
    found = json.loads((tmp_path / "ledger.json").read_text())["ledgers"]["SQLite"]
    assert all(number > 0 for number in found.values())
    rows = [line for line in (tmp_path / "ledger.md").read_text().splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + len(found)


def test_the_records_are_of_one_day():
    """Whole and different ones, in the order of their arrival."""
    made = list(day(500))
    arrivals = [each.facts.arrival_unix_ns for each in made]
    assert arrivals == sorted(arrivals)
    assert arrivals[-1] - arrivals[0] < 86_400 * NS_PER_S
    assert len({each.facts.record_id for each in made}) == 500
    assert all(each.charge.prefill_uj + each.charge.decode_uj == each.charge.energy_uj for each in made)
