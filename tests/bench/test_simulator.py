"""The simulator against its own statement: what steps cost, how long they take, and that no microjoule is lost."""

from itertools import combinations
from math import factorial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.bench.physics import H200, Linear, Roofline
from perjoule.bench.recorded_steps import RECORDED
from perjoule.bench.simulator import Board, Sequence, Simulator

MS = 1_000_000
HOUR_NS = 3_600_000 * MS


def finished(simulator: Simulator, until_ns: int = HOUR_NS) -> list[tuple[Sequence, int]]:
    """Run to the end; every token given."""
    return [(token.sequence, token.nth) for token in simulator.advance(until_ns)]


def joules_of(sequences: list[Sequence]) -> int:
    return sum(sequence.prefill_uj + sequence.decode_uj for sequence in sequences)


def test_one_request_costs_what_the_physics_say():
    """A lone request pays every step of its own, its prompt tokens, and its context at each decoded token."""
    simulator = Simulator(0)
    sequence = simulator.submit(0, input_tokens=10, output_tokens=3)
    assert finished(simulator) == [(sequence, 1), (sequence, 2), (sequence, 3)]
    assert sequence.prefill_uj == H200.step_uj + 10 * H200.prefill_token_uj
    assert sequence.decode_uj == 2 * (H200.step_uj + H200.decode_token_uj) + (11 + 12) * H200.context_token_uj
    assert sequence.first_token_ns == H200.step_ns + 10 * H200.prefill_token_ns
    assert sequence.last_token_ns == sequence.first_token_ns + 2 * H200.step_ns


def test_a_share_is_the_shapley_value_of_its_step():
    """In one step, each member's truth equals the Shapley value computed from the cost of every coalition."""
    physics = Linear(step_uj=1_700_040)  # divisible by 2, 3, 4 and 5: no rounding in the way
    prompts = (10, 200, 1, 77)

    def cost(members: tuple[int, ...]) -> int:
        simulator = Simulator(0, physics)
        for i in members:
            simulator.submit(0, prompts[i], 0)
        simulator.advance(HOUR_NS)
        return simulator.board.total_uj - simulator.idle_uj

    together = Simulator(0, physics)
    sequences = [together.submit(0, tokens, 0) for tokens in prompts]
    finished(together)
    n = len(prompts)
    for i, sequence in enumerate(sequences):
        others = [j for j in range(n) if j != i]
        shapley = sum(
            factorial(size) * factorial(n - size - 1) * (cost((*coalition, i)) - cost(coalition))
            for size in range(n) for coalition in combinations(others, size)
        )
        assert sequence.prefill_uj * factorial(n) == shapley


def test_long_prompts_are_prefilled_in_chunks_beside_decodes():
    """A 5,000-token prompt takes three steps of at most 2,048 tokens, in which its neighbour still gets its tokens."""
    simulator = Simulator(0)
    neighbour = simulator.submit(0, 1, 6)
    simulator.advance(6 * MS)
    long = simulator.submit(6 * MS, 5000, 1)
    tokens = finished(simulator)
    assert tokens.index((long, 1)) > tokens.index((neighbour, 4))
    assert long.scheduled_ns is not None
    assert long.first_token_ns == long.scheduled_ns + 3 * H200.step_ns + 5000 * H200.prefill_token_ns


def test_beyond_max_num_seqs_requests_wait_and_cost_nothing():
    """With one seat, the second request is scheduled when the first has ended, and waiting has cost it nothing."""
    simulator = Simulator(0, max_num_seqs=1)
    first, second = simulator.submit(0, 5, 4), simulator.submit(0, 5, 4)
    simulator.advance(10 * MS)
    assert (len(simulator.running), len(simulator.waiting), joules_of([second])) == (1, 1, 0)
    finished(simulator)
    assert second.scheduled_ns == first.last_token_ns
    assert joules_of([first]) == joules_of([second])


def test_an_aborted_request_pays_the_step_under_way_and_no_more():
    """After abort no token comes and no joule is added, while the neighbour goes on."""
    simulator = Simulator(0)
    leaving, staying = simulator.submit(0, 5, 100), simulator.submit(0, 5, 10)
    simulator.advance(12 * MS)
    simulator.abort(leaving)
    paid = joules_of([leaving])
    assert {sequence for sequence, _ in finished(simulator)} == {staying}
    assert joules_of([leaving]) == paid
    assert staying.generated == 10


def test_an_abort_while_waiting_leaves_the_queue():
    """A request that leaves before it was scheduled never runs."""
    simulator = Simulator(0, max_num_seqs=1)
    simulator.submit(0, 5, 2)
    leaving = simulator.submit(0, 5, 2)
    simulator.abort(leaving)
    finished(simulator)
    assert (leaving.scheduled_ns, joules_of([leaving])) == (None, 0)


