"""`perjoule ledger export`: what comes out is what was put in, to the last digit, in every format; a bill adds up to its origin."""

import csv
import io
import json
import subprocess
import sys
from decimal import Decimal

import pyarrow.parquet
import pytest

from perjoule.adapters.ledger.store import Ledger
from perjoule.bench.ledger_files import columns_of_records
from perjoule.main import main
from perjoule.sidecar.footprint.focus import COLUMNS
from perjoule.sidecar.record import Charge, EnergyRecord, Outcome, RequestFacts, Status, TokenSource
from tests.fakes.two_hours import KWH_UJ, build

HOUR = 1_790_000_000_000_000_000 // 3_600_000_000_000 * 3_600_000_000_000
MOST = 2**63 - 1
SINCE, UNTIL = "2026-07-01T20:00:00Z", "2026-07-01T22:00:00Z"


def record(number, energy_uj=1_000_003, arrival=None, **facts):
    return EnergyRecord(
        RequestFacts(f"r{number}", f"q{number}", HOUR + number if arrival is None else arrival, 5, Outcome.COMPLETED, "chat.completions",
                     "vllm", True, **{"model": "m", "input_source": TokenSource.USAGE, "input_tokens": 7, "output_tokens": 3} | facts),
        Charge(Status.MEASURED, "step-model", "nvml", True, "gpu-board", ("GPU-1", "GPU-2"), energy_uj, uncertainty_uj=MOST, windows=2,
               concurrency_mean=1 / 3), "run", number + 1)


AWKWARD = [record(0, tenant='=cmd|"quoted", and more\nlines', finish_reason="ü\0"), record(1, None, model=None, input_tokens=None),
           record(2, MOST - 2**40, http_status=200), record(3, error_type="")]


@pytest.fixture
def ledger(tmp_path):
    """With records of every awkwardness, and more of them than are read at a time."""
    path = tmp_path / "ledger"
    ledger = Ledger(path, now_unix_ns=lambda: HOUR)
    ledger.put([*AWKWARD, *(record(number) for number in range(4, 6000))])
    ledger.close()
    return path


def export(ledger, kind, out, *flags):
    assert main(["ledger", str(ledger), "export", "--format", kind, "--out", str(out), *flags]) == 0
    return out


def expected():
    """What the records say, field by field."""
    whole = [json.loads(each.as_text()) for each in [*AWKWARD, *(record(number) for number in range(4, 6000))]]
    return [{name: row[name] for name in columns_of_records()} for row in whole]


def test_parquet_gives_every_record_back(ledger, tmp_path):
    """Integers of 64 bits exact, unknown numbers null, lists lists; in several pieces, read as one."""
    file = pyarrow.parquet.ParquetFile(export(ledger, "parquet", tmp_path / "out.parquet"))
    assert file.read().to_pylist() == expected()
    assert file.num_row_groups > 1
    assert not [field.name for field in file.schema_arrow if field.name.endswith(("_uj", "_ns", "_tokens")) and str(field.type) != "int64"]


def test_json_lines_give_every_record_back(ledger, tmp_path):
    assert [json.loads(line) for line in export(ledger, "jsonl", tmp_path / "out").read_text().splitlines()] == expected()


def test_csv_gives_every_record_back_as_text(ledger, tmp_path):
    """An empty cell is what is not known, or an empty text; a list is JSON; nothing is changed, whatever a spreadsheet makes of it."""
    rows = list(csv.DictReader(io.StringIO(export(ledger, "csv", tmp_path / "out").read_text())))

    def text(value):
        return {None: "", True: "true", False: "false"}[value] if value is None or value is True or value is False else \
            json.dumps(value, separators=(",", ":")) if isinstance(value, list) else str(value)

    assert rows == [{name: text(value) for name, value in row.items()} for row in expected()]


def test_a_pipe_gets_rows_and_may_end_early(ledger):
    """`--out -` writes nothing but rows; a reader that has had enough ends it without a word."""
    command = f"{sys.executable} -m perjoule.main ledger {ledger} export --format jsonl --out - | head -n 1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, timeout=60)
    assert (json.loads(done.stdout)["record_id"], done.stderr, done.returncode) == ("r0", "", 0)


def test_a_time_narrows_it(ledger, tmp_path):
    """Since inclusive, until exclusive, by arrival; an empty time leaves an empty file, not an error."""
    flags = ("--since", "2026-01-01", "--until", str(HOUR // 10**9))
    assert export(ledger, "jsonl", tmp_path / "none", *flags).read_bytes() == b""
    assert pyarrow.parquet.read_table(export(ledger, "parquet", tmp_path / "none.parquet", *flags)).num_rows == 0


@pytest.mark.parametrize("flags", [["--focus"], ["--focus", "--price", "0.3"], ["--price", "0.3"],
                                   ["--since", "2026-02-01", "--until", "1"], ["--out", "/nowhere/at/all"],
                                   ["--focus", "--prices", "/nowhere", "--currency", "EUR"]])
def test_what_cannot_be_written_is_refused(ledger, tmp_path, capsys, flags):
    """With exit code 2 and what was expected, and no file is left half written."""
    assert main(["ledger", str(ledger), "export", "--format", "csv", "--out", str(tmp_path / "out"), *flags]) == 2
    assert "perjoule ledger export: --" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("ledger")) == []


@pytest.fixture
def two_hours(tmp_path):
    return build(tmp_path / "ledger")


@pytest.mark.parametrize(("idle", "expected"), [
    ("own", {("requests", "a"): "0.330000", ("requests", "b"): "0.660000", ("idle", ""): "0.330000", ("host", ""): "0.330000"}),
    ("spread", {("requests", "a"): "0.550000", ("requests", "b"): "1.100000"})])
def test_a_bill_adds_up_to_what_was_measured(two_hours, tmp_path, idle, expected):
    """FOCUS rows: 5 kWh at 0.30 with a PUE of 1.1 are 1.65, by tenant, model and hour; idle and host apart, or spread."""
    flags = ("--focus", "--price", "0.3", "--currency", "EUR", "--pue", "1.1", "--since", SINCE, "--until", UNTIL, "--idle", idle)
    rows = list(csv.DictReader(io.StringIO(export(two_hours, "csv", tmp_path / "bill", *flags).read_text())))
    assert list(rows[0]) == list(COLUMNS)
    sums = {}
    for row in rows:
        key = row["x_Account"], row["SubAccountId"]
        sums[key] = sums.get(key, Decimal(0)) + Decimal(row["BilledCost"])
    assert sum(sums.values()) == Decimal(rows[0]["x_OriginCost"]) == Decimal("1.65")
    assert sum(int(row["x_EnergyMicrojoules"]) for row in rows) == 5 * KWH_UJ
    ratios = [json.loads(row["AllocatedMethodDetails"], parse_float=Decimal)["Elements"][0]["AllocatedRatio"] for row in rows]
    assert sum(map(Decimal, ratios)) == 1
    assert {key: str(value) for key, value in sums.items()} == expected
    table = pyarrow.parquet.read_table(export(two_hours, "parquet", tmp_path / "bill.parquet", *flags))
    assert sum(table["BilledCost"].to_pylist()) == Decimal("1.65")
    assert (len(table), table["BillingCurrency"].unique().to_pylist()) == (len(rows), ["EUR"])
