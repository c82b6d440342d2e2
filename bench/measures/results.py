"""Results as they lie on disk: one file, the folder of a run, or a folder of such folders."""

import json
from pathlib import Path
from typing import Any

from perjoule.bench.measures.result import SCHEMA_VERSION
from perjoule.bench.measures.run import RESULT


def results_of(path: Path) -> list[dict[str, Any]]:
    """One result, or the repeats in a folder, in the order of their dates. Raises ValueError for what holds none."""
    if path.is_dir():
        files = [path / RESULT] if (path / RESULT).is_file() else sorted(path.glob(f"*/{RESULT}"))
        if not files:
            raise ValueError(f"{path}: got no {RESULT} in it or in a folder of it, expected at least one")
    else:
        files = [path]
    return sorted(map(_read, files), key=lambda result: (result["date"] or "", result["run_id"]))


def _read(path: Path) -> dict[str, Any]:
    try:
        result = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(result, dict) or result.get("schema_version") != SCHEMA_VERSION or "metrics" not in result:
        got = result.get("schema_version") if isinstance(result, dict) else type(result).__name__
        raise ValueError(f"{path}: got schema version {got}, expected a result of version {SCHEMA_VERSION}")
    return result
