"""A ledger of two hours whose numbers a person can follow: the example of docs/carbon-and-cost.md."""

from pathlib import Path

from perjoule.adapters.ledger.store import Ledger
from perjoule.sidecar.record import Balance, Charge, EnergyRecord, Outcome, RequestFacts, Status

EIGHT = 1_782_936_000_000_000_000  # 2026-07-01 20:00 UTC, ten in the evening in Berlin
MINUTE_NS = 60_000_000_000
KWH_UJ = 3_600_000_000_000


def build(path: Path) -> Path:
    """Tenant a has 1 kWh in the first hour, b 2 kWh in the second; beside them 1 kWh of idle, in the second, and 1 kWh of the host."""
    ledger = Ledger(path, now_unix_ns=lambda: EIGHT)
    ledger.put([record("a", 0, KWH_UJ, 1_000_000), record("b", 70, 2 * KWH_UJ, 1_000_000)])
    for minute, requests_kwh, idle_kwh in ((0, 0, 0), (60, 1, 0), (120, 3, 1)):
        uj = requests_kwh * KWH_UJ, idle_kwh * KWH_UJ
        ledger.keep_balance(Balance("run", EIGHT + minute * MINUTE_NS, 0, sum(uj), *uj, 0, 0, "nvml", Status.MEASURED,
                                    host_uj=KWH_UJ * minute // 120))
    ledger.close()
    return path


def record(tenant: str, minute: int, energy_uj: int, tokens: int) -> EnergyRecord:
    """One request that has made so many tokens, as nobody's does."""
    facts = RequestFacts(f"r{minute}", "q", EIGHT + minute * MINUTE_NS, 1, Outcome.COMPLETED, "chat.completions", "vllm", True, model="m",
                         tenant=tenant, input_tokens=tokens, output_tokens=tokens)
    return EnergyRecord(facts, Charge(Status.MEASURED, "step-model", "nvml", True, energy_uj=energy_uj), "run", minute + 1)
