"""Filters keep the order, count what they drop, and say what they change; flags apply them in one order."""

from argparse import ArgumentParser, Namespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.bench.workloads import filters
from perjoule.bench.workloads.flags import add_flags, filtered, said, window_of
from perjoule.bench.workloads.workload import CHAT, Turn, Workload, WorkloadError


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    """Turns in time, some in sessions, some with bodies; those without a time follow in their session."""
    turns: list[Turn] = []
    at_s, seen = 0.0, set()
    for number in range(draw(st.integers(1, 30))):
        at_s += draw(st.sampled_from([0.0, 0.5, 3.0]))
        session = draw(st.sampled_from([None, None, "a", "b"]))
        timed = session not in seen or draw(st.booleans())
        body = draw(st.sampled_from([None, None, {"prompt": "x"}]))
        lengths = (None, draw(st.none() | st.integers(1, 9000))) if body else (draw(st.integers(1, 9000)), draw(st.integers(1, 900)))
        turns.append(Turn(at_s if timed else None, *lengths, blocks=(number,), body=body, session=session, think_s=float(number % 3)))
        seen.add(session) if session else None
    return Workload("w", "w", tuple(turns), len(turns) + 2, {"failed": 2})


FILTERS = st.one_of(
    st.builds(lambda a, w: lambda x: filters.windowed(x, (a, a + w)), st.sampled_from([0.0, 1.0, 7.0]), st.sampled_from([0.5, 5.0, 100.0])),
    st.builds(lambda p, seed: lambda x: filters.thinned(x, p, seed), st.floats(0.01, 1), st.integers(0, 9)),
    st.builds(lambda f: lambda x: filters.scaled_lengths(x, f), st.floats(0.001, 3)),
    st.builds(lambda n, clip: lambda x: filters.within_context(x, n, clip=clip), st.integers(2, 9000), st.booleans()),
    st.builds(lambda n: lambda x: filters.capped_output(x, n), st.integers(1, 900)),
    st.builds(lambda n: lambda x: filters.limited(x, n), st.integers(1, 30)),
    st.builds(lambda f: lambda x: filters.scaled_time(x, f), st.floats(0.01, 9)),
    st.just(filters.in_words),
)


@given(workloads(), st.lists(FILTERS, max_size=4))
def test_filters_keep_the_order_and_counts_add_up(workload: Workload, chain) -> None:
    """read == kept + dropped, whatever is done in whatever order; blocks number the turns, and stay in order; times do not fall."""
    try:
        for step in chain:
            workload = step(workload)
    except WorkloadError:  # no time left, or nothing in the window
        return
    assert workload.read == len(workload.turns) + sum(workload.dropped.values())
    numbers = [turn.blocks[0] for turn in workload.turns]
    assert numbers == sorted(set(numbers))
    times = [turn.at_s for turn in workload.turns if turn.at_s is not None]
    assert times == sorted(times)
    assert all((turn.input_tokens or 1) >= 1 and (turn.output_tokens or 1) >= 1 for turn in workload.turns)
    assert all(workload.dropped.values())


@given(workloads(), st.floats(0.01, 1), st.floats(0.01, 1), st.integers(0, 9))
def test_thinning_keeps_sessions_whole_and_less_of_it_keeps_more(workload: Workload, p: float, q: float, seed: int) -> None:
    less, more = ({turn.blocks for turn in filters.thinned(workload, x, seed).turns} for x in sorted((p, q)))
    assert less <= more
    for session in ("a", "b"):
        whole = {turn.blocks for turn in workload.turns if turn.session == session}
        assert whole <= more or not whole & more


@given(workloads(), st.integers(2, 9000))
def test_everything_fits_into_the_context(workload: Workload, tokens: int) -> None:
    """Dropped or clipped, no lengths exceed it; what fitted is untouched; a session is cut off where it did not fit, not in its middle."""
    clipped, kept = filters.within_context(workload, tokens, clip=True), filters.within_context(workload, tokens)
    for one in (clipped, kept):
        assert all((turn.input_tokens or 0) + (turn.output_tokens or 0) <= tokens for turn in one.turns if turn.body is None)
        assert all((turn.output_tokens or 0) < tokens for turn in one.turns if turn.body is not None)
    for before, after in zip(workload.turns, clipped.turns, strict=True):
        fits = before.body is not None or (before.input_tokens or 0) + (before.output_tokens or 0) <= tokens
        assert after.body == before.body
        assert not fits or before.body is not None or after == before
        assert fits or (after.input_tokens or 0) + (after.output_tokens or 0) == tokens
    for session in ("a", "b"):
        all_of, left = ([turn.blocks for turn in one.turns if turn.session == session] for one in (workload, kept))
        assert left == all_of[: len(left)]


def test_clipping_takes_from_the_input_first_and_says_how_much() -> None:
    workload = Workload("w", "w", (Turn(None, 90, 20), Turn(None, 50, 200), Turn(None, 50, 50), Turn(body={}, output_tokens=7)), 4)
    clipped = filters.within_context(workload, 100, clip=True)
    assert [(turn.input_tokens, turn.output_tokens) for turn in clipped.turns] == [(80, 20), (1, 99), (50, 50), (None, 7)]
    assert clipped.notes == ("2 requests were clipped to 100 tokens: 59 input and 101 output tokens less.",
                             "1 requests have bodies of unknown length, which were not compared with the context.")
    dropped = filters.within_context(workload, 100)
    assert dropped.dropped == {"longer than 100 tokens": 2}


