"""ML.ENERGY's tasks: which data set each comes from, and how a row of it becomes requests."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from perjoule.bench.workloads.diffusion import job
from perjoule.bench.workloads.workload import CHAT, COMPLETIONS, Turn

Row = Mapping[str, Any]
MEDIA = {b"\xff\xd8": "jpeg", b"\x89PNG": "png", b"RIFF": "webp", b"GIF8": "gif"}  # by how a file begins


@dataclass(frozen=True, slots=True)
class Task:
    """A task: `dataset`, its configuration and split on the hub, and what makes turns of a row. KeyError, TypeError and IndexError of
    `turns` mean that the row has other columns than those named in `columns`. `streaming`: too large to fetch whole."""

    dataset: str
    columns: str
    turns: Callable[[Row, Random], list[Turn]]
    configuration: str | None = None
    split: str = "train"
    streaming: bool = False


def chat(row: Row, _: Random) -> list[Turn]:
    """Each question of conversation_a is a request with all that was said before it, the data set's answers included."""
    said = [{"role": one["role"], "content": one["content"]} for one in row["conversation_a"]]
    return [_chat(said[: 2 * turn + 1], 4096) for turn in range(row["turn"])]


def gpqa(row: Row, random: Random) -> list[Turn]:
    """The question and its four answers in random order."""
    choices = [row[f"Incorrect Answer {n}"].strip() for n in (1, 2, 3)] + [row["Correct Answer"].strip()]
    random.shuffle(choices)
    listed = "".join(f"\n({letter}) {choice}" for letter, choice in zip("ABCD", choices, strict=True))
    question = f"What is the correct answer to the following question: {row['Question']}\n\nChoices:{listed}"
    return [_chat([{"role": "user", "content": question}], 32768)]


def fill_in(row: Row, _: Random) -> list[Turn]:
    """Code around a gap. The tokens that mark it are the model's own, so they are put in when the model is known (`prompts.py`)."""
    return [Turn(body={"prompt": str(row["prefix"]), "suffix": str(row["suffix"])}, output_tokens=2048, endpoint=COMPLETIONS)]


def image_chat(row: Row, _: Random) -> list[Turn]:
    """The first question of a conversation and its first image; rows with no answer are passed over, as ML.ENERGY does."""
    if len(row["conversation"]) < 2:
        return []
    content = [{"type": "text", "text": row["conversation"][0][0]["content"]},
               {"type": "image_url", "image_url": {"url": data_url(row["images"][0])}}]
    return [_chat([{"role": "user", "content": content}], 4096)]


def picture(row: Row, random: Random) -> list[Turn]:
    """A picture of a prompt; steps and size are the server's own. Rows with no prompt are passed over."""
    prompt = (row["prompt"] or "").strip()
    return [job(prompt, random.getrandbits(31))] if prompt else []


def video(row: Row, random: Random) -> list[Turn]:
    """A video of a prompt, of 81 frames; steps and size are the server's own."""
    prompt = (row["text"] or "").strip()
    return [job(prompt, random.getrandbits(31), frames=81)] if prompt else []


def data_url(image: Any) -> str:
    """An image as a chat message has it: the file's own bytes where the data set has them ({"bytes": …}), else (Pillow) as a JPEG."""
    if isinstance(image, Mapping):
        content = bytes(image["bytes"])
    else:
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, format="JPEG")
        content = buffer.getvalue()
    kind = next((kind for begin, kind in MEDIA.items() if content.startswith(begin)), "jpeg")
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _chat(messages: Sequence[Mapping[str, Any]], most: int) -> Turn:
    return Turn(body={"messages": list(messages)}, output_tokens=most, endpoint=CHAT)  # ML.ENERGY's own caps


TASKS = {
    "lm-arena-chat": Task("lmarena-ai/arena-human-preference-100k", "turn, conversation_a", chat),
    "gpqa": Task("Idavidrein/gpqa", "Question, Correct Answer, Incorrect Answer 1 to 3", gpqa, configuration="gpqa_diamond"),
    "sourcegraph-fim": Task("sourcegraph/context-aware-fim-code-completions", "prefix, suffix", fill_in),
    "image-chat": Task("lmarena-ai/VisionArena-Chat", "conversation, images", image_chat, streaming=True),
    "text-to-image": Task("data-is-better-together/open-image-preferences-v1", "prompt", picture, split="cleaned"),
    "text-to-video": Task("RaphaelLiu/EvalCrafter_T2V_Dataset", "text", video),
}