def test_a_request_without_output_ends_with_its_prefill():
    """An embedding gives one token numbered 0 and costs no decode."""
    simulator = Simulator(0)
    sequence = simulator.submit(0, 30, 0)
    assert finished(simulator) == [(sequence, 0)]
    assert (sequence.decode_uj, simulator.prompt_tokens, simulator.generation_tokens) == (0, 30, 0)


def test_idle_draws_idle_power():
    """Two seconds without work cost two seconds of idle power, and the gap between requests is idle too."""
    simulator = Simulator(0)
    simulator.advance(2000 * MS)
    assert simulator.idle_uj == 2 * 127_000_000
    simulator.submit(3000 * MS, 1, 1)
    simulator.advance(3500 * MS)
    busy_ns = H200.step_ns + H200.prefill_token_ns
    assert simulator.idle_uj == pytest.approx(127 * (3500 * MS - busy_ns) / 1000, abs=1)


def test_speed_keeps_joules_and_stretches_time():
    """At a quarter of the speed the same request costs the same joules over four times the time."""
    fast, slow = Simulator(0), Simulator(0, H200.at_speed(0.25))
    pair = [simulator.submit(0, 500, 20) for simulator in (fast, slow)]
    for simulator in (fast, slow):
        finished(simulator)
    assert joules_of(pair[:1]) == joules_of(pair[1:])
    assert pair[1].last_token_ns == 4 * pair[0].last_token_ns


def test_the_counter_moves_every_100_ms():
    """Readers between two ticks see the value of the last tick, as with NVML."""
    simulator = Simulator(0)
    simulator.advance(399 * MS)
    assert {simulator.board.read(t * MS) for t in range(300, 400)} == {(300 * 127_000, 127_000)}
    simulator.submit(399 * MS, 1, 1000)
    simulator.advance(450 * MS)
    energy_uj, power_mw = simulator.board.read(450 * MS)
    assert 400 * 127_000 < energy_uj < 401 * 400_000
    assert power_mw > 300_000


@given(st.lists(st.tuples(st.integers(1, 300 * MS), st.integers(0, 10**9)), max_size=20), st.integers(1, 10 * MS))
def test_the_counter_never_falls_and_ends_at_the_sum(spans, poll_ns):
    """Whatever is spent, a reader's values never decrease, and one tick after the last span the sum is seen."""
    board, t_ns, seen = Board(0), 0, 0
    for span_ns, uj in spans:
        board.spend(t_ns + span_ns, uj)
        for read_ns in range(t_ns, t_ns + span_ns, max(poll_ns, span_ns // 20)):
            energy_uj, _ = board.read(read_ns)
            assert energy_uj >= seen
            seen = energy_uj
        t_ns += span_ns
    board.spend(t_ns + 200 * MS, 0)
    assert board.read(t_ns + 200 * MS)[0] == sum(uj for _, uj in spans)


arrival = st.tuples(st.integers(0, 80 * MS), st.integers(1, 6000), st.integers(0, 40), st.booleans())


@pytest.mark.parametrize("physics", [H200, Roofline(), Roofline(experts=0.9), RECORDED], ids=["linear", "roofline", "experts", "recorded"])
@given(st.lists(arrival, max_size=25), st.integers(1, 8), st.sampled_from((1.0, 0.3, 7.0)))
def test_conserved(physics, arrivals, max_num_seqs, speed):
    """At every instant the counter's total is the idle joules and the truths of all requests, to the microjoule."""
    simulator, t_ns, sequences = Simulator(0, physics.at_speed(speed), max_num_seqs=max_num_seqs), 0, []
    for gap_ns, input_tokens, output_tokens, leaves in arrivals:
        t_ns += gap_ns
        simulator.advance(t_ns)
        sequences.append(simulator.submit(t_ns, input_tokens, output_tokens))
        if leaves:
            simulator.abort(sequences[len(sequences) // 2])
        assert len(simulator.running) <= max_num_seqs
        assert simulator.board.total_uj == simulator.idle_uj + joules_of(sequences)
    finished(simulator)
    assert simulator.board.total_uj == simulator.idle_uj + joules_of(sequences)
    assert all(s.aborted or (s.prefilled, s.generated) == (s.input_tokens, s.output_tokens) for s in sequences)
    assert simulator.next_ns is None


@pytest.mark.parametrize(("call", "said"), [
    (lambda: Simulator(0).submit(0, 0, 1), "got 0 input"),
    (lambda: Simulator(0, max_num_seqs=4096), "got 4096, expected 1 to 2048"),
    (lambda: H200.at_speed(0), "got 0, expected more than 0"),
])
def test_bad_input_is_named(call, said):
    """What cannot be simulated is refused with what was got and what was expected."""
    with pytest.raises(ValueError, match=said):
        call()