def test_a_window_begins_at_zero_and_takes_later_turns_along() -> None:
    """Its end is not in it. The first of a session that is left does not wait for an answer that never was."""
    turns = (Turn(0.0, 1, 1, session="a"), Turn(5.0, 2, 1, session="a", think_s=3.0), Turn(None, 3, 1, session="a", think_s=2.0),
             Turn(6.0, 4, 1), Turn(8.0, 5, 1))
    workload = filters.windowed(Workload("w", "w", turns, 5), (4.0, 8.0))
    assert [(turn.input_tokens, turn.at_s, turn.think_s) for turn in workload.turns] == [(2, 1.0, 0.0), (3, None, 2.0), (4, 2.0, 0.0)]
    assert workload.dropped == {"outside the window": 2}


def test_twice_the_time_is_half_as_fast() -> None:
    turns = (Turn(1.0, 1, 1, session="a"), Turn(None, 1, 1, session="a", think_s=2.0))
    scaled = filters.scaled_time(Workload("w", "w", turns, 2), 2.0)
    assert [(turn.at_s, turn.think_s) for turn in scaled.turns] == [(2.0, 0.0), (None, 4.0)]
    assert scaled.notes == ("All times were multiplied by 2.",)


def test_scaled_lengths_scale_what_is_shared() -> None:
    """Or two long prompts that shared a twentieth would, once short, share all or nothing."""
    (turn,) = filters.scaled_lengths(Workload("w", "w", (Turn(None, 10240, 100, tuple(range(20))),), 1), 0.01).turns
    assert (turn.input_tokens, turn.output_tokens, turn.block_tokens) == (102, 1, 5)


@pytest.mark.parametrize("step", [lambda w: filters.windowed(w, (0.0, 9.0)), lambda w: filters.scaled_time(w, 2.0)])
def test_times_of_a_workload_without_are_refused(step) -> None:
    with pytest.raises(WorkloadError, match="got w, which has no times, expected a trace"):
        step(Workload("w", "w", (Turn(None, 1, 1),), 1))


def test_a_window_with_nothing_in_it_is_refused() -> None:
    with pytest.raises(WorkloadError, match="got no request from 5 to 6 s of w, expected at least one"):
        filters.windowed(Workload("w", "w", (Turn(0.0, 1, 1),), 1), (5.0, 6.0))


def parsed(*argv: str) -> Namespace:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--seed", type=int, default=0)
    add_flags(parser)
    return parser.parse_args(argv)


def test_flags_are_filters_in_their_order() -> None:
    """The window first, so that its seconds are the trace's, and the limit after what drops, so that as many are left."""
    turns = tuple(Turn(float(at), 100 * at, 10) for at in range(1, 10))
    args = parsed("--time-scale", "0.5", "--limit", "2", "--max-context", "410", "--window", "2:", "--prompts", "text",
                  "--scale-lengths", "0.5")
    workload = filtered(Workload("w", "w", turns, 9), args)
    assert [(turn.at_s, turn.input_tokens, turn.endpoint) for turn in workload.turns] == [(0.0, 100, CHAT), (0.5, 150, CHAT)]
    assert workload.dropped == {"outside the window": 1, "longer than 410 tokens": 1, "beyond the limit": 5}
    assert len(workload.notes) == 4
    assert said(args) == ["--window 2:inf", "--scale-lengths 0.5", "--max-context 410", "--limit 2", "--time-scale 0.5"]
    assert window_of(args) == (2.0, float("inf"))


def test_no_flags_change_nothing() -> None:
    workload = Workload("w", "w", (Turn(None, 1, 1),), 1)
    assert filtered(workload, parsed()) is workload
    assert said(parsed()) == []


def test_nothing_left_is_refused_with_the_counts() -> None:
    with pytest.raises(WorkloadError, match=r"w: got no requests left of 2 \(1 failed, 1 longer than 10 tokens\), expected at least one"):
        filtered(Workload("w", "w", (Turn(None, 9, 9),), 2, {"failed": 1}), parsed("--max-context", "10"))


@pytest.mark.parametrize(("argv", "said_of_it"), [
    (["--window", "5"], "got '5', expected A:B"), (["--window", "5:5"], "expected A:B"), (["--window", "a:b"], "expected A:B"),
    (["--thin", "1.5"], "expected a probability"), (["--thin", "0"], "got '0', expected a number above 0"),
    (["--limit", "0"], "got '0', expected a whole number, at least 1"), (["--max-context", "x"], "expected a whole number, at least 2"),
    (["--time-scale", "inf"], "expected a number above 0"), (["--scale-lengths", "-1"], "expected a number above 0"),
])
def test_a_wrong_flag_says_what_is_expected(argv: list[str], said_of_it: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = ArgumentParser()
    add_flags(parser)
    with pytest.raises(SystemExit) as exit_:
        parser.parse_args([f"{argv[0]}={argv[1]}"])
    assert exit_.value.code == 2
    assert said_of_it in capsys.readouterr().err
