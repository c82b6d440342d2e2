"""`perjoule serve` before its `perjoule meter`, as processes: what is served meanwhile, and what the ledger says of it afterwards."""

import subprocess
import sys
from pathlib import Path

import pytest

from perjoule.bench.child import child
from tests.test_meter import PATIENCE_S, front, until


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_meter_that_comes_later(tmp_path: Path, workers: str) -> None:
    """Requests of before have no joules and are recorded, those after have, and the ledger accounts for all of them."""
    where, ledger = f"unix:{tmp_path}/meter.sock", tmp_path / "ledger"
    async with (child("perjoule.bench.engine", "--port", "0", "--speed", "4") as engine,
                front(engine["url"], f"meter:{where}", ledger, "--workers", workers) as sidecar):
        for number in range(3):
            await sidecar.ask(f"before-{number}")
        assert (await sidecar.get("/readyz"))["energy_failing"]
        assert (await sidecar.get("/energy/balance")).get("measured_uj") is None
        async with child("perjoule.main", "meter", "--listen", where, "--energy", f"simulated:{engine['url']}"):
            async def measures() -> bool:
                return bool((await sidecar.get("/energy/balance")).get("measured_uj"))

            await until(measures)
            assert not (await sidecar.get("/readyz"))["energy_failing"]
            for number in range(3):
                await sidecar.ask(f"after-{number}")
            records = await sidecar.records()
            balance = await sidecar.get("/energy/balance")
    assert [record["status"] for record in records[:3]] == ["unavailable"] * 3
    assert [record["energy_uj"] for record in records[:3]] == [None] * 3
    assert all(record["status"] in ("simulated", "mixed") and record["energy_uj"] > 0 for record in records[3:])
    assert balance["conserved"]
    done = subprocess.run([sys.executable, "-m", "perjoule.main", "ledger", str(ledger), "verify"], capture_output=True, text=True,
                          timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
