"""Images, videos and sounds through the whole relay, in front of engines that answer in the published shapes of each server."""

import asyncio
import base64
import re
import time
from contextlib import asynccontextmanager

import orjson
import pytest

from perjoule.sidecar.record import Outcome, TokenSource, Unit, UnitSource
from perjoule.sidecar.relay.answer import HOLD_LIMIT_OF_MEDIA
from tests.fakes.sidecar import body_of, post, sidecar
from tests.fakes.upstream import PAUSE, answer, chunked, scripted, stream_head
from tests.sidecar.dialects.test_works import wav

PICTURE = base64.b64encode(bytes(range(256)) * 6000).decode()  # 2 MB, as 1024 x 1024 pixels are
COMMENT = re.compile(rb": energy (\{.*?\})\n\n")
ASKED = {"prompt": "a cat", "n": 2, "size": "1024x768", "num_inference_steps": 28}
WORK = 64 * 48 * 28 * 2


def vllm_omni(count=2):
    return {"created": 1, "data": [{"b64_json": PICTURE, "url": None, "revised_prompt": None}] * count, "output_format": "png",
            "size": "1024x768", "metrics": None}


def sglang(count=2):
    items = [{"b64_json": None, "url": f"/v1/images/r/content?variant={place}", "revised_prompt": "a cat", "file_path": None}
             for place in range(count)]
    usage = {"prompt_tokens": 9, "completion_tokens": 0, "total_tokens": 9, "image_count": count}
    return {"id": "r", "created": 1, "data": items, "peak_memory_mb": 1.5, "inference_time_s": 2.5, "usage": usage}


def gpt_image(count=2):
    usage = {"input_tokens": 50, "output_tokens": 4160, "total_tokens": 4210,
             "input_tokens_details": {"text_tokens": 10, "image_tokens": 40}}
    return {"created": 1, "background": "opaque", "data": [{"b64_json": PICTURE}] * count, "output_format": "png", "quality": "high",
            "size": "1024x768", "usage": usage}


def shown(engine, shape):
    """A case that shows what works with that engine."""
    features = ("non-stream", "joules-per-unit")
    return pytest.param(shape, id=engine, marks=[pytest.mark.feature(engine, feature, "contract") for feature in features])


@asynccontextmanager
async def in_front(*script, **more):
    """An engine that does that, and a sidecar in front of it that has seen its counter move."""
    async with scripted(script) as engine, sidecar(engine.url, **more) as front:
        async with asyncio.timeout(10):
            while front.service.meter.power_w(time.monotonic_ns()) is None:
                await asyncio.sleep(0.01)
        yield engine, front


SHAPES = [shown("vllm-omni", vllm_omni), shown("sglang-diffusion", sglang), shown("openai-images", gpt_image)]


def form(fields, file, name="file"):
    """A multipart body with a file before the fields, and the field that says what it is."""
    parts = [f'Content-Disposition: form-data; name="{name}"; filename="a"\r\nContent-Type: x/y\r\n\r\n'.encode() + file,
             *(f'Content-Disposition: form-data; name="{key}"\r\n\r\n{value}'.encode() for key, value in fields.items())]
    return b"--b\r\n" + b"\r\n--b\r\n".join(parts) + b"\r\n--b--\r\n", "Content-Type: multipart/form-data; boundary=b"


def fields_of(raw):
    """The X-Energy-* fields of an answer."""
    return {name.decode(): value.decode() for name, value in re.findall(rb"\r\n(X-Energy-[\w-]+): (\S+)", raw.partition(b"\r\n\r\n")[0])}


@pytest.mark.parametrize("shape", SHAPES)
async def test_an_answer_with_images_says_what_one_cost(shape):
    """Bytes as the engine sent them, the joules of one image in the head, units and work in the record."""
    body = orjson.dumps(shape())
    script = [0.3, answer(body)]
    async with in_front(*script) as (_, front):
        raw = await front.send(post("/v1/images/generations", orjson.dumps(ASKED), "X-Energy-Include: settled"))
        assert body_of(raw) == body
        (record,) = await front.records(1)
    told = record.facts
    assert (told.unit, told.units, told.units_source, told.outcome) == (Unit.IMAGE, 2, UnitSource.ANSWERED, Outcome.COMPLETED)
    assert (told.steps, told.width, told.height, told.work_tokens) == (28, 1024, 768, WORK)
    assert record.charge.energy_uj > 400e6 * 0.2
    per_image = record.as_json()["energy_per_unit_joules"]
    assert per_image == pytest.approx(record.charge.energy_uj / 2e6)
    assert len(body) <= HOLD_LIMIT_OF_MEDIA
    assert float(fields_of(raw)["X-Energy-Joules-Per-Image"]) == pytest.approx(per_image, abs=1e-6)


@pytest.mark.feature("openai-images", "tokens-exact", "contract")
async def test_tokens_of_an_image_model_are_the_engine_s():
    """gpt-image counts its work in tokens, too; they are in the record, and what it was weighed by is not changed by them."""
    async with in_front(answer(orjson.dumps(gpt_image(1)))) as (_, front):
        await front.send(post("/v1/images/generations", orjson.dumps({"prompt": "a cat", "quality": "high"})))
        (record,) = await front.records(1)
    told = record.facts
    assert (told.input_tokens, told.output_tokens, told.output_source) == (50, 4160, TokenSource.USAGE)
    assert (told.units, told.width, told.work_tokens) == (1, 1024, 64 * 48 * 50)


