"""What the engine says before a run: which models it has, how long a context may be, and whether it takes the prompts that will be sent."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from perjoule.bench.workloads.prompts import FIRST_ID, VOCABULARY
from perjoule.bench.workloads.workload import COMPLETIONS

VOCABULARIES = (VOCABULARY, 16_000, 8_000, 4_000, 1_000, 300)  # tried from the largest on
PATIENCE = aiohttp.ClientTimeout(total=120)  # the first request of an engine may compile for a minute


class EngineError(Exception):
    """The engine cannot serve this run; the text says what was asked and what it answered."""


@dataclass(frozen=True, slots=True)
class Found:
    """A model as the engine lists it; `context` is its longest input and output together, `root` what it was loaded
    as; None where it does not say."""

    model: str
    context: int | None = None
    root: str | None = None


async def look(url: str, model: str, headers: Mapping[str, str]) -> Found:
    """The model behind a URL. Raises EngineError where nothing answers, or it has no such model."""
    try:
        async with (aiohttp.ClientSession(timeout=PATIENCE, headers=headers) as session,
                    session.get(f"{url.rstrip('/')}/v1/models") as answer):
            if answer.status >= 500:  # as a sidecar says that the engine behind it is not there
                raise EngineError(f"{url}: answered {answer.status} {(await answer.text())[:200]}, expected an inference server")
            if answer.status != 200:
                return Found(model)  # not every server lists its models
            listed = (await answer.json()).get("data") or []
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise EngineError(f"{url}: no answer ({error}), expected an inference server") from error
    except (ValueError, AttributeError):
        return Found(model)
    found = {entry["id"]: entry for entry in listed if isinstance(entry, dict) and isinstance(entry.get("id"), str)}
    if found and model not in found:
        raise EngineError(f"--model: got {model!r}, expected one that {url} has: {', '.join(sorted(found))}")
    entry = found.get(model, {})
    context = entry.get("max_model_len")
    root = entry.get("root")
    is_name = isinstance(root, str) and root != model and not root.startswith("/")  # a folder of the server's says nothing elsewhere
    return Found(model, context if isinstance(context, int) else None, root if is_name else None)


async def vocabulary(url: str, model: str, headers: Mapping[str, str]) -> int:
    """The largest vocabulary of those tried whose last id the model takes as a prompt. Raises EngineError where it takes none: a
    server that wants text."""
    said = ""
    async with aiohttp.ClientSession(timeout=PATIENCE, headers=headers) as session:
        for size in VOCABULARIES:
            body: dict[str, Any] = {"model": model, "prompt": [size - 1, FIRST_ID], "max_tokens": 1}
            try:
                async with session.post(f"{url.rstrip('/')}{COMPLETIONS}", json=body) as answer:
                    if answer.status == 200:
                        return size
                    said = f"{answer.status} {(await answer.text())[:200]}"
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise EngineError(f"{url}: no answer to a prompt of two tokens ({error})") from error
    raise EngineError(f"{url}: a prompt of token ids was refused ({said}); try --prompts text")
