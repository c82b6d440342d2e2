"""Published rows of others, to draw beside our own: who says them, where, and each with the names that ML.ENERGY's tables use."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from perjoule.bench.board.rows import number

NUMBERS = ("num_gpus", "max_num_seqs", "energy_per_token_joules", "energy_per_request_joules", "avg_power_watts", "median_itl_ms",
           "p90_itl_ms", "p95_itl_ms", "p99_itl_ms", "output_throughput_tokens_per_sec")
TEXTS = ("model_id", "nickname", "gpu_model", "weight_precision", "task")


@dataclass(frozen=True, slots=True)
class References:
    """`rows` have `model_id`, `energy_per_token_joules` and what else is known of `TEXTS` and `NUMBERS`."""

    source: str
    rows: tuple[Mapping[str, Any], ...]
    url: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def read_references(path: Path) -> References:
    """Read `{"source": …, "url": …, "rows": […]}`. Raises ValueError, with the file and what is wrong, and OSError."""
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}, expected JSON") from error
    if not (isinstance(found, dict) and isinstance(found.get("source"), str) and isinstance(found.get("rows"), list)):
        raise ValueError(f'{path}: expected {{"source": text, "rows": list}}')
    rows = []
    for at, given in enumerate(found["rows"]):
        if not (isinstance(given, dict) and isinstance(given.get("model_id"), str) and number(given.get("energy_per_token_joules"))):
            raise ValueError(f"{path}: rows[{at}]: got {json.dumps(given)[:80]}, expected model_id and energy_per_token_joules")
        rows.append({**{key: str(given[key]) for key in TEXTS if given.get(key) is not None},
                     **{key: value for key in NUMBERS if (value := number(given.get(key))) is not None}})
    return References(found["source"], tuple(rows), str(found.get("url") or ""))
