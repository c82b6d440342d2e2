"""Azure's traces of LLM inference, 2023 (Splitwise) and 2024 (DynamoLLM): a time and two lengths a row."""

from datetime import datetime

from perjoule.bench.workloads.files import ALWAYS, Lines, Trace, Window, short
from perjoule.bench.workloads.workload import Turn, Workload, WorkloadError

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"


def azure(path: str, year: int, window: Window = ALWAYS) -> Workload:
    """The trace of a year. 2023's times have seven digits of a second and no zone; 2024's have six or none, and a zone.

    Raises WorkloadError: another header, another year (the two are not the same traffic), or a row that cannot be read."""
    lines = Lines(path)
    trace = Trace(f"azure{year}", lines, window)
    rows = iter(lines)
    if (header := next(rows, (1, ""))[1]) != HEADER:
        raise lines.error(1, f"got {short(header)}, expected the header {HEADER}")
    first: datetime | None = None
    for number, line in rows:
        try:
            stamp, context, generated = line.split(",")
            at = datetime.fromisoformat(stamp)
            turn = Turn((at - (first or at)).total_seconds(), int(context), int(generated))
        except (ValueError, TypeError):
            raise lines.error(number, f"got {short(line)}, expected {HEADER}, as in the rows above") from None
        if first is None and (first := at).year != year:
            raise WorkloadError(f"{path}: got a trace of {at.year}, expected one of {year}: say azure{at.year}:{path}")
        trace.add(number, turn)
    return trace.workload()
