"""What is made that is not tokens: read from requests and answers in every shape, and weighed by its latent patches."""

import wave
from io import BytesIO

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from perjoule.sidecar.dialects.works import Product, product_answered, product_asked, wav_seconds, work_tokens
from perjoule.sidecar.record import Unit, UnitSource

IMAGE, VIDEO, AUDIO = Unit.IMAGE, Unit.VIDEO_SECOND, Unit.AUDIO_SECOND
PATCHES = 64 * 64  # of 1024 x 1024 pixels


@pytest.mark.parametrize(("fields", "expected"), [
    ({"prompt": "a cat"}, Product(IMAGE, 1)),
    ({"n": 2, "size": "512x768", "num_inference_steps": 28}, Product(IMAGE, 2, None, 28, 512, 768)),  # vLLM-Omni, SGLang
    ({"n": None, "size": "auto", "quality": "high"}, Product(IMAGE, 1)),  # gpt-image
    ({"n": 1, "size": "256*256", "kwargs": '{"num_inference_steps":20}'}, Product(IMAGE, 1, None, 20, 256, 256)),  # Xinference
    ({"num_outputs_per_prompt": 4, "width": 640, "height": 480}, Product(IMAGE, 4, None, None, 640, 480)),
    ({"steps": 1, "batch_size": 9, "n_iter": 9}, Product(IMAGE, 1)),  # names that others than A1111 ignore
    ({"n": "3", "size": " 64X32 "}, Product(IMAGE, 3, None, None, 64, 32)),  # a form
    ({"n": True, "size": 5, "num_inference_steps": -1, "width": 1e300, "height": "x", "kwargs": "["}, Product(IMAGE, 1)),
])
def test_images_that_are_asked_for(fields, expected):
    """Each server's names; what cannot be read is unknown, and one image is what the API makes unasked."""
    expected.units_source = UnitSource.ASKED
    assert product_asked(IMAGE, fields) == expected


def test_images_of_sdapi():
    """A1111's own names: a batch so many times; and no more images than anybody would make."""
    asked = product_asked(IMAGE, {"steps": 30, "width": 512, "height": 512, "batch_size": 2, "n_iter": 3, "n": 7}, is_sdapi=True)
    assert asked == Product(IMAGE, 6, UnitSource.ASKED, 30, 512, 512)
    assert product_asked(IMAGE, {"batch_size": 10**6, "n_iter": 10**6}, is_sdapi=True).units == 10**6


@pytest.mark.parametrize(("fields", "units", "frames"), [
    ({"seconds": "4", "size": "1280x720"}, 4, None),
    ({"seconds": 4, "fps": 16}, 4, 64),
    ({"num_frames": 81, "fps": 16, "seconds": 9}, 81 / 16, 81),  # frames come first, with vLLM-Omni and SGLang
    ({"num_frames": 81}, None, 81),  # how many a second is the server's secret
    ({"video_params": {"num_frames": 33, "width": 832, "height": 480, "fps": 8}}, 33 / 8, 33),
    ({"prompt": "x"}, None, None),
])
def test_videos_that_are_asked_for(fields, units, frames):
    """Seconds where they are said or follow; frames only where they are said."""
    asked = product_asked(VIDEO, fields)
    assert (asked.units, asked.frames) == (units, frames)


@pytest.mark.parametrize(("asked", "payload", "expected"), [
    (Product(IMAGE, 2), {"data": [{}, {}], "size": "512x512"}, Product(IMAGE, 2, UnitSource.ANSWERED, None, 512, 512)),
    (Product(IMAGE, 4, UnitSource.ASKED, 20), {"data": [{}], "num_inference_steps": 8}, Product(IMAGE, 1, UnitSource.ANSWERED, 8)),
    (Product(IMAGE, 4, UnitSource.ASKED), {"error": {"type": "x"}}, Product(IMAGE, 4, UnitSource.ASKED)),
    (Product(VIDEO, 5, UnitSource.ASKED), {"seconds": "4"}, Product(VIDEO, 4, UnitSource.ANSWERED)),
    (Product(VIDEO), {"seconds": "4"}, Product(VIDEO)),  # the usual 4 s, which vLLM-Omni says of any video
    (Product(VIDEO, None, None, None, None, None, 81), {"seconds": "4", "fps": 27}, Product(VIDEO, 3, UnitSource.ANSWERED, frames=81)),
    (Product(VIDEO), {"num_frames": 48, "fps": 24}, Product(VIDEO, 2, UnitSource.ANSWERED, frames=48)),
    (Product(AUDIO), {"text": "…", "usage": {"type": "duration", "seconds": 31}}, Product(AUDIO, 31, UnitSource.ANSWERED)),
    (Product(AUDIO), {"text": "…", "duration": 3.5, "segments": []}, Product(AUDIO, 3.5, UnitSource.ANSWERED)),
    (Product(AUDIO, 7.0, UnitSource.ASKED), {"text": "…"}, Product(AUDIO, 7.0, UnitSource.ASKED)),
])
def test_what_the_answer_says_counts(asked, payload, expected):
    """Of what the answer does not say, the request's word stays."""
    assert product_answered(asked, payload) == expected


