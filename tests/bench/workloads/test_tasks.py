"""Rows of ML.ENERGY's data sets become the requests that its benchmark makes of them."""

import base64
import importlib.util
from pathlib import Path
from random import Random

import pytest

from perjoule.bench.workloads.hub import turns_of
from perjoule.bench.workloads.open import workload_of
from perjoule.bench.workloads.tasks import TASKS, data_url
from perjoule.bench.workloads.workload import CHAT, COMPLETIONS, IMAGES, VIDEOS, WorkloadError

GPQA = Path(__file__).parent / "files" / "gpqa"
HAS_DATASETS = importlib.util.find_spec("datasets") is not None
PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)


def test_chat_asks_each_question_with_its_history() -> None:
    said = [{"role": role, "content": text, "num_tokens": 3} for role, text in
            (("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))]
    turns = TASKS["lm-arena-chat"].turns({"turn": 2, "conversation_a": said}, Random(1))
    assert [(turn.body or {})["messages"] for turn in turns] == [
        [{"role": "user", "content": "a"}],
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]]
    assert {(turn.endpoint, turn.output_tokens, turn.session) for turn in turns} == {(CHAT, 4096, None)}


def test_gpqa_lists_its_choices_in_random_order() -> None:
    row = {"Question": "Q?", "Correct Answer": "right ", "Incorrect Answer 1": "1", "Incorrect Answer 2": "2", "Incorrect Answer 3": "3"}
    asked = set()
    for seed in range(200):
        (turn,) = TASKS["gpqa"].turns(row, Random(seed))
        question, *choices = (turn.body or {})["messages"][0]["content"].split("\n(")
        assert question == "What is the correct answer to the following question: Q?\n\nChoices:"
        assert [choice[:3] for choice in choices] == ["A) ", "B) ", "C) ", "D) "]
        asked.add(tuple(choice[3:] for choice in choices))
    assert {tuple(sorted(order)) for order in asked} == {("1", "2", "3", "right")}
    assert len(asked) == 24


def test_a_gap_in_code_keeps_both_sides() -> None:
    (turn,) = TASKS["sourcegraph-fim"].turns({"prefix": "def f(", "middle": "x", "suffix": "): pass"}, Random(1))
    assert (turn.body, turn.endpoint, turn.output_tokens) == ({"prompt": "def f(", "suffix": "): pass"}, COMPLETIONS, 2048)


def test_an_image_is_a_part_of_the_message() -> None:
    conversation = [[{"role": "user", "content": "What is it?"}], [{"role": "assistant", "content": "A dot."}]]
    (turn,) = TASKS["image-chat"].turns({"conversation": conversation, "images": [{"bytes": PNG, "path": "x"}]}, Random(1))
    text, image = (turn.body or {})["messages"][0]["content"]
    assert text == {"type": "text", "text": "What is it?"}
    assert base64.b64decode(image["image_url"]["url"].removeprefix("data:image/png;base64,")) == PNG
    assert TASKS["image-chat"].turns({"conversation": conversation[:1], "images": []}, Random(1)) == []


def test_a_decoded_image_becomes_a_jpeg() -> None:
    pillow = pytest.importorskip("PIL.Image")
    assert data_url(pillow.new("RGBA", (2, 2))).startswith("data:image/jpeg;base64,/9j/")


def test_prompts_of_pictures_and_videos() -> None:
    (picture,) = TASKS["text-to-image"].turns({"prompt": " a fox "}, Random(1))
    (video,) = TASKS["text-to-video"].turns({"text": "a fox runs"}, Random(1))
    assert (picture.endpoint, (picture.body or {})["prompt"]) == (IMAGES, "a fox")
    assert (video.endpoint, (video.body or {})["prompt"]) == (VIDEOS, "a fox runs")
    assert "num_inference_steps" not in (picture.body or {})
    assert TASKS["text-to-image"].turns({"prompt": None}, Random(1)) == []


def test_rows_are_taken_until_there_are_enough_and_empty_ones_are_counted() -> None:
    rows = [{"prompt": text} for text in ("a", "", None, "b", "c")]
    turns, read, empty = turns_of(rows, TASKS["text-to-image"], "d", 2, 1)
    assert [(turn.body or {})["prompt"] for turn in turns] == ["a", "b"]
    assert (read, empty) == (4, 2)
    talk = {"turn": 2, "conversation_a": [{"role": "user", "content": "x"}] * 4}
    assert len(turns_of([talk] * 5, TASKS["lm-arena-chat"], "d", 3, 1)[0]) == 3


def test_other_columns_are_named() -> None:
    with pytest.raises(WorkloadError, match="hf:my/data, row 1: got question, answer, expected prefix, suffix"):
        turns_of([{"question": "a", "answer": "b"}], TASKS["sourcegraph-fim"], "my/data", 2, 1)


@pytest.mark.skipif(HAS_DATASETS, reason="the datasets library is installed")
def test_without_the_library_it_is_said_what_to_install() -> None:
    with pytest.raises(WorkloadError, match=r"hf:Idavidrein/gpqa: got no `datasets` library, expected it: pip install datasets"):
        workload_of("hf:Idavidrein/gpqa", seed=1)


@pytest.mark.skipif(not HAS_DATASETS, reason="needs the datasets library")
def test_a_local_folder_is_read_like_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rows for the same seed, in another order for another; a folder that is none is refused."""
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    workload = workload_of(f"hf:{GPQA}:gpqa", seed=1)
    assert len(workload.turns) == workload.read == 3
    assert workload == workload_of(f"hf:{GPQA}:gpqa", seed=1)
    assert len(workload_of(f"hf:{GPQA}:gpqa,2", seed=1).turns) == 2
    with pytest.raises(WorkloadError, match="expected a data set that the hub gives"):
        workload_of(f"hf:{tmp_path}:gpqa", seed=1)
