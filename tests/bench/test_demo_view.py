"""The demo on a terminal of 80 or 100 columns: nothing is cut off, nothing passes for a measured joule."""

import pytest
from rich.console import Console

from perjoule.bench.demo_report import report
from perjoule.bench.demo_view import live_view, summary
from perjoule.bench.visits import plan

BALANCE = {"measured_uj": 9_876_543_210, "requests_uj": 9_876_543_000, "idle_uj": 210, "unattributed_uj": 0}


@pytest.fixture
def visits():
    """Visits with numbers as wide as they get."""
    visits = plan(36, seed=1)
    for visit in visits:
        visit.begun = visit.ended = True
        visit.tokens = 300
        visit.record = {"record_id": visit.request_id, "request_id": visit.request_id, "outcome": "cancelled",
                        "input_tokens": 6_000, "output_tokens": 300, "energy_uj": 999_999_999,
                        "energy_joules": 999.999999, "uncertainty_uj": 99_999_999, "status": "simulated",
                        "energy_per_output_token_joules": 12.345}
    return visits


def drawn(view, width=100):
    """The view as lines of text."""
    console = Console(width=width, height=60, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(view)
    return capture.get().splitlines()


FULL = "request what in out outcome joules ± J/token truth off"
HEADS = {120: FULL, 100: FULL, 80: "what in out outcome joules ± truth off", 60: "what out joules ± truth off"}


@pytest.mark.parametrize("width", HEADS)
def test_the_summary_fits(visits, width):
    """No cell is cut off at any width, every request has its line with whole joules, and the next command is told."""
    told = report(visits, BALANCE, {visit.request_id: {"energy_uj": 499_999_999} for visit in visits})
    lines = drawn(summary(told), width)
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    assert sum("1,000.00" in line and "500.00" in line and "+100%" in line for line in lines) == 36
    assert any("perjoule serve --upstream http://127.0.0.1:8000" in line for line in lines)
    assert sum("simulated" in line for line in lines) >= 4
    assert any("9,876,543,210 µJ" in line and "exactly" in line for line in lines)


@pytest.mark.parametrize(("width", "heads"), HEADS.items())
def test_narrow_is_fewer_columns(visits, width, heads):
    """At 100 columns a request's line has everything; narrower, the less important columns are left out whole."""
    told = report(visits, BALANCE, {visit.request_id: {"energy_uj": 499_999_999} for visit in visits})
    head = next(line for line in drawn(summary(told), width) if "joules" in line and "±" in line)
    assert head.split() == heads.split()


def test_the_summary_says_what_is_wrong(visits):
    """An inexact balance and a lost record are in the summary, and unknown values are blank, not 0."""
    visits[0].record = None
    lines = drawn(summary(report(visits, BALANCE | {"idle_uj": 0}, {})))
    assert any("NOT CONSERVED" in line for line in lines)
    assert any("PROBLEM: demo-001: no settled record" in line for line in lines)
    (row,) = (line for line in lines if line.lstrip().startswith("demo-001"))
    assert row.split() == ["demo-001", visits[0].kind, "failed"]


def test_the_live_view_shows_what_is_in_flight(visits):
    """A running request shows its joules so far under a heading that calls them simulated."""
    for visit in visits[30:]:
        visit.ended, visit.record = False, None
    visits[35].record_path = "/energy/abc"
    lines = drawn(live_view(visits, BALANCE, [{"record_id": "abc", "energy_joules_so_far": 1.25}]), width=80)
    assert "…" not in "".join(lines)
    assert "simulated" in lines[0]
    assert any("demo-036" in line and "1.25" in line for line in lines)
    assert any("30 of 36 done, 6 in flight" in line for line in lines)
    assert len(lines) < 30
