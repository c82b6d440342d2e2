"""Records for the ledger's tests, and a process that stores them, says what is stored, and may be killed at any instant.

    python -m tests.fakes.ledger_writer WHERE FIRST [BATCHES]
"""

import sys
import time
from typing import Any

from perjoule.sidecar.record import Balance, Charge, EnergyRecord, Outcome, RequestFacts, Status

NOW = 1_790_000_000_000_000_000
S = 1_000_000_000
BATCH = 7


def record(number: int, *, arrival: int = NOW, energy_uj: int | None = 5_000_000, run: str = "run", **facts: Any) -> EnergyRecord:
    """Record `r{number}` of request `q{number}`."""
    status = Status.UNAVAILABLE if energy_uj is None else Status.MEASURED
    facts = {"request_id": f"q{number}", "model": "llama", "input_tokens": 10, "output_tokens": 20} | facts
    return EnergyRecord(
        RequestFacts(record_id=f"r{number}", arrival_unix_ns=arrival, end_ns=S, endpoint="chat.completions",
                     outcome=Outcome.COMPLETED, engine="vllm", streamed=True, **facts),
        Charge(status, "token-share", "nvml", True, "gpu-board", ("GPU-1",), energy_uj, energy_uj), run, number)


def account(run: str, unix_ns: int, sequence: int, settled_uj: int, *, idle_uj: int = 3) -> Balance:
    """The account of a run whose requests are all settled."""
    return Balance(run, unix_ns, sequence, settled_uj + idle_uj, settled_uj, idle_uj, 0, settled_uj, "nvml", Status.MEASURED)


def main(where: str, first: str, batches: str = "1000000000") -> None:
    """Store batch after batch, each with joules that are its records' numbers, and print the number after each."""
    from perjoule.adapters.ledger.store import Ledger

    ledger, number = Ledger(where), int(first)
    for _ in range(int(batches)):
        ledger.put([record(n, arrival=time.time_ns(), energy_uj=n, model=f"m{n % 3}") for n in range(number, number + BATCH)])
        number += BATCH
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
    ledger.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
