"""A few dozen mixed requests and their clients: short and long, streamed and whole, one who leaves halfway."""

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Any

from openai import AsyncOpenAI, OpenAIError

MEAN_GAP_S = 0.15
CHARACTERS_A_TOKEN = 4  # as the embedded engine counts


class Kind(StrEnum):
    """What somebody may want of a model."""

    CHAT = "chat"
    WHOLE = "chat, whole"
    COMPLETION = "completion"
    DOCUMENT = "long document"
    STORY = "long story"
    LEAVER = "leaves halfway"


# prompt tokens from and to, output tokens from and to
SIZES = {Kind.CHAT: (40, 240, 40, 120), Kind.WHOLE: (40, 240, 30, 90), Kind.COMPLETION: (60, 400, 40, 110),
         Kind.DOCUMENT: (3000, 6000, 20, 50), Kind.STORY: (30, 80, 220, 300), Kind.LEAVER: (60, 200, 200, 300)}
MIX = [Kind.CHAT] * 4 + [Kind.WHOLE] * 3 + [Kind.COMPLETION] * 2 + [Kind.DOCUMENT] * 2 + [Kind.STORY]
LEAVES_AFTER = 30  # tokens


@dataclass(slots=True)
class Visit:
    """One request: what is asked and when, then what came of it."""

    request_id: str
    kind: Kind
    at_s: float
    prompt_tokens: int
    max_tokens: int
    tokens: int = 0
    record_path: str | None = None
    begun: bool = False
    ended: bool = False
    failure: str | None = None
    record: dict[str, Any] | None = None


def plan(count: int, seed: int) -> list[Visit]:
    """`count` visits in order of time; a third of the way in, one is a client who leaves halfway."""
    random, at_s, visits, kinds = Random(seed), 0.0, [], list[Kind]()
    for number in range(count):
        kinds = kinds or random.sample(MIX, len(MIX))
        kind = Kind.LEAVER if number == count // 3 else kinds.pop()
        least_in, most_in, least_out, most_out = SIZES[kind]
        visits.append(Visit(f"demo-{number + 1:03d}", kind, at_s, random.randint(least_in, most_in),
                            random.randint(least_out, most_out)))
        at_s += random.expovariate(1 / MEAN_GAP_S)
    return visits


async def make(visit: Visit, client: AsyncOpenAI, model: str) -> None:
    """Wait until it is time, then be the client. What goes wrong is in `visit.failure`."""
    await asyncio.sleep(visit.at_s)
    visit.begun = True
    prompt = "joule " * (visit.prompt_tokens * CHARACTERS_A_TOKEN // len("joule "))
    asked: dict[str, Any] = {"model": model, "max_tokens": visit.max_tokens, "stream": visit.kind is not Kind.WHOLE,
                             "extra_headers": {"X-Request-Id": visit.request_id}, "extra_body": {"ignore_eos": True}}
    try:
        if visit.kind is Kind.COMPLETION:
            answer = await client.completions.with_raw_response.create(prompt=prompt, **asked)
        else:
            asked["messages"] = [{"role": "user", "content": prompt}]
            answer = await client.chat.completions.with_raw_response.create(**asked)
        visit.record_path = answer.headers.get("X-Energy-Record")
        reply: Any = answer.parse()
        if visit.kind is Kind.WHOLE:
            visit.tokens = reply.usage.completion_tokens
        else:
            await _read(visit, reply)
    except OpenAIError as error:
        visit.failure = f"{type(error).__name__}: {error}"
    visit.ended = True


async def _read(visit: Visit, stream: Any) -> None:
    async for chunk in stream:
        visit.tokens += sum(1 for choice in chunk.choices if _text(choice))
        if visit.kind is Kind.LEAVER and visit.tokens >= LEAVES_AFTER:
            await stream.close()
            return


def _text(choice: Any) -> str | None:
    text: str | None = choice.text if hasattr(choice, "text") else choice.delta.content
    return text
