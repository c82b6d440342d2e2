"""`perjoule ledger report`: the page's example is what the program says, and what is not known is null with a reason."""

import json
import re
from decimal import Decimal
from pathlib import Path

import pytest

from perjoule.adapters.ledger import intensities
from perjoule.adapters.ledger.store import Ledger
from perjoule.main import main
from perjoule.sidecar.footprint.carbon import Kind, intensity
from tests.fakes.ledger_writer import NOW, record
from tests.fakes.two_hours import EIGHT, MINUTE_NS, build

PAGE = Path(__file__).parents[2] / "docs" / "carbon-and-cost.md"
TIME = ("--since", "2026-07-01T20:00:00Z", "--until", "2026-07-01T22:00:00Z")


@pytest.fixture
def ledger(tmp_path):
    return build(tmp_path / "ledger")


def report(ledger, capsys, *flags):
    assert main(["ledger", str(ledger), "report", *TIME, "--by", "tenant", "--json", *flags]) == 0
    return json.loads(capsys.readouterr().out)


def amounts(told):
    """Cost and grams of each line, by what it is of."""
    return {line["key"].get("tenant") or line["what"]: (line["cost"] and line["cost"]["amount"], *(each["g"] for each in line["carbon"]))
            for line in (*told["lines"], told["total"])}


def test_the_example_of_the_page_is_what_the_program_says(ledger, capsys, monkeypatch, tmp_path):
    """Its tariff, its command, and every line of its answer."""
    page = PAGE.read_text()
    (tmp_path / "tariff.toml").write_text(re.search(r"```toml\n(.*?)```", page, re.DOTALL)[1])
    command = re.search(r"^perjoule ledger ledger\.sqlite3 (report .*)$", page, re.MULTILINE)[1]
    monkeypatch.chdir(tmp_path)
    assert main(["ledger", str(ledger), *command.split()]) == 0
    said = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines() if line.strip()]
    shown = [" ".join(line.split()) for line in page[page.index(command):].split("```")[0].splitlines()[1:] if line.strip()]
    assert shown == said


def test_lines_of_money_and_carbon_add_up(ledger, capsys):
    """By hand: 1 kWh at 0.34 and 2 at 0.20, times 1.1, at 380 g; idle and host beside them, or spread by 1 to 2."""
    tariff = ledger.parent / "tariff.toml"
    tariff.write_text(re.search(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)[1])
    flags = ("--prices", str(tariff), "--pue", "1.1", "--grid", "fixed:380")
    told = report(ledger, capsys, *flags)
    assert amounts(told) == {
        "a": ("0.374000", "418.000000"), "b": ("0.440000", "836.000000"), "idle": ("0.220000", "418.000000"),
        "unattributed": ("0.000000", "0.000000"), "host": ("0.297000", "418.000000"), "total": ("1.331000", "2090.000000")}
    assert told["measured_uj"] == 4 * 3_600_000_000_000
    told = report(ledger, capsys, *flags, "--idle", "spread")
    assert amounts(told) == {"a": ("0.546333", "696.666667"), "b": ("0.784667", "1393.333333"), "total": ("1.331000", "2090.000000")}


def test_nothing_is_assumed(ledger, capsys):
    """No price, no cost; no intensity, no carbon; no balance, no idle; each with a reason."""
    told = report(ledger, capsys)
    assert (told["total"]["cost"], told["total"]["carbon"], told["total"]["sci"], told["factors"]["pue"]) == (None, [], [], None)
    assert set(told["reasons"]) == {"cost", "carbon", "pue"}
    bare = Ledger(ledger.parent / "bare", now_unix_ns=lambda: NOW)
    bare.put([record(1, energy_uj=None, arrival=EIGHT)])
    bare.close()
    told = report(ledger.parent / "bare", capsys, "--price", "1", "--currency", "EUR")
    assert (told["total"]["energy_uj"], told["total"]["cost"], told["measured_uj"]) == (None, None, None)
    assert told["reasons"]["idle"].startswith("idle and unattributed energy is not known")
    assert told["notes"][0] == "1 requests have no joules and are in no sum"


