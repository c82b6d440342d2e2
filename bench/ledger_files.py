"""Rows into a file of a format, a few thousand at a time: Parquet with exact integers, CSV, or JSON lines."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from types import UnionType
from typing import Any, BinaryIO, get_args, get_type_hints

import orjson

from perjoule.sidecar.record import CHARGES, FACTS, SCHEMA_VERSION, Charge, RequestFacts

FORMATS = ("parquet", "csv", "jsonl")
ROWS = 5_000  # in memory at a time
PLACES = 12  # of a decimal in Parquet

Row = Mapping[str, Any]
Write = Callable[[Row], None]


def columns_of_records() -> dict[str, type]:
    """The fields of a record as docs/records.md has them, but for those that follow from others: no float stands for an integer."""
    hints = get_type_hints(RequestFacts) | get_type_hints(Charge)
    return {"schema_version": int, "instance_id": str, "sequence": int} | {name: _plain(hints[name]) for name in (*FACTS, *CHARGES)}


@contextmanager
def writer(kind: str, out: BinaryIO, columns: Mapping[str, type]) -> Iterator[Write]:
    """What takes rows, and ends the file. Raises ValueError where a format is not installed."""
    make = {"parquet": _parquet, "csv": _csv, "jsonl": _jsonl}[kind]
    with contextmanager(make)(out, columns) as write:
        yield write


def _plain(hint: Any) -> type:
    """The type of a value that is not None; an enumeration is its text."""
    kinds = [kind for kind in get_args(hint) if kind is not type(None)] if isinstance(hint, UnionType) else [hint]
    if hint == tuple[str, ...]:
        return list
    return str if issubclass(kinds[0], str) else kinds[0]


def _jsonl(out: BinaryIO, columns: Mapping[str, type]) -> Iterator[Write]:
    def write(row: Row) -> None:
        out.write(orjson.dumps({name: row.get(name) for name in columns}, default=str, option=orjson.OPT_APPEND_NEWLINE))

    yield write


def _csv(out: BinaryIO, columns: Mapping[str, type]) -> Iterator[Write]:
    """RFC 4180, UTF-8; what is not known is empty, a list is JSON."""
    text = io.TextIOWrapper(out, encoding="utf-8", errors="backslashreplace", newline="", write_through=False)
    rows = csv.writer(text)
    rows.writerow(columns)
    yield lambda row: rows.writerow([_cell(row.get(name)) for name in columns])
    text.flush()
    text.detach()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return orjson.dumps(value).decode()
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return format(value, "f") if isinstance(value, Decimal) else value


def _parquet(out: BinaryIO, columns: Mapping[str, type]) -> Iterator[Write]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError(f"--format parquet: {error}; install perjoule[parquet]") from error
    kinds = {int: pyarrow.int64(), str: pyarrow.string(), bool: pyarrow.bool_(), float: pyarrow.float64(),
             list: pyarrow.list_(pyarrow.string()), Decimal: pyarrow.decimal128(38, PLACES), datetime: pyarrow.timestamp("us", "UTC")}
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in columns.items()],
                            metadata={"producer": "perjoule", "schema_version": str(SCHEMA_VERSION)})
    held: dict[str, list[Any]] = {name: [] for name in columns}
    with pyarrow.parquet.ParquetWriter(out, schema, compression="zstd") as file:
        def flush() -> None:
            file.write_batch(pyarrow.record_batch([pyarrow.array(values, schema.field(name).type) for name, values in held.items()],
                                                  schema=schema))
            for values in held.values():
                values.clear()

        def write(row: Row) -> None:
            for name, values in held.items():
                values.append(row.get(name))
            if len(held[next(iter(held))]) >= ROWS:
                flush()

        yield write
        flush()
