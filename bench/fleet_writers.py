"""Writers of synthetic records, each a process, and what they wrote into: a ledger that is looked at again, a receiver that counts."""

import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.context import SpawnContext
from queue import Empty
from threading import Thread
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from sqlalchemy import func, select

from perjoule.adapters.ledger.store import Ledger, LedgerError, Retention
from perjoule.adapters.ledger.tables import records
from perjoule.adapters.ledger.verify import verify, wrong_sums
from perjoule.adapters.otel.spans import open_spans
from perjoule.bench.ledger_bench import day
from perjoule.sidecar.record import Balance, EnergyRecord, Status
from perjoule.sidecar.telemetry import Attribute

BATCH = 512  # of an outbox
AGAIN_S = 0.1
Put = Callable[[str, str, Sequence[Sequence[EnergyRecord]], Any], int]


@dataclass(frozen=True, slots=True)
class Written:
    """By so many writers: how many records of how many microjoules, in which time by the clock and of the writers' processors."""

    writers: int
    records: int
    energy_uj: int
    seconds: float
    cpu_s: float
    again: int  # batches that were not taken at first

    @property
    def costs(self) -> dict[str, Any]:
        return {"writers": self.writers, "records": self.records, "records_per_second": round(self.records / self.seconds),
                "cpu_us_per_record": round(self.cpu_s / self.records * 1e6, 1), "tried_again": self.again}

    def checked_in(self, where: str) -> dict[str, Any]:
        """Whether the ledger has all of it: the sum, each run's own account, and the sums of sums."""
        with closing(Ledger(where)) as ledger:
            with ledger.database.reading() as connection:
                there, energy_uj = connection.execute(select(func.count(), func.sum(records.c.energy_uj))).one()
            accounts = verify(ledger.database, None, None)
            told = ledger.extent()["bytes"]
            conserved = (there, int(energy_uj)) == (self.records, self.energy_uj) and wrong_sums(ledger.database, None, None) == 0 and all(
                account.accounted and account.last is not None for account in accounts)
        return {"bytes_per_record": round(told / there), "runs": len(accounts), "conserved": conserved}


def written(spawning: SpawnContext, put: Put, where: str, writers: int, wanted: int) -> Written:
    """All of them at once. The records are made before; what counts is from the first that is written to the last that is taken."""
    each = wanted // writers
    started = spawning.Barrier(writers)
    told = spawning.Queue()
    processes = [spawning.Process(target=_write, args=(put, where, f"{number:032x}", each, started, told)) for number in range(writers)]
    for process in processes:
        process.start()
    rows: list[Any] = []
    while len(rows) < writers:
        with suppress(Empty):
            rows.append(told.get(timeout=1))
        if any(process.exitcode for process in processes):
            raise RuntimeError("a writer has failed; it has said why")
    for process in processes:
        process.join()
    return Written(writers, each * writers, sum(row[2] for row in rows), max(row[1] for row in rows) - min(row[0] for row in rows),
                   sum(row[3] for row in rows), sum(row[4] for row in rows))


def _write(put: Put, where: str, instance_id: str, wanted: int, started: Any, told: Any) -> None:
    made, now_ns = list(day(wanted)), time.time_ns()
    for record in made:  # as live traffic comes: all in these minutes, for whose sums all writers contend
        record.instance_id, record.facts = instance_id, replace(record.facts, arrival_unix_ns=now_ns)
    batches = [made[place:place + BATCH] for place in range(0, wanted, BATCH)]
    times: list[float] = []

    def begin() -> None:
        started.wait()
        times.extend((time.monotonic(), time.process_time()))

    again = put(where, instance_id, batches, begin)
    told.put((times[0], time.monotonic(), sum(record.charge.energy_uj or 0 for record in made), time.process_time() - times[1], again))


def into_ledger(where: str, instance_id: str, batches: Sequence[Sequence[EnergyRecord]], begin: Callable[[], None]) -> int:
    """A run's records, and its account at the end."""
    with closing(Ledger(where, Retention(36_500, 10_000_000))) as ledger:
        begin()
        again = sum(_until_taken(partial(ledger.put, batch)) for batch in batches)
        uj = sum(record.charge.energy_uj or 0 for batch in batches for record in batch)
        account = Balance(instance_id, time.time_ns(), sum(map(len, batches)), uj, uj, 0, 0, uj, "nvml", Status.MEASURED)
        _until_taken(partial(ledger.keep_balance, account))
    return again


def _until_taken(put: Callable[[], None]) -> int:
    """As an outbox does it: tried again. How often that was needed, since others held the same rows for too long."""
    again = 0
    while True:
        try:
            put()
            return again
        except LedgerError:
            again += 1
            time.sleep(AGAIN_S)


def into_receiver(where: str, instance_id: str, batches: Sequence[Sequence[EnergyRecord]], begin: Callable[[], None]) -> int:
    """A run's spans."""
    spans = open_spans(where)
    assert spans is not None
    with closing(spans):
        begin()
        for batch in batches:
            spans.put(batch)
    return 0


class Receiver:
    """Takes OTLP over HTTP and keeps it; it is read when all is there, so that reading costs nobody time."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        bodies = self.bodies

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def checked(self, wrote: Written) -> dict[str, Any]:
        """Whether every span came once, with its joules."""
        spans = [span for body in self.bodies for resource in ExportTraceServiceRequest.FromString(body).resource_spans
                 for scope in resource.scope_spans for span in scope.spans]
        uj = sum(value.value.int_value for span in spans for value in span.attributes if value.key == Attribute.ENERGY_MICROJOULES)
        conserved = len(spans) == wrote.records == len({span.span_id for span in spans}) and uj == wrote.energy_uj
        return {"bytes_per_record": round(sum(map(len, self.bodies)) / wrote.records), "conserved": conserved}