def test_what_serve_has_kept_of_the_grid_is_used_and_never_beyond_its_time(ledger, capsys):
    """Average and marginal apart; where an hour has none, the number is of a part, says so, and makes no score."""
    kept = Ledger(ledger, now_unix_ns=lambda: EIGHT)
    hour_ns = 60 * MINUTE_NS
    intensities.keep(kept.database, [
        intensity("electricitymaps", "DE", Kind.AVERAGE, EIGHT, EIGHT + hour_ns, Decimal(300), "gCO2eq/kWh"),
        *(intensity("watttime", "DE", Kind.MARGINAL, begin, begin + hour_ns, Decimal(1000), "lbs_co2_per_mwh")
          for begin in (EIGHT, EIGHT + hour_ns))], EIGHT)
    kept.close()
    told = report(ledger, capsys)
    assert told["factors"]["grids"] == [
        {"name": "average CO2eq", "kind": "average", "gas": "CO2eq", "source": "electricitymaps DE"},
        {"name": "marginal CO2", "kind": "marginal", "gas": "CO2", "source": "watttime DE"}]
    assert amounts(told) == {"a": (None, "300.000000", "453.592000"), "b": (None, None, "907.184000"), "idle": (None, None, "453.592000"),
                             "unattributed": (None, "0.000000", "0.000000"), "host": (None, "150.000000", "453.592000"),
                             "total": (None, "450.000000", "2267.960000")}
    scores = {(line["key"].get("tenant"), each["grid"]): each["operational_g"] for line in told["lines"] for each in line["sci"]
              if each["unit"] == "token"}
    assert scores == {("a", "average CO2eq"): "0.000150000000", ("a", "marginal CO2"): "0.000226796000",
                      ("b", "average CO2eq"): None, ("b", "marginal CO2"): "0.000453592000"}
    assert told["notes"] == ["average CO2eq: known for 30.0 % of the energy; the amounts are of that part"]


def test_a_score_needs_what_made_the_hardware_emit_and_a_count(ledger, capsys):
    """Per token, and per image and second of video where their number is given."""
    flags = ("--grid", "fixed:400", "--images", "100", "--video-seconds", "0")
    told = report(ledger, capsys, *flags)
    assert {each["unit"]: (each["operational_g"], each["sci_g"]) for each in told["total"]["sci"]} == {
        "token": ("0.000500000000", None), "output token": ("0.001000000000", None), "image": ("20.000000000000", None),
        "second of video": (None, None)}
    told = report(ledger, capsys, *flags, "--embodied-kg", "1314.9", "--lifetime-years", "1")  # 150 g an hour
    assert [each["sci_g"] for each in told["total"]["sci"]] == ["0.000575000000", "0.001150000000", "23.000000000000", None]


def test_simulated_joules_say_so(tmp_path, capsys):
    """In the table's title and in JSON."""
    ledger = Ledger(tmp_path / "ledger", now_unix_ns=lambda: EIGHT)
    made = record(1, arrival=EIGHT)
    made.charge.status = type(made.charge.status).SIMULATED
    ledger.put([made])
    ledger.close()
    assert "SIMULATED" in str(report(tmp_path / "ledger", capsys)["notes"])
    assert main(["ledger", str(tmp_path / "ledger"), "report", *TIME]) == 0
    assert "SIMULATED joules, no sensor stands behind them" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("flags", [
    ["--by", "colour"], ["--price", "much"], ["--price", "1"], ["--price", "1", "--currency", "euro"],
    ["--price", "1", "--prices", "x", "--currency", "EUR"], ["--pue", "0.9"],
    ["--grid", "coal"], ["--grid", "electricitymaps:DE"], ["--embodied-kg", "1"], ["--embodied-kg", "0", "--lifetime-years", "1"],
    ["--since", "yesterday"], ["--since", "2030-01-01", "--until", "2029-01-01"], ["--prices", "/nowhere.toml", "--currency", "EUR"]])
def test_what_cannot_be_asked_is_refused(ledger, capsys, flags):
    """Exit code 2, and what was got and expected."""
    try:
        code = main(["ledger", str(ledger), "report", *flags])
    except SystemExit as ended:
        code = ended.code
    assert (code, "perjoule ledger" in capsys.readouterr().err) == (2, True)
