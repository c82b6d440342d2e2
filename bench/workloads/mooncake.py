"""Mooncake's traces: lengths, times in milliseconds, and hashes of the prompt's blocks of 512 tokens, which say what is shared."""

from collections.abc import Sequence
from itertools import groupby, pairwise
from random import Random
from statistics import median

import orjson

from perjoule.bench.workloads.files import ALWAYS, Lines, Trace, short
from perjoule.bench.workloads.workload import BLOCK_TOKENS, Turn, Workload

MS_PER_S = 1000
EXPECTED = 'an object with the integers "timestamp" (ms), "input_length", "output_length", and "hash_ids", a list of them'


def mooncake(path: str, seed: int) -> Workload:
    """The trace, sorted by time. Its real ones have times only every three seconds or so: each request is put at a random place inside
    its bucket, in the file's order, or every replay would be a test of bursts that never were. Notes say so.

    Raises WorkloadError: a line that cannot be read, or whose hashes do not cover the prompt."""
    lines = Lines(path)
    rows = [_row(lines, number, line) for number, line in lines]
    rows.sort(key=lambda row: row[1])
    times_s, note = spread([(row[1] - rows[0][1]) / MS_PER_S for row in rows], seed)
    trace = Trace("mooncake", lines, ALWAYS)
    for at_s, (number, _, given, wanted, blocks) in zip(times_s, rows, strict=True):
        trace.add(number, Turn(at_s, given, wanted, blocks))
    return trace.workload(*(note,) * bool(note))


def spread(times_s: Sequence[float], seed: int) -> tuple[Sequence[float], str]:
    """Sorted times, those of a bucket uniformly inside it, and a note that says so; unchanged, where few are equal."""
    buckets = sorted(set(times_s))
    if 2 * len(buckets) > len(times_s) or len(buckets) < 2:
        return times_s, ""
    widths = [later - earlier for earlier, later in pairwise(buckets)]
    width_s = median(widths)
    random = Random(f"{seed} buckets")
    spread_s: list[float] = []
    for (begin_s, bucket), width in zip(groupby(times_s), [*widths, width_s], strict=True):
        spread_s += sorted(begin_s + random.random() * width for _ in bucket)
    first_s = spread_s[0]
    return [at_s - first_s for at_s in spread_s], (f"The trace has times only every {width_s:g} s; each request was put at a random "
                                                   f"place inside its bucket (seed {seed}).")


def _row(lines: Lines, number: int, line: str) -> tuple[int, int, int, int, tuple[int, ...]]:
    try:
        row = orjson.loads(line)
        numbers = row["timestamp"], row["input_length"], row["output_length"]
        blocks = tuple(row["hash_ids"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise lines.error(number, f"got {short(line)}, expected {EXPECTED}") from None
    if not all(type(value) is int for value in (*numbers, *blocks)):
        raise lines.error(number, f"got {short(line)}, expected {EXPECTED}")
    if len(blocks) != -(-numbers[1] // BLOCK_TOKENS):
        raise lines.error(number, f"got {len(blocks)} hash_ids for {numbers[1]} tokens, expected one for each {BLOCK_TOKENS} begun")
    return number, *numbers, blocks
