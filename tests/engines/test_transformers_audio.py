"""A real Whisper that writes down what it hears: seconds of sound are what it is counted in, and the joules of one are told."""

import io
import json
import wave
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest

from tests.engines.process import Engine
from tests.engines.serving import Sidecar
from tests.engines.transformers_serve import running_whisper
from tests.engines.wire import OURS, Answer, Tap, exchange, passed_on

pytestmark = pytest.mark.slow

RATE_HZ = 16_000
SECONDS = 3
WORK_TOKENS = 1500  # of a window of 30 s, however little of it is filled


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One server for this file."""
    with running_whisper(tmp_path_factory.mktemp("whisper")) as server:
        yield server


@pytest.fixture(scope="module")
def wire(whisper: Engine) -> Iterator[Tap]:
    """The server, with what it sends kept."""
    with Tap(whisper.url) as tap:
        yield tap


@pytest.fixture(scope="module")
def guard(start_sidecar: Callable[..., Sidecar], wire: Tap) -> Sidecar:
    """A sidecar that was told nothing about its engine."""
    return start_sidecar(wire.url, "--energy=simulated")


def sound() -> bytes:
    """A WAV file of `SECONDS`."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, RATE_HZ, 0, "NONE", ""))
        out.writeframes(bytes(range(0, 250, 5)) * (RATE_HZ * SECONDS * 2 // 50))
    return file.getvalue()


def transcribe(whisper: Engine, guard: Sidecar, name: str, **fields: str) -> Answer:
    """One upload, as forms are sent."""
    parts = [b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n' + sound()]
    parts += [f'Content-Disposition: form-data; name="{key}"\r\n\r\n{value}'.encode()
              for key, value in {"model": whisper.model, **fields}.items()]
    body = b"--b\r\n" + b"\r\n--b\r\n".join(parts) + b"\r\n--b--\r\n"
    headers = {"content-type": "multipart/form-data; boundary=b", "x-request-id": name}
    return exchange(guard.listen, "/v1/audio/transcriptions", body, headers)


def test_a_transcript_says_what_a_second_cost(whisper: Engine, wire: Tap, guard: Sidecar) -> None:
    """The engine tells neither tokens nor seconds; these are in the file that was sent."""
    name = f"heard-{uuid4().hex}"
    got = transcribe(whisper, guard, name)
    assert got.status == 200
    assert passed_on(got, wire.answers[-1])
    assert json.loads(got.body)["text"]
    record = guard.record(name)
    assert (record["unit"], record["units"], record["units_source"]) == ("audio_second", SECONDS, "asked")
    assert (record["work_tokens"], record["output_tokens"], record["model"]) == (WORK_TOKENS, None, whisper.model)
    assert record["energy_per_unit_joules"] == pytest.approx(record["energy_joules"] / SECONDS)
    assert record["energy_uj"] > 0


def test_a_transcript_that_streams_bare_text_is_counted_by_its_pieces(whisper: Engine, wire: Tap, guard: Sidecar) -> None:
    """Its events are text and no JSON; the comment comes behind the last of them."""
    name = f"streamed-{uuid4().hex}"
    got = transcribe(whisper, guard, name, stream="true")
    assert passed_on(got, wire.answers[-1])
    *_, comment, rest = OURS.split(got.body)
    assert (json.loads(comment)["status"], rest) == ("simulated", b"")
    record = guard.record(name)
    assert (record["units"], record["streamed"], record["output_source"]) == (SECONDS, True, "frames")
    assert record["output_tokens"] == wire.answers[-1].body.count(b"data: ") > 0
