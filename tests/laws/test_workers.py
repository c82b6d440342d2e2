"""Laws 1 and 4 with worker processes: whatever they tell, however late, and whenever they die, all is conserved and recorded once."""

import asyncio
import time

from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.dialects.endpoints import endpoint_of
from perjoule.sidecar.dialects.requests import Asked
from perjoule.sidecar.dialects.watch import Identity, Watch
from perjoule.sidecar.metering.meter import Meter
from perjoule.sidecar.metering.pools import read_pools
from perjoule.sidecar.ports import Device, Reading, Step
from perjoule.sidecar.process.link import Link
from perjoule.sidecar.process.remote_desk import RemoteDesk
from perjoule.sidecar.process.shared_desk import SharedDesk
from perjoule.sidecar.record import Outcome, Status
from perjoule.sidecar.records.recent import Recent
from tests.laws.histories import LAYOUTS, MS, deep, metered

FRAME = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n'
which = st.integers(0, 3)
events = st.one_of(
    st.tuples(st.just("begin"), which), st.tuples(st.just("frames"), which), st.tuples(st.just("end"), which),
    st.tuples(st.just("ask"), which), st.tuples(st.just("hear"), which), st.tuples(st.just("die"), which),
    st.tuples(st.just("step"), st.integers(0, 3)),
    st.tuples(st.just("sample"), st.integers(0, 10**8)), st.tuples(st.just("tick"), st.integers(0, 400)))


class Worker:
    """A worker process without the process: what it tells waits in `wire` until the other end hears it."""

    def __init__(self, desk):
        self.wire, self.lost = bytearray(), False
        self.desk = RemoteDesk(self.wire.extend)
        self.link = Link(desk, print, lambda: None)
        self.running, self.begun, self.heard = [], [], []

    def hear(self):
        self.desk.flush()
        self.heard = list(self.begun)
        self.link.data_received(bytes(self.wire))
        self.wire.clear()

    def die(self):
        if not self.lost:
            self.lost = True
            self.link.connection_lost(None)


async def play(history, layout):
    """Run a history; answers the meter, the records and the ids of what the meter has heard of."""
    gpus, boards = LAYOUTS[layout]
    meter = Meter([Device(f"GPU-{i}", "board") for i in range(boards)], pools=read_pools(gpus), source="test", status=Status.MEASURED)
    records, told, begun = [], [], 0
    desk = SharedDesk(meter, Recent(durable=False), records.extend, None)
    workers, t_ns, counter = [Worker(desk) for _ in range(4)], time.monotonic_ns() - 5 * 10**9, 10**9  # who dies does so now
    for kind, amount in history:
        t_ns += 7 * MS
        worker = workers[amount % 4]
        if kind == "sample":
            counter += amount
            desk.sample([Reading(t_ns, t_ns, counter)] * boards)
        elif kind == "step":
            desk.step(Step(t_ns - amount * MS, amount, prefill_tokens=7 * amount, first_arrivals_ns=(t_ns - 50 * MS,) * amount))
        elif kind == "tick":
            desk.tick(t_ns + amount * MS)
        elif worker.lost:
            pass
        elif kind == "begin":
            record_id, begun = f"r{begun}", begun + 1
            worker.begun.append(record_id)
            watch = Watch(worker.desk, endpoint_of("POST", "/v1/chat/completions"), Asked(streamed=True, input_tokens=9),
                          Identity(record_id, record_id), "vllm", t_ns, 10**18)
            watch.begin(t_ns)
            watch.head(t_ns, 200, streamed=True, encoding=None)
            worker.running.append(watch)
        elif kind == "hear":
            worker.hear()
        elif kind == "die":
            worker.die()
        elif worker.running and kind == "frames":
            worker.running[0].body(t_ns, FRAME * 3)
        elif worker.running and kind in ("end", "ask"):
            watch = worker.running.pop(0)
            watch.end(t_ns, Outcome.COMPLETED)
            if kind == "ask":
                worker.desk.ask(watch.identity.record_id, t_ns, told.append, settled=False)
        balance = meter.balance
        assert balance.measured_uj == balance.requests_uj + balance.idle_uj + balance.unattributed_uj
    for worker in workers:
        if not worker.lost:
            worker.hear()
            for watch in worker.running:
                watch.end(t_ns, Outcome.CANCELLED)
            worker.hear()
        worker.die()
    far = asyncio.get_running_loop().time() + 10**6  # beyond the time at which the last one died
    desk.tick(int(far * 10**9))
    assert desk.failures == 0
    return meter, records, [record_id for worker in workers for record_id in worker.heard]


@deep
@given(st.lists(events, max_size=60), metered)
def test_conserved_and_once_with_workers(history, layout):
    """One record for each request that the meter has heard of, none for what died unheard, and every microjoule in one place."""
    meter, records, heard = asyncio.run(play(history, layout))
    assert sorted(record.facts.record_id for record in records) == sorted(heard)
    balance = meter.balance
    assert balance.measured_uj == balance.requests_uj + balance.idle_uj + balance.unattributed_uj
    assert balance.requests_uj == sum(record.charge.energy_uj or 0 for record in records)
    assert (meter.unsettled, meter.in_flight) == (0, 0)
