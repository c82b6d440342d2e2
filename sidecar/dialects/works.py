"""What a request makes that is not tokens (images, seconds of video or audio), and how much work that is.

Diffusion computes every latent patch once a step, so an image is like a prompt of patches x steps tokens, and a video one of so many more
as it has latent frames. What the request leaves to the server is taken to be usual. That scales all requests of one model alike, and
so does classifier-free guidance (twice the patches): shares are not changed by it. Text encoder and VAE are not counted.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import orjson

from perjoule.sidecar.record import RequestFacts, Unit, Units, UnitSource

PATCH = 16  # pixels of an image on a latent patch's side: 8 of the VAE, 2 of the transformer
FRAMES_PER_LATENT = 4  # of a video, after its first one
USUAL_STEPS, USUAL_IMAGE, USUAL_VIDEO = 50, (1024, 1024), (1280, 720)
USUAL_FPS, USUAL_VIDEO_S = 24, 4  # OpenAI's Videos API has the seconds, vLLM-Omni and SGLang the rate
USUAL_BYTES_PER_S = 16_000  # of a compressed sound whose length nobody has said
AUDIO_TOKENS_PER_S, AUDIO_WINDOW_S = 50, 30  # Whisper's encoder computes 1500 positions for every window begun

_SIZE = re.compile(r"(\d{1,5})\s*[xX*]\s*(\d{1,5})")
_INSIDE = ("video_params", "diffusers_kwargs", "kwargs")  # where servers take more of them (Xinference: as a JSON text)
_STEPS, _STEPS_OF_SDAPI = "num_inference_steps", "steps"
_MOST, _MOST_WORK = 1_000_000, 2**53
_MOST_TEXT = 64 << 10


@dataclass(slots=True)
class Product:
    """What one request makes, None where that has not been said; `units_source` is who said how much."""

    unit: Unit
    units: Units | None = None
    units_source: UnitSource | None = None
    steps: int | None = None
    width: int | None = None
    height: int | None = None
    frames: int | None = None


def product_asked(unit: Unit, asks: dict[str, Any], *, is_sdapi: bool = False) -> Product:
    """What the fields of a request ask for: members of a JSON object, or texts of a form. Only names that the API has are read: by
    others, which a server ignores, a client could say that its work is little."""
    said = _said(unit, asks, _STEPS_OF_SDAPI if is_sdapi else _STEPS)
    if unit is Unit.IMAGE and is_sdapi:
        said.units = min((_whole(asks, "batch_size") or 1) * (_whole(asks, "n_iter") or 1), _MOST)
    elif unit is Unit.IMAGE:
        said.units = _whole(asks, "n", "num_outputs_per_prompt") or 1
    elif unit is Unit.VIDEO_SECOND:
        fps = next((fps for holder in _holders(asks) if (fps := _amount(holder, "fps"))), None)
        seconds = _amount(asks, "seconds")
        if said.frames is not None:  # which comes before the seconds, with vLLM-Omni and SGLang
            said.units = said.frames / fps if fps else None
        elif seconds:
            said.units, said.frames = seconds, round(seconds * fps) if fps else None
    said.units_source = UnitSource.ASKED if said.units is not None else None
    return said


def product_answered(known: Product, payload: dict[str, Any]) -> Product:
    """What was made, by what is known and one payload of the answer: a whole body, or an event of a stream, each with its own images."""
    said = _said(known.unit, payload, _STEPS)
    units = _UNITS_ANSWERED[known.unit](known, payload)
    return Product(
        known.unit,
        units=known.units if units is None else units,
        units_source=known.units_source if units is None else UnitSource.ANSWERED,
        steps=said.steps or known.steps,
        width=said.width or known.width,
        height=said.height or known.height,
        frames=known.frames or said.frames)


def _images_answered(known: Product, payload: dict[str, Any]) -> Units | None:
    items, kind = payload.get("data"), payload.get("type")
    if isinstance(items, list):
        count = len(items)
    elif isinstance(kind, str) and kind.endswith(".completed") and "b64_json" in payload:  # OpenAI's image_generation, image_edit
        count = 1
    else:
        return None
    return count + (known.units or 0 if known.units_source is UnitSource.ANSWERED else 0)


def _video_answered(known: Product, payload: dict[str, Any]) -> Units | None:
    """Servers say the usual 4 s beside a video that nobody gave a length: so their word counts only if it was asked for."""
    frames, fps = known.frames or _whole(payload, "num_frames"), _amount(payload, "fps")
    if frames is not None:
        return frames / fps if fps else None
    return _amount(payload, "seconds") if known.units is not None else None


def _audio_answered(_known: Product, payload: dict[str, Any]) -> Units | None:
    usage = payload.get("usage")
    seconds = _amount(usage, "seconds") if isinstance(usage, dict) and usage.get("type") == "duration" else None
    return _amount(payload, "duration") if seconds is None else seconds


_UNITS_ANSWERED = {Unit.IMAGE: _images_answered, Unit.VIDEO_SECOND: _video_answered, Unit.AUDIO_SECOND: _audio_answered}


def product_of(facts: RequestFacts) -> Product | None:
    """What a record says was made, None of tokens."""
    if facts.unit is None:
        return None
    return Product(facts.unit, facts.units, facts.units_source, facts.steps, facts.width, facts.height, facts.frames)


def work_tokens(product: Product) -> int | None:
    """How many tokens of a prompt that work is like; None of audio whose length is not known."""
    if product.unit is Unit.AUDIO_SECOND:
        return None if product.units is None else audio_tokens(product.units)
    is_video = product.unit is Unit.VIDEO_SECOND
    width, height = (product.width, product.height) if product.width and product.height else USUAL_VIDEO if is_video else USUAL_IMAGE
    frames = product.frames or (round((product.units or USUAL_VIDEO_S) * USUAL_FPS) if is_video else 1)
    pieces = 1 + (frames - 1) // FRAMES_PER_LATENT if is_video else product.units or 1
    return min(int(-(-width // PATCH) * -(-height // PATCH) * (product.steps or USUAL_STEPS) * pieces), _MOST_WORK)


def audio_tokens(seconds: float) -> int:
    """How many tokens of a prompt it is like to listen for so long."""
    return -int(-seconds // AUDIO_WINDOW_S) * AUDIO_WINDOW_S * AUDIO_TOKENS_PER_S


def wav_seconds(data: bytes, at: int, until: int) -> float | None:
    """How long the WAV file is that lies in [at, until), of which `data` may have the head alone; None for another kind of file."""
    if data[at:at + 4] != b"RIFF" or data[at + 8:at + 12] != b"WAVE":
        return None
    bytes_per_s, at = 0, at + 12
    for _ in range(16):
        kind, size = data[at:at + 4], int.from_bytes(data[at + 4:at + 8], "little")
        if kind == b"fmt ":
            bytes_per_s = int.from_bytes(data[at + 16:at + 20], "little")
        elif kind == b"data":  # whose size is a placeholder where the file was written while it was made
            return max(0, min(size, until - at - 8)) / bytes_per_s if bytes_per_s else None
        at += 8 + size + size % 2
    return None


def wav_answered(known: Product, head: bytes, size: int) -> Product:
    """What was made, where the answer is a file of so many bytes that begins like this."""
    seconds = wav_seconds(head, 0, size) if known.unit is Unit.AUDIO_SECOND else None
    return known if seconds is None else replace(known, units=seconds, units_source=UnitSource.ANSWERED)


def _said(unit: Unit, fields: dict[str, Any], steps: str) -> Product:
    """Steps, size and frames, wherever a dialect has them."""
    said = Product(unit)
    for holder in _holders(fields):
        width, height = _whole(holder, "width"), _whole(holder, "height")
        if not (width and height) and isinstance(size := holder.get("size"), str) and (match := _SIZE.fullmatch(size.strip())):
            width, height = int(match[1]) or None, int(match[2]) or None
        if width and height and said.width is None:
            said.width, said.height = width, height
        said.steps = said.steps or _whole(holder, steps)
        said.frames = said.frames or _whole(holder, "num_frames")
    return said


def _holders(fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield fields
    for name in _INSIDE:
        inner = fields.get(name)
        if isinstance(inner, str) and len(inner) <= _MOST_TEXT:
            try:
                inner = orjson.loads(inner)
            except orjson.JSONDecodeError:
                continue
        if isinstance(inner, dict):
            yield inner


def _amount(holder: dict[str, Any], *names: str) -> Units | None:
    """The first of these that is a positive number, or the text of one."""
    for name in names:
        value: Any = holder.get(name)
        if isinstance(value, str) and 0 < len(value) <= 20:
            try:
                value = float(value) if "." in value else int(value)
            except ValueError:
                continue
        if type(value) in (int, float) and 0 < value <= _MOST:
            amount: Units = value
            return amount
    return None


def _whole(holder: dict[str, Any], *names: str) -> int | None:
    value = _amount(holder, *names)
    return int(value) if value is not None and value == value // 1 else None
