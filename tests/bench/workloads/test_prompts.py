"""Prompts have the length that is asked for, are the same for the same seed and request, and share what the trace says is shared."""

import pickle
from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.bench.workloads.prompts import WORDS, Prompter
from perjoule.bench.workloads.workload import CHAT, IMAGES, Turn

PROMPTER = Prompter("m", 1)
LENGTHS = st.integers(1, 3000)


def ids(turn: Turn, index: int, prompter: Prompter = PROMPTER) -> list[int]:
    prompt: list[int] = prompter.body(turn, index)["prompt"]
    return prompt


@given(LENGTHS, st.lists(st.integers(0, 5), max_size=8), st.integers(1, 600), st.none() | st.just("s"), st.integers(101, 200000))
def test_a_prompt_is_exactly_as_long_as_asked_and_in_the_vocabulary(tokens: int, blocks: list[int], block_tokens: int, session: str | None,
                                                                    vocabulary: int) -> None:
    turn = Turn(None, tokens, 5, tuple(blocks), session=session, block_tokens=block_tokens)
    prompt = ids(turn, 3, Prompter("m", 1, vocabulary))
    assert len(prompt) == tokens
    assert all(100 <= token < vocabulary for token in prompt)


def test_the_body_asks_for_an_answer_of_exactly_this_length() -> None:
    body = PROMPTER.body(Turn(None, 4, 7), 0)
    assert {**body, "prompt": len(body["prompt"])} == {"model": "m", "prompt": 4, "max_tokens": 7, "min_tokens": 7, "ignore_eos": True}
    assert set(Prompter("m", 1, forced=False).body(Turn(None, 4, 7), 0)) == {"model", "prompt", "max_tokens"}


def test_equal_seed_and_index_are_equal_bytes_in_any_process() -> None:
    """A prompter is pickled into client processes, small, and makes there what it makes here."""
    again: Prompter = pickle.loads(pickle.dumps(PROMPTER))
    for turn in (Turn(None, 333, 7, (1, 2)), Turn(None, 333, 7, session="s"), Turn(None, 20, 2, endpoint=CHAT)):
        assert orjson.dumps(again.body(turn, 5)) == orjson.dumps(Prompter("m", 1).body(turn, 5))
    assert len(pickle.dumps(PROMPTER)) < 200


def test_other_requests_and_other_seeds_share_no_beginning() -> None:
    """A prefix cache of blocks of 16 tokens finds nothing that was not meant."""
    turn = Turn(None, 64, 1)
    beginnings = {tuple(ids(turn, index, prompter)[:16]) for index in range(500) for prompter in (PROMPTER, Prompter("m", 2))}
    assert len(beginnings) == 1000


@given(st.lists(st.integers(0, 3), min_size=1, max_size=5), st.lists(st.integers(0, 3), min_size=1, max_size=5), st.integers(1, 40))
def test_as_many_blocks_as_are_equal_are_equal_text(one: list[int], other: list[int], block_tokens: int) -> None:
    """And the rest is each request's own."""
    tokens = 5 * block_tokens + 64
    a, b = (ids(Turn(None, tokens, 1, tuple(blocks), block_tokens=block_tokens), index) for index, blocks in enumerate((one, other)))
    shared = next((at for at, (x, y) in enumerate(zip(one, other, strict=False)) if x != y), min(len(one), len(other)))
    assert a[: shared * block_tokens] == b[: shared * block_tokens]
    assert a[shared * block_tokens:][:32] != b[shared * block_tokens:][:32]


def test_a_block_that_is_not_full_is_the_beginning_of_the_full_one() -> None:
    assert ids(Turn(None, 700, 1, (8, 9)), 0) == ids(Turn(None, 1024, 1, (8, 9)), 1)[:700]


@given(LENGTHS, LENGTHS)
def test_the_history_of_a_session_grows(shorter: int, longer: int) -> None:
    """A later turn's prompt begins with the one before it, as far as that goes, odd lengths included; another session's does not."""
    shorter, longer = sorted((shorter, longer))
    first, later = ids(Turn(None, shorter, 1, session="s"), 0), ids(Turn(None, longer, 1, session="s"), 9)
    assert later[:shorter] == first
    assert longer < 16 or ids(Turn(None, longer, 1, session="t"), 9)[:16] != later[:16]


def test_text_is_as_many_words() -> None:
    turn = Turn(None, 600, 5, (1,), endpoint=CHAT)
    body = PROMPTER.body(turn, 0)
    words = body["messages"][0]["content"].split(" ")
    assert len(words) == 600
    assert set(words) <= set(WORDS)
    assert (body["max_tokens"], body["ignore_eos"]) == (5, True)
    assert PROMPTER.body(turn, 1)["messages"][0]["content"].split(" ")[:512] == words[:512]
    assert len(WORDS) == len(set(WORDS))


def test_a_body_is_theirs_with_our_model_and_a_cap() -> None:
    turn = Turn(output_tokens=9, body={"messages": [], "model": "theirs", "temperature": 0}, endpoint=CHAT)
    assert PROMPTER.body(turn, 0) == {"messages": [], "model": "m", "temperature": 0, "max_tokens": 9}
    assert turn.body == {"messages": [], "model": "theirs", "temperature": 0}


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "max_output_tokens"])
def test_a_bodys_own_cap_stays_or_goes_down(name: str) -> None:
    turn = Turn(output_tokens=9, body={name: 5}, endpoint=CHAT)
    assert PROMPTER.body(turn, 0) == {name: 5, "model": "m"}
    assert PROMPTER.body(replace(turn, output_tokens=2), 0) == {name: 2, "model": "m"}
    assert PROMPTER.body(replace(turn, output_tokens=None), 0) == {name: 5, "model": "m"}


def test_a_job_of_pictures_has_no_cap() -> None:
    assert PROMPTER.body(Turn(output_tokens=9, body={"prompt": "a fox"}, endpoint=IMAGES), 0) == {"prompt": "a fox", "model": "m"}


@pytest.mark.parametrize(("model", "prompt"), [
    ("Qwen/Qwen3-Coder-30B", "<|fim_prefix|>a<|fim_suffix|>{b}<|fim_middle|>"),
    ("google/codegemma-7b", "<|fim_prefix|>a<|fim_suffix|>{b}<|fim_middle|>"),
    ("deepseek-ai/DeepSeek-Coder-V2", "<｜fim▁begin｜>a<｜fim▁hole｜>{b}<｜fim▁end｜>"),
])
def test_a_gap_in_code_is_marked_as_the_model_marks_it(model: str, prompt: str) -> None:
    turn = Turn(body={"prompt": "a", "suffix": "{b}"})
    assert Prompter(model, 1).body(turn, 0) == {"prompt": prompt, "model": model}
    assert PROMPTER.body(turn, 0) == {"prompt": "a", "suffix": "{b}", "model": "m"}


def test_what_cannot_be_made_is_refused() -> None:
    with pytest.raises(ValueError, match="got 100, expected more than 100 token ids"):
        Prompter("m", 1, 100)
    with pytest.raises(ValueError, match="request 4: got a turn of 7 input and None output tokens, expected a body, or both"):
        PROMPTER.body(Turn(None, 7), 4)
