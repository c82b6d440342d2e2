"""Conversations and bodies: each question with what was said before it, in its session, at its endpoint, at its time."""

from pathlib import Path

from perjoule.bench.workloads.open import workload_of

FILES = Path(__file__).parent / "files"


def test_each_question_carries_what_was_said_before_it() -> None:
    """ShareGPT's answers are the history; a break in the alternation, or an empty text, ends a conversation, and counts the rest."""
    workload = workload_of(f"sharegpt:{FILES / 'sharegpt.json'}", seed=1)
    said = [(turn.session, [one["content"] for one in (turn.body or {})["messages"]]) for turn in workload.turns]
    assert said == [
        ("one", ["What is a joule?"]),
        ("one", ["What is a joule?", "A watt for a second.", "And a watt-hour?"]),
        ("two", ["Go on."]),
        ("one#2", ["Be brief.", "Hello"]),
    ]
    roles = [one["role"] for one in (workload.turns[1].body or {})["messages"]]
    assert roles == ["user", "assistant", "user"]
    assert {turn.endpoint for turn in workload.turns} == {"/v1/chat/completions"}
    assert (workload.read, workload.dropped) == (6, {"after a break in the conversation": 2})


def test_lines_of_json_are_bodies_batch_lines_or_lengths() -> None:
    """By time from the earliest on; a later turn of a session right behind its first, though it has no time."""
    workload = workload_of(f"jsonl:{FILES / 'requests.jsonl'}", seed=1)
    embedding, lengths, first, again, prompt = workload.turns
    assert (embedding.at_s, embedding.endpoint, embedding.body) == (0.0, "/v1/embeddings", {"input": "a text", "model": "theirs"})
    assert (lengths.at_s, lengths.input_tokens, lengths.output_tokens, lengths.blocks) == (1.0, 700, 5, (1, 2))
    assert (first.at_s, first.session, first.output_tokens, first.endpoint) == (2.5, "s", 9, "/v1/chat/completions")
    assert set(first.body or {}) == {"messages", "max_completion_tokens", "model"}
    assert (again.at_s, again.session, again.think_s) == (None, "s", 4.0)
    assert (prompt.at_s, prompt.endpoint, prompt.output_tokens) == (3.0, "/v1/completions", None)
    assert (workload.read, workload.dropped) == (5, {})