def test_events_of_a_stream_add_up():
    """Each `completed` event brings an image, a partial one none."""
    made = Product(IMAGE, 3, UnitSource.ASKED)
    for kind in ("image_generation.partial_image", "image_generation.completed", "image_generation.completed"):
        made = product_answered(made, {"type": kind, "b64_json": ""})
    assert (made.units, made.units_source) == (2, UnitSource.ANSWERED)
    assert orjson.dumps(made.units) == b"2"  # compiled, too, whose floats take integers in


@pytest.mark.parametrize(("made", "tokens"), [
    (Product(IMAGE, 1, None, 20, 1024, 1024), PATCHES * 20),
    (Product(IMAGE, 4, None, 20, 1024, 1024), PATCHES * 20 * 4),
    (Product(IMAGE, 1, None, 40, 1024, 512), PATCHES * 20),
    (Product(IMAGE, 1, None, 1, 17, 16), 2),  # a patch that has begun
    (Product(IMAGE, 1), PATCHES * 50),  # what is usual
    (Product(VIDEO, None, None, 10, 1280, 720, 81), 80 * 45 * 10 * 21),
    (Product(AUDIO), None), (Product(AUDIO, 0.4), 1500), (Product(AUDIO, 30), 1500), (Product(AUDIO, 31), 3000),
])
def test_work_is_patches_times_steps_times_images(made, tokens):
    """By hand. A video has a latent frame for the first and one for every four that follow; sound is heard in windows of 30 s."""
    assert work_tokens(made) == tokens


def wav(seconds, rate=8000, placeholder=False):
    """A WAV file as the standard library writes it, or with the sizes of one that was written while it was made."""
    file = BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(bytes(2 * int(seconds * rate)))
    data = file.getvalue()
    return data[:40] + b"\xff" * 4 + data[44:] if placeholder else data


@pytest.mark.parametrize("placeholder", [False, True])
def test_a_wav_file_says_how_long_it_is(placeholder):
    """By its header, or by its size where the header was written before anybody knew."""
    data = b"before" + wav(2.5, placeholder=placeholder)
    assert wav_seconds(data, 6, len(data)) == 2.5
    assert wav_seconds(data[:100], 6, len(data)) == 2.5  # the head is enough


@given(st.binary(max_size=80), st.integers(0, 60))
def test_what_is_no_wav_is_unknown(data, at):
    """Whatever lies there, nothing raises."""
    seconds = wav_seconds(b"RIFF0000WAVE" + data, 0, at)
    assert seconds is None or seconds >= 0
    assert wav_seconds(data, at, len(data)) is None or data[at:at + 4] == b"RIFF"


_names = st.sampled_from(["n", "size", "width", "height", "steps", "num_inference_steps", "n_iter", "num_frames", "fps", "seconds",
                          "kwargs", "video_params", "data", "usage", "duration", "type", "batch_size"])
_texts = st.text(max_size=8) | st.sampled_from(["9x9", "4", "{}"])
_plain = st.none() | st.booleans() | st.integers() | st.just(10**6) | st.floats() | _texts
_values = st.recursive(_plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=3), max_leaves=8)


@given(st.sampled_from(Unit), st.booleans(), st.dictionaries(_names, _values), st.dictionaries(_names, _values))
@example(IMAGE, True, dict.fromkeys(["batch_size", "n_iter", "steps", "width", "height"], 10**6), {})
def test_whatever_is_said_nothing_raises_and_work_is_whole(unit, is_sdapi, asks, answers):
    """Clients and servers say anything; work stays a whole number that a meter can take."""
    asked = product_asked(unit, asks, is_sdapi=is_sdapi)
    for product in (asked, product_answered(asked, answers)):
        work = work_tokens(product)
        assert work is None or (type(work) is int and 0 < work < 2**63)
        assert product.units is None or product.units >= 0