@pytest.mark.feature("sglang-diffusion", "tokens-exact", "contract")
async def test_tokens_of_a_prompt_for_images_are_the_engine_s():
    """SGLang counts those of the prompt, and no others."""
    async with in_front(answer(orjson.dumps(sglang(1)))) as (_, front):
        await front.send(post("/v1/images/generations", orjson.dumps(ASKED)))
        (record,) = await front.records(1)
    assert (record.facts.input_tokens, record.facts.input_source) == (9, TokenSource.USAGE)


@pytest.mark.feature("openai-images", "stream", "contract")
async def test_a_stream_of_partial_images_is_one_image():
    """Events of 2 MB each: the parts count for nothing, the whole one counts, with its usage; every byte passes."""
    events = [f'event: image_generation.partial_image\ndata: {{"type":"image_generation.partial_image","b64_json":"{PICTURE}",'
              f'"partial_image_index":{place}}}\n\n' for place in range(2)]
    events.append(f'event: image_generation.completed\ndata: {{"type":"image_generation.completed","b64_json":"{PICTURE}",'
                  '"size":"1024x1024","usage":{"total_tokens":100,"input_tokens":50,"output_tokens":50}}\n\n')
    asked = orjson.dumps({"prompt": "a cat", "stream": True, "partial_images": 2})
    pieces = [piece for event in events for piece in (event[at:at + 50_000].encode() for at in range(0, len(event), 50_000))]
    async with in_front(stream_head(), chunked(*pieces)) as (_, front):
        body = body_of(await front.send(post("/v1/images/generations", asked, "X-Energy-Include: settled")))
        (record,) = await front.records(1)
    assert COMMENT.sub(b"", body) == "".join(events).encode()
    told = record.facts
    assert (told.units, told.units_source, told.streamed, told.width) == (1, UnitSource.ANSWERED, True, 1024)
    assert (told.input_tokens, told.output_tokens) == (50, 50)
    assert orjson.loads(COMMENT.search(body)[1])["joules_per_unit"] == pytest.approx(record.charge.energy_uj / 1e6, abs=1e-6)


@pytest.mark.feature("vllm-omni", "stream", "contract")
async def test_an_edit_that_streams_its_thoughts_is_all_prompt():
    """vLLM-Omni sends text of a first stage, then the image, then [DONE]; the request is a form with a picture in it."""
    events = [f'data: {{"object":"image.edit.chunk","type":"ar_delta","delta":"w{place}","index":0,"created":1,"model":"m"}}\n\n'
              for place in range(3)]
    events.append(f'data: {{"object":"image.edit.chunk","type":"image","data":[{{"b64_json":"{PICTURE}"}}],"output_format":"png",'
                  '"size":"1024x768","created":1,"model":"m","metrics":null}\n\n')
    events.append("data: [DONE]\n\n")
    body, kind = form({"prompt": "a dog", "stream": "true", "num_inference_steps": "8", "size": "auto"}, b"\x89PNG" * 1000, "image")
    async with in_front(stream_head(), chunked(*(event.encode() for event in events))) as (_, front):
        raw = body_of(await front.send(post("/v1/images/edits", body, kind)))
        (record,) = await front.records(1)
    assert COMMENT.sub(b"", raw) == "".join(events).encode()
    told = record.facts
    assert (told.units, told.steps, told.width, told.output_tokens, told.work_tokens) == (1, 8, 1024, None, 64 * 48 * 8)
    assert record.charge.decode_uj == 0


@pytest.mark.parametrize("engine_name", [pytest.param(name, marks=pytest.mark.feature(name, "abort-seen", "contract"))
                                         for name in ("vllm-omni", "sglang-diffusion", "openai-images")])
async def test_a_client_that_leaves_is_seen_and_has_got_no_image(engine_name):
    """The engine's connection is closed at once, and what was drawn by then is charged for nothing made."""
    async with in_front(0.05, PAUSE, 30.0, answer(b"{}"), engine=engine_name) as (engine, front):
        _, writer = await front.connect()
        writer.write(post("/v1/images/generations", orjson.dumps(ASKED)))
        async with asyncio.timeout(10):
            while not engine.requests:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        writer.close()
        (record,) = await front.records(1)
    assert (record.facts.outcome, record.facts.units, record.facts.unit) == (Outcome.CANCELLED, None, Unit.IMAGE)
    assert record.charge.energy_uj > 400e6 * 0.1
    assert record.as_json()["energy_per_unit_joules"] is None


async def test_more_than_is_held_passes_without_joules_in_its_head():
    """Eighteen megabytes of images go on as they come; the record has what they cost."""
    body = orjson.dumps(vllm_omni(9))
    async with in_front(answer(body)) as (_, front):
        reader, writer = await front.connect()
        writer.write(post("/v1/images/generations", orjson.dumps(ASKED)))
        raw = await reader.read()
        writer.close()
        (record,) = await front.records(1)
    assert raw.partition(b"\r\n\r\n")[2] == body
    assert fields_of(raw).keys() == {"X-Energy-Record"}
    assert record.facts.units == 9


