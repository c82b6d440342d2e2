"""BurstGPT: a campus's requests to ChatGPT and GPT-4, with failures, and in its third part with sessions."""

from perjoule.bench.workloads.files import ALWAYS, Lines, Trace, Window, short
from perjoule.bench.workloads.workload import Turn, Workload

SIX = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"
EIGHT = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type"
FAILED = "failed (0 response tokens)"
TIMES = "Turns of a session keep the time that passed in the trace from the end of an answer (time + Elapsed time) to the next request."


def burstgpt(path: str, window: Window = ALWAYS) -> Workload:
    """All rows of both models, at their times. Rows with no response tokens are requests that failed: dropped, and counted.

    With eight columns, rows of a session are its turns, thinking from the end of the answer before (at least 0 s).
    Raises WorkloadError: another header, or a row that cannot be read."""
    lines = Lines(path)
    trace = Trace("burstgpt", lines, window)
    rows = iter(lines)
    if (header := next(rows, (1, ""))[1]) not in (SIX, EIGHT):
        raise lines.error(1, f"got {short(header, 120)}, expected the header {SIX}, or {EIGHT}")
    names = header.split(",")
    width, asked, answered = len(names), names.index("Request tokens"), names.index("Response tokens")
    first_s: float | None = None
    answered_s: dict[str, float] = {}  # when each session's last answer ended
    for number, line in rows:
        row = line.split(",")
        try:
            if len(row) != width:
                raise ValueError
            stamp_s, input_tokens, output_tokens = float(row[0]), int(row[asked]), int(row[answered])
            session, elapsed_s = (row[1] or None, float(row[2] or 0)) if header == EIGHT else (None, 0.0)
        except ValueError:
            raise lines.error(number, f"got {short(line)}, expected {header}") from None
        first_s = stamp_s if first_s is None else first_s
        at_s = stamp_s - first_s
        think_s = max(at_s - answered_s.get(session, at_s), 0.0) if session else 0.0
        if trace.add(number, Turn(at_s, input_tokens, output_tokens, session=session, think_s=think_s), FAILED) and session:
            answered_s[session] = at_s + elapsed_s
    return trace.workload(*(TIMES,) * bool(answered_s))
