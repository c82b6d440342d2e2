"""The meter in simulated time: a counter that moves every 100 ms, looked at every 20 ms, and requests that come and go."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.metering.group import SILENCE_NS
from perjoule.sidecar.metering.meter import Meter
from perjoule.sidecar.ports import Device, Reading
from perjoule.sidecar.record import Outcome, RequestFacts, Status, TokenSource

MS, S = 1_000_000, 1_000_000_000
POLL_MS, TICK_MS, PERIOD_MS = 20, 50, 100


class Bench:
    """Time that passes in milliseconds; boards that draw `power_w` and show it each period, until `silent`."""

    def __init__(self, boards=1, *, phase_ms=0, status=Status.MEASURED, **more):
        self.meter = Meter([Device(f"GPU-{i}", "a board") for i in range(boards)], source="nvml", status=status, **more)
        self.now_ms, self.power_w, self.silent = 0, [400] * boards, False
        self.settled = {}  # record id: (when in ms, record)
        self._phase_ms, self._drawn_uj, self._shown_uj = phase_ms, [0] * boards, [0] * boards

    def _keep(self, records):
        for record in records:
            assert record.facts.record_id not in self.settled
            self.settled[record.facts.record_id] = (self.now_ms, record)

    def run_to(self, t_ms):
        while self.now_ms < t_ms:
            self.now_ms += 1
            self._drawn_uj = [uj + w * 1000 for uj, w in zip(self._drawn_uj, self.power_w, strict=True)]
            if (self.now_ms - self._phase_ms) % PERIOD_MS == 0 and not self.silent:
                self._shown_uj = list(self._drawn_uj)
            if self.now_ms % POLL_MS == 0 and not self.silent:
                self._keep(self.meter.sample([Reading(self.now_ms * MS, self.now_ms * MS, uj, w * 1000)
                                              for uj, w in zip(self._shown_uj, self.power_w, strict=True)]))
            if self.now_ms % TICK_MS == 0:
                self._keep(self.meter.tick(self.now_ms * MS))
        return self

    def begin(self, name, **more):
        self.meter.begin(name, self.now_ms * MS, **{"input_tokens": 10, **more})

    def tokens(self, name, count=1):
        self.meter.tokens(name, self.now_ms * MS, count)

    def stream(self, names, t_ms, every_ms=25):
        """Let these requests show a token each now and then."""
        while self.now_ms + every_ms <= t_ms:
            self.run_to(self.now_ms + every_ms)
            for name in names:
                self.tokens(name)

    def leave(self, name):
        self.end(name, status=None, outcome=Outcome.CANCELLED)

    def end(self, name, output_tokens=None, status=200, outcome=Outcome.COMPLETED):
        source = TokenSource.USAGE if output_tokens is not None else None
        self._keep(self.meter.end(name, self.now_ms * MS, RequestFacts(
            name, name, 0, 0, outcome, "chat.completions", "vllm", True, status, output_tokens=output_tokens,
            output_source=source)))

    def charge(self, name):
        return self.settled[name][1].charge


@given(st.integers(0, 99), st.integers(1, 400), st.booleans())
def test_a_request_is_settled_a_quarter_of_a_second_after_its_end(phase_ms, length_ms, neighbour):
    """Wherever it ends between two changes of the counter, and even beside a request that has shown nothing yet."""
    bench = Bench(phase_ms=phase_ms).run_to(500)
    if neighbour:
        bench.begin("silent neighbour", input_tokens=100_000)
    bench.begin("r")
    bench.run_to(500 + length_ms)
    bench.end("r")
    end_ms = bench.now_ms
    bench.run_to(end_ms + 1000)
    settled_ms, record = bench.settled["r"]
    assert settled_ms - end_ms <= 250
    assert record.charge.status is Status.MEASURED


def test_one_request_alone_is_charged_what_was_drawn_while_it_ran():
    """400 W for one second; of that, what lies above the 100 W of the loaded idle is active."""
    bench = Bench()
    bench.power_w = [100]
    bench.run_to(2000)
    bench.power_w = [400]
    bench.begin("r")
    bench.stream(["r"], 3000)
    bench.end("r", 40)
    bench.power_w = [100]
    bench.run_to(4000)
    charge = bench.charge("r")
    assert charge.energy_uj == pytest.approx(400 * S // 1000, rel=0.05)
    assert charge.active_uj == pytest.approx(300 * S // 1000, rel=0.05)
    assert bench.meter.balance.idle_uj > 0
    assert bench.meter.balance.unattributed_uj == 0


def test_equal_requests_side_by_side_are_charged_alike():
    """Four streams of the same pace share evenly, and none is charged for being seen later."""
    bench, names = Bench().run_to(500), "abcd"
    for name in names:
        bench.begin(name)
    bench.stream(names, 2500)
    for name in names:
        bench.end(name, 80)
    bench.run_to(3500)
    parts = [bench.charge(name).energy_uj for name in names]
    assert sum(parts) == pytest.approx(400 * 2 * S // 1000, rel=0.06)
    assert max(parts) == pytest.approx(min(parts), rel=0.01)


def test_a_long_prompt_costs_more_than_its_neighbours_tokens():
    """While a prompt is computed it is most of the tokens, and so of the joules."""
    bench = Bench(method="token-share").run_to(500)
    bench.begin("decoding")
    bench.stream(["decoding"], 1000)
    bench.begin("prompt", input_tokens=5000)
    bench.stream(["decoding"], 1500)
    bench.tokens("prompt")
    bench.run_to(1525)
    for name in ("prompt", "decoding"):
        bench.end(name)
    bench.run_to(2500)
    prompt = bench.charge("prompt")
    assert prompt.energy_uj > 0.9 * 400 * 0.5 * 1e6
    assert prompt.prefill_uj > 0.95 * prompt.energy_uj


@pytest.mark.parametrize("seen_ms", [0, 500])
def test_a_counter_that_falls_silent_is_not_waited_for(seen_ms):
    """A second after the end the record is settled all the same: mixed where part was measured, unavailable where nothing was."""
    bench = Bench().run_to(1000)
    bench.begin("r")
    bench.run_to(1000 + seen_ms)
    bench.silent = True
    bench.run_to(1600)
    bench.end("r")
    bench.run_to(1600 + SILENCE_NS // MS - TICK_MS)
    assert not bench.settled
    bench.run_to(1600 + SILENCE_NS // MS + 2 * TICK_MS)
    charge = bench.charge("r")
    assert charge.settled
    assert charge.status is (Status.MIXED if seen_ms else Status.UNAVAILABLE)
    assert (charge.energy_uj is None) is (seen_ms == 0)


def test_a_request_from_before_the_first_change_is_mixed():
    """What was drawn before anybody looked is in no window, and the status says so."""
    bench = Bench()
    bench.begin("early")
    bench.stream(["early"], 1000)
    bench.end("early")
    bench.begin("later")
    bench.stream(["later"], 1500)
    bench.end("later")
    bench.run_to(2500)
    assert bench.charge("early").status is Status.MIXED
    assert bench.charge("later").status is Status.MEASURED


def test_after_a_gap_the_energy_is_nobody_s():
    """What was drawn while the counter was silent for long is unattributed, and who ran then is mixed."""
    bench = Bench().run_to(500)
    bench.begin("r")
    bench.stream(["r"], 1000)
    bench.silent = True
    bench.stream(["r"], 4000)
    bench.silent = False
    bench.stream(["r"], 5000)
    bench.end("r")
    bench.run_to(6000)
    assert bench.charge("r").status is Status.MIXED
    assert bench.meter.balance.unattributed_uj == pytest.approx(400 * 3 * 1e6, rel=0.1)
    assert bench.meter.balance.conserved


def test_after_a_gap_the_energy_of_who_was_settled_without_it_is_not_idle():
    """Whoever ran while the counter was silent has been settled as unavailable; that something ran is known all the same. What was drawn
    in a second silence, in which nobody ran, is idle."""
    bench = Bench().run_to(1000)
    bench.silent = True
    bench.begin("r")
    bench.stream(["r"], 1500)
    bench.end("r")
    bench.run_to(4000)
    assert bench.charge("r").status is Status.UNAVAILABLE
    bench.silent = False
    bench.run_to(5000)
    assert bench.meter.balance.unattributed_uj == pytest.approx(400 * 3 * 1e6, rel=0.1)
    idle_uj = bench.meter.balance.idle_uj
    bench.silent = True
    bench.run_to(7000)
    bench.silent = False
    bench.run_to(8000)
    assert bench.meter.balance.idle_uj - idle_uj == pytest.approx(400 * 3 * 1e6, rel=0.1)
    assert bench.meter.balance.conserved


def test_a_counter_that_is_slow_is_not_silent():
    """With a new value every 30 s, as DCGM's exporter has by itself, a record waits for the value that its end is in, and is measured."""
    meter, settled = Meter([Device("GPU", "a board")], source="dcgm", status=Status.MEASURED, period_ns=30 * S), []
    for second in range(200):
        t_ns, uj = second * S, second // 30 * 30 * 400 * 10**6
        if second == 100:
            meter.begin("r", t_ns, input_tokens=10)
        if second == 110:
            settled += meter.end("r", t_ns, RequestFacts("r", "r", 0, 0, Outcome.COMPLETED, "chat.completions", "vllm", False, 200))
        settled += meter.sample([Reading(t_ns, t_ns, uj)])
        assert bool(settled) == (second >= 120)
    (record,) = settled
    assert record.charge.status is Status.MEASURED
    assert record.charge.energy_uj == pytest.approx(10 * 400 * 10**6, rel=0.2)
    assert meter.balance.conserved