async def test_an_image_as_a_file_is_what_was_asked_for():
    """Bytes that are no JSON say nothing of themselves."""
    async with in_front(answer(b"\x89PNG" + bytes(9000), content_type="image/png")) as (_, front):
        raw = await front.send(post("/v1/images/generations", b'{"prompt":"a cat","response_format":"file"}'))
        (record,) = await front.records(1)
    assert "X-Energy-Joules-Per-Image" in fields_of(raw)
    assert (record.facts.units, record.facts.units_source) == (1, UnitSource.ASKED)


async def test_a_video_that_is_waited_for_costs_per_second():
    """/v1/videos/sync: a form in, a file out; frames and rate say how long it is."""
    body, kind = form({"prompt": "x", "size": "832x480", "num_frames": "33", "fps": "16", "num_inference_steps": "8"}, b"")
    script = [0.2, answer(bytes(50_000), "x-inference-time-s: 0.2", content_type="video/mp4")]
    async with in_front(*script) as (_, front):
        raw = await front.send(post("/v1/videos/sync", body, kind, "X-Energy-Include: settled"))
        (record,) = await front.records(1)
    told = record.facts
    assert (told.unit, told.units, told.frames, told.work_tokens) == (Unit.VIDEO_SECOND, 33 / 16, 33, 52 * 30 * 8 * 9)
    assert float(fields_of(raw)["X-Energy-Joules-Per-Video-Second"]) == pytest.approx(record.charge.energy_uj / 1e6 / (33 / 16), abs=1e-5)


@pytest.mark.parametrize(("sound", "said", "seconds", "source", "work"), [
    (wav(31), b'{"text":"hello"}', 31, UnitSource.ASKED, 3000),
    (wav(31), b'{"text":"hello","usage":{"type":"duration","seconds":32}}', 32, UnitSource.ANSWERED, 3000),
    (b"ID3" * 60_000, b'{"text":"hello","usage":{"type":"duration","seconds":61}}', 61, UnitSource.ANSWERED, 4500),
    (b"ID3" * 60_000, b'{"text":"hello"}', None, None, 1500),
])
async def test_a_transcription_is_counted_in_seconds(sound, said, seconds, source, work):
    """By the engine's word, else by the head of a WAV; else it is weighed by its size, and the seconds stay unknown."""
    body, kind = form({"model": "whisper", "language": "en"}, sound)
    async with in_front(answer(said)) as (_, front):
        raw = await front.send(post("/v1/audio/transcriptions", body, kind))
        (record,) = await front.records(1)
    told = record.facts
    assert (told.unit, told.units, told.units_source, told.work_tokens, told.model) == (Unit.AUDIO_SECOND, seconds, source, work, "whisper")
    assert ("X-Energy-Joules-Per-Audio-Second" in fields_of(raw)) == (seconds is not None)


async def test_speech_is_as_long_as_the_file_that_was_made():
    """A WAV says it itself; its text is what it was weighed by."""
    async with in_front(answer(wav(2.5), content_type="audio/wav")) as (_, front):
        await front.send(post("/v1/audio/speech", b'{"model":"tts","input":"good morning to you all","voice":"a"}'))
        (record,) = await front.records(1)
    told = record.facts
    assert (told.units, told.units_source, told.work_tokens, told.input_source) == (2.5, UnitSource.ANSWERED, None, TokenSource.ESTIMATED)


async def test_speech_that_is_sent_while_it_is_made_is_not_held():
    """Its first bytes reach the client before its last are there; how long raw samples last is nobody's guess."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: audio/pcm\r\ntransfer-encoding: chunked\r\n\r\n"
    async with in_front(head + b"4\r\nabcd\r\n", 0.5, b"4\r\nefgh\r\n0\r\n\r\n") as (_, front):
        reader, writer = await front.connect()
        writer.write(post("/v1/audio/speech", b'{"input":"good morning","stream":true}'))
        async with asyncio.timeout(10):
            first = await reader.readuntil(b"abcd\r\n")
            assert not front.sink.records
            rest = await reader.read()
        writer.close()
        (record,) = await front.records(1)
    assert body_of(first + rest) == b"abcdefgh"
    assert (record.facts.unit, record.facts.units) == (Unit.AUDIO_SECOND, None)


async def test_embeddings_are_all_prompt():
    """No part of their energy is decoding, and there is no unit beside their tokens."""
    said = b'{"object":"list","data":[{"embedding":[0.5]}],"model":"e","usage":{"prompt_tokens":7,"total_tokens":7}}'
    async with in_front(0.3, answer(said)) as (_, front):
        await front.send(post("/v1/embeddings", b'{"model":"e","input":["one two three","four"]}'))
        (record,) = await front.records(1)
    assert (record.facts.input_tokens, record.facts.unit, record.charge.decode_uj) == (7, None, 0)
    assert record.charge.prefill_uj == record.charge.energy_uj > 0
