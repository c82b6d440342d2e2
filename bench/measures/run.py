"""The folder of a run, read and written: samples, the sidecar's records, observations, and what was asked for."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import orjson

from perjoule.bench.load.sample import Observation, Sample

SCHEDULE, SAMPLES, RECORDS, OBSERVATIONS = "schedule.jsonl", "samples.jsonl", "records.jsonl", "observations.jsonl"
ASKED, RESULT, PAGE = "run.json", "result.json", "page.html"
Record = Mapping[str, Any]  # docs/records.md
Row = TypeVar("Row", Sample, Observation)


@dataclass(frozen=True, slots=True)
class Run:
    """What is known of a run. `asked` is run.json (docs/results.md); `records` are those of `samples`, by the sample's index, `others`
    those of nobody here; samples are in the order of their index, observations in that of time."""

    asked: Mapping[str, Any]
    samples: Sequence[Sample]
    observations: Sequence[Observation]
    records: Mapping[int, Record] = field(default_factory=dict)
    others: Sequence[Record] = ()


def run_of(asked: Mapping[str, Any], samples: Sequence[Sample], records: Sequence[Record], observations: Sequence[Observation]) -> Run:
    """Put together: a record is a sample's by the record id that its answer named, else by its request id; of several with one id the
    last that is settled counts; of several samples with one index, the last."""
    ordered = [sample for _, sample in sorted({sample.index: sample for sample in samples}.items())]
    known: dict[str, Record] = {}
    for record in records:
        if (before := known.get(record["record_id"])) is None or record["settled"] or not before["settled"]:
            known[record["record_id"]] = record
    by_request = {record["request_id"]: record for record in known.values() if record["request_id"]}
    joined: dict[int, Record] = {}
    for sample in ordered:
        if (found := known.get(sample.record_id or "") or by_request.get(sample.request_id or "")) is not None:
            joined[sample.index] = found
    ours = {record["record_id"] for record in joined.values()}
    return Run(asked, ordered, sorted(observations, key=lambda look: look.t_ns), joined,
               [record for record_id, record in known.items() if record_id not in ours])


def read_run(folder: Path) -> Run:
    """A run from its folder; records and observations may be missing, a last line that was cut off is not counted.

    Raises ValueError with file and line for what cannot be read."""
    try:
        asked = orjson.loads((folder / ASKED).read_bytes())
        if not isinstance(asked, dict):
            raise ValueError(f"got {type(asked).__name__}, expected an object")
    except FileNotFoundError as error:
        raise ValueError(f"{folder}: got no {ASKED}, expected the folder of a run") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder / ASKED}: {error}") from error
    samples = [_sample(row, where) for row, where in _lines(folder / SAMPLES, required=True)]
    records = [_record(row, where) for row, where in _lines(folder / RECORDS)]
    observations = [_made(Observation, row, where) for row, where in _lines(folder / OBSERVATIONS)]
    return run_of(asked, samples, records, observations)


def write_run(folder: Path, run: Run) -> None:
    """A run as its folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ASKED).write_bytes(orjson.dumps(run.asked, option=orjson.OPT_INDENT_2))
    (folder / SAMPLES).write_bytes(b"".join(map(line, run.samples)))
    (folder / OBSERVATIONS).write_bytes(b"".join(map(line, run.observations)))
    (folder / RECORDS).write_bytes(b"".join(map(line, [*run.records.values(), *run.others])))


def line(row: Sample | Observation | Record) -> bytes:
    """One row of a file, with its end of line."""
    if isinstance(row, Mapping):
        return orjson.dumps(row) + b"\n"
    if isinstance(row, Sample):
        row = _with_list(row)
    return orjson.dumps(row) + b"\n"


def _with_list(sample: Sample) -> Sample:
    """The same for orjson, which knows no arrays."""
    return sample if isinstance(sample.chunk_ns, list) else replace(sample, chunk_ns=list(sample.chunk_ns))


def _lines(path: Path, *, required: bool = False) -> Iterator[tuple[dict[str, Any], str]]:
    """Each line's object, and where it stands. A last line without its end is what a crash left of it."""
    try:
        with path.open("rb") as file:
            for number, text in enumerate(file, 1):
                if not text.endswith(b"\n"):
                    return
                where = f"{path}, line {number}"
                try:
                    row = orjson.loads(text)
                except ValueError as error:
                    raise ValueError(f"{where}: {error}") from error
                if not isinstance(row, dict):
                    raise ValueError(f"{where}: got {type(row).__name__}, expected an object")
                yield row, where
    except FileNotFoundError as error:
        if required:
            raise ValueError(f"{path.parent}: got no {path.name}, expected one") from error
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from error


def _sample(row: dict[str, Any], where: str) -> Sample:
    sample = _made(Sample, row, where)
    try:
        sample.chunk_ns = cast(list[int], array("q", sample.chunk_ns))  # a fifth of the memory of a list
    except (TypeError, OverflowError) as error:
        raise ValueError(f"{where}: chunk_ns: {error}") from error
    return sample


def _made(kind: type[Row], row: dict[str, Any], where: str) -> Row:
    try:
        return kind(**row)
    except TypeError as error:
        raise ValueError(f"{where}: got a row that is no {kind.__name__}: {error}") from error


def _record(row: dict[str, Any], where: str) -> Record:
    missing = [key for key in ("record_id", "request_id", "settled", "outcome", "energy_uj") if key not in row]
    if missing:
        raise ValueError(f"{where}: got no {', '.join(missing)}, expected a record (docs/records.md)")
    return row