def test_two_boards_are_one_group():
    """A request that runs on two boards is charged for both."""
    bench = Bench(2)
    bench.power_w = [400, 200]
    bench.run_to(500)
    bench.begin("r")
    bench.stream(["r"], 1500)
    bench.end("r")
    bench.run_to(2500)
    charge = bench.charge("r")
    assert charge.devices == ("GPU-0", "GPU-1")
    assert charge.energy_uj == pytest.approx(600 * 1e6, rel=0.06)
    assert bench.meter.power_w(bench.now_ms * MS) == pytest.approx(600)
    assert bench.meter.power_w(bench.now_ms * MS + 10**10) is None  # a counter that has fallen silent says nothing of now


def test_a_simulated_joule_stays_one():
    """The source's status goes through, provisional and settled."""
    bench = Bench(status=Status.SIMULATED).run_to(500)
    bench.begin("r")
    bench.run_to(900)
    assert bench.meter.charge("r", bench.now_ms * MS).status is Status.SIMULATED
    bench.end("r")
    bench.run_to(1500)
    assert bench.charge("r").status is Status.SIMULATED


def test_what_is_said_before_the_end_is_near_what_is_settled():
    """The provisional charge of a steady stream differs from the settled one by less than it says it might."""
    bench = Bench().run_to(500)
    bench.begin("r")
    bench.stream(["r"], 1950)
    early = bench.meter.charge("r", bench.now_ms * MS)
    bench.end("r")
    bench.run_to(3000)
    settled = bench.charge("r")
    assert (early.status, early.settled) == (Status.PROVISIONAL, False)
    assert abs(early.energy_uj - settled.energy_uj) <= early.uncertainty_uj + settled.uncertainty_uj


def test_a_refused_request_is_charged_nothing_beside_a_running_one():
    """The engine answered 400: it computed no token."""
    bench = Bench().run_to(500)
    for name in ("running", "refused"):
        bench.begin(name)
    bench.stream(["running"], 1050)
    bench.end("refused", status=400)
    bench.stream(["running"], 2050)
    bench.end("running")
    bench.run_to(3000)
    assert bench.charge("refused").energy_uj < 0.05 * bench.charge("running").energy_uj


@pytest.mark.parametrize("wait_ms", [0, 30])
def test_equal_requests_that_show_nothing_are_charged_alike(wait_ms):
    """Four answers that are not streamed, asked for at once (or one after the other), while nobody else runs: a quarter each."""
    bench, names = Bench().run_to(500), "abcd"
    for name in names:
        bench.begin(name, streamed=False, input_tokens=64)
        bench.run_to(bench.now_ms + wait_ms)
    bench.run_to(2500)
    for name in names:
        bench.end(name, 100)
    bench.run_to(3500)
    parts = [bench.charge(name).energy_uj for name in names]
    assert sum(parts) == pytest.approx(400 * 2 * S // 1000, rel=0.06)
    assert max(parts) == pytest.approx(min(parts), rel=0.12)
