"""Data sets of the Hugging Face hub, or folders like them, as requests; through the `datasets` library, which is no requirement."""

import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from random import Random
from typing import Any

from perjoule.bench.workloads.tasks import TASKS, Task
from perjoule.bench.workloads.workload import Turn, Workload, WorkloadError

TURNS = 1024  # as ML.ENERGY takes of each, where there are as many
SHUFFLED = 1000  # rows at a time, of a data set that is streamed


def hub(dataset: str, task: str = "", most: int = TURNS, *, seed: int) -> Workload:
    """Up to `most` requests of a data set, its rows shuffled. `dataset` is an id on the hub or a local folder; without `task`, it is
    known by its id.

    Raises WorkloadError: an unknown task, no `datasets` library, a data set that cannot be had, or rows of other columns."""
    task = task or next((name for name, known in TASKS.items() if known.dataset == dataset), "")
    if task not in TASKS:
        raise WorkloadError(f"hf:{dataset}: got task {task or 'none'}, expected one of {', '.join(TASKS)}: hf:{dataset}:TASK")
    try:
        turns, read, empty = turns_of(_rows(dataset, TASKS[task], seed), TASKS[task], dataset, most, seed)
    except WorkloadError:
        raise
    except Exception as error:  # whatever the hub, its client or a file's reader raises, at once or rows later: it cannot be had
        reason = (str(error).splitlines() or [""])[0]
        raise WorkloadError(f"hf:{dataset}: got {type(error).__name__} ({reason}), expected a data set that the hub gives (it may want "
                            "HF_TOKEN), or a local folder of one") from error
    name = Path(dataset).name if Path(dataset).exists() else dataset
    note = f"{len(turns)} requests of the task {task} of {name}, rows shuffled with seed {seed}."
    return Workload(f"hf/{name}:{task}", f"hf:{name}:{task},{most}", turns, read, {"no prompt": empty} if empty else {}, (note,))


def turns_of(rows: Iterable[Mapping[str, Any]], task: Task, dataset: str, most: int, seed: int) -> tuple[tuple[Turn, ...], int, int]:
    """The first `most` turns of rows, how many were read (a row without any counts as one), and how many rows had none."""
    random = Random(f"{seed} rows")
    turns: list[Turn] = []
    empty = 0
    for number, row in enumerate(rows, 1):
        if len(turns) >= most:
            break
        try:
            made = task.turns(row, random)
        except (KeyError, TypeError, IndexError, AttributeError):
            raise WorkloadError(f"hf:{dataset}, row {number}: got {', '.join(row)}, expected {task.columns}") from None
        turns += made[: most - len(turns)]
        empty += not made
    if not turns:
        raise WorkloadError(f"hf:{dataset}: got no rows with a prompt, expected at least one")
    return tuple(turns), len(turns) + empty, empty


def _rows(dataset: str, task: Task, seed: int) -> Iterable[Mapping[str, Any]]:
    """The shuffled rows."""
    try:
        datasets = importlib.import_module("datasets")
    except ImportError:
        raise WorkloadError(f"hf:{dataset}: got no `datasets` library, expected it: pip install datasets") from None
    local = Path(dataset).exists()
    rows = datasets.load_dataset(dataset, None if local else task.configuration, split="train" if local else task.split,
                                 streaming=task.streaming)
    shuffled: Iterable[Mapping[str, Any]] = rows.shuffle(seed=seed, buffer_size=SHUFFLED) if task.streaming else rows.shuffle(seed=seed)
    return shuffled
