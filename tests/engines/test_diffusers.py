"""A real diffusers pipeline behind an OpenAI-shaped server: what an image costs, alone and in a queue, to the end and not.

The server draws 400 W while it computes and says when it did, so each record is held to what was really drawn for it.
"""

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest

from tests.engines.process import Engine
from tests.engines.serving import Sidecar, eventually
from tests.engines.wire import OURS, Answer, exchange, leave

BUSY_W = 400.0
RIM_J = 120.0  # a window of 100 ms at either end, and the moment between two jobs
IMAGES = "/v1/images/generations"
SETTLED = {"x-energy-include": "settled"}


@pytest.fixture(scope="module")
def engine(diffusers: Engine) -> Engine:
    """The one server for all tests."""
    return diffusers


@pytest.fixture(scope="module")
def sidecar(start_sidecar: Callable[..., Sidecar], engine: Engine) -> Sidecar:
    """A sidecar that reads what the server drew."""
    return start_sidecar(engine.url, f"--energy=simulated:{engine.url}")


def asks(prompt: str, steps: int, **more: Any) -> dict[str, Any]:
    """A request whose prompt is its name."""
    return {"model": "tiny", "prompt": prompt, "size": "128x128", "num_inference_steps": steps, **more}


def draw(sidecar: Sidecar, prompt: str, steps: int, **more: Any) -> Answer:
    """One request, answered with its settled energy."""
    return exchange(sidecar.listen, IMAGES, asks(prompt, steps, **more), {"x-request-id": prompt, **SETTLED})


def computed(engine: Engine, prompt: str) -> dict[str, Any]:
    """What the server says of the job with that prompt, once it is over."""
    def found() -> dict[str, Any] | None:
        jobs = orjson.loads(exchange(engine.url, "/simulated/work").body)["jobs"]
        return next((dict(job) for job in jobs if job["prompt"] == prompt), None)
    return dict(eventually(found, f"the end of {prompt}"))


def drawn_j(job: dict[str, Any]) -> float:
    """What the server drew while it computed that."""
    return BUSY_W * float(job["ended_ns"] - job["began_ns"]) / 1e9


@pytest.mark.feature("diffusers", "non-stream", "real")
@pytest.mark.feature("diffusers", "joules-per-unit", "real")
def test_an_answer_says_what_one_image_cost(sidecar: Sidecar, engine: Engine) -> None:
    """The header's joules are the record's and the counter's; two images are two units, and the work is patches times steps times them."""
    answer = draw(sidecar, "two-cats", 40, n=2)
    assert answer.status == 200
    record = sidecar.told(answer)
    assert (record["unit"], record["units"], record["units_source"]) == ("image", 2, "answered")
    assert (record["steps"], record["width"], record["height"], record["work_tokens"]) == (40, 128, 128, 8 * 8 * 40 * 2)
    assert record["energy_joules"] == pytest.approx(drawn_j(computed(engine, "two-cats")), abs=RIM_J)
    assert record["energy_per_unit_joules"] == record["energy_joules"] / 2
    assert float(answer.headers["x-energy-joules-per-image"]) == pytest.approx(record["energy_per_unit_joules"], abs=1e-5)
    assert answer.headers["x-energy-status"] == record["status"] == "simulated"
    assert (record["prefill_uj"], record["decode_uj"]) == (record["energy_uj"], 0)
    assert record["output_tokens"] is None


@pytest.mark.feature("diffusers", "queue-known", "real")
@pytest.mark.parametrize("in_flight", [1, 2, 4])
def test_who_waits_for_his_turn_pays_nothing_for_it(sidecar: Sidecar, engine: Engine, in_flight: int) -> None:
    """However many are in flight, each is charged what was drawn while it was computed, and all of them and the rest what was drawn."""
    names = [f"{place}-of-{in_flight}" for place in range(in_flight)]
    before = sidecar.ask("/energy/balance")
    with ThreadPoolExecutor(in_flight) as clients:
        answers = list(clients.map(lambda name: draw(sidecar, name, 30 + 20 * (int(name[0]) % 2)), names))
    records = [sidecar.record(name) for name in names]
    for record in records:
        assert record["energy_joules"] == pytest.approx(drawn_j(computed(engine, record["request_id"])), abs=RIM_J)
    after = eventually(lambda: (told := sidecar.ask("/energy/balance"))["unsettled"] == 0 and told, "all records")
    gained = {name: after[name] - before[name] for name in ("measured_uj", "requests_uj", "idle_uj", "unattributed_uj")}
    assert after["conserved"]
    assert gained["measured_uj"] == gained["requests_uj"] + gained["idle_uj"] + gained["unattributed_uj"]
    assert gained["requests_uj"] == sum(record["energy_uj"] for record in records)
    assert all(answer.status == 200 for answer in answers)


def test_twice_the_steps_cost_about_twice_as_much(sidecar: Sidecar) -> None:
    """And are twice the work."""
    short, long = (sidecar.told(draw(sidecar, f"{steps}-steps", steps)) for steps in (40, 80))
    assert long["work_tokens"] == 2 * short["work_tokens"]
    assert 1.4 < long["energy_joules"] / short["energy_joules"] < 2.8


@pytest.mark.feature("diffusers", "stream", "real")
def test_a_stream_of_images_is_metered(sidecar: Sidecar, engine: Engine) -> None:
    """Events of megabytes pass, each that is an image counts, and the comment at the end says what one of them cost."""
    answer = exchange(sidecar.listen, IMAGES, asks("streamed", 30, n=2, stream=True), {"x-request-id": "streamed", **SETTLED})
    assert (answer.status, answer.complete) == (200, True)
    record = sidecar.record("streamed")
    assert (record["units"], record["units_source"], record["streamed"], record["output_tokens"]) == (2, "answered", True, None)
    (comment,) = OURS.findall(answer.body)
    assert orjson.loads(comment)["joules_per_unit"] == pytest.approx(record["energy_per_unit_joules"], abs=1e-6)
    assert record["energy_joules"] == pytest.approx(drawn_j(computed(engine, "streamed")), abs=RIM_J)


@pytest.mark.feature("diffusers", "abort-seen", "real")
def test_a_client_that_leaves_ends_the_work_and_pays_for_it(sidecar: Sidecar, engine: Engine) -> None:
    """The server stops at its next step; what it drew until then is charged, for no image."""
    parts = urlsplit(sidecar.listen)
    body = orjson.dumps(asks("left", 200, n=4))
    head = f"POST {IMAGES} HTTP/1.1\r\nhost: x\r\nx-request-id: left\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as connection:
        connection.sendall(head.encode() + body)
        eventually(lambda: exchange(engine.url, "/simulated/counter").body.find(b'"power_mw":400000') > 0, "its first step")
        time.sleep(1.0)
    record, job = sidecar.record("left"), computed(engine, "left")
    assert (record["outcome"], record["units"], record["energy_per_unit_joules"], record["unit"]) == ("cancelled", None, None, "image")
    assert job["status"] == "cancelled"
    assert record["energy_joules"] == pytest.approx(BUSY_W * record["duration_seconds"], abs=RIM_J)
    assert record["energy_joules"] < drawn_j(job) + RIM_J


def test_a_client_that_leaves_a_stream_ends_its_work(sidecar: Sidecar, engine: Engine) -> None:
    """At once: it was waiting behind nobody."""
    leave(sidecar.listen, IMAGES, asks("left-a-stream", 200, n=4, stream=True), {"x-request-id": "left-a-stream"}, after=0)
    assert sidecar.record("left-a-stream")["outcome"] == "cancelled"
    eventually(lambda: exchange(engine.url, "/simulated/counter").body.find(b'"power_mw":100000') > 0, "its end")


def test_what_goes_wrong_costs_what_it_drew(sidecar: Sidecar, engine: Engine) -> None:
    """A refusal next to nothing, a failure in the middle what was computed by then; neither has made an image."""
    refused = exchange(sidecar.listen, IMAGES, asks("refused", 500), {"x-request-id": "refused"})
    failed = exchange(sidecar.listen, IMAGES, asks("failed", 60, fail_at_step=40), {"x-request-id": "failed"})
    assert (refused.status, failed.status) == (400, 500)
    for record in (sidecar.record("refused"), sidecar.record("failed")):
        assert (record["outcome"], record["units"]) == ("errored", None)
    assert sidecar.record("refused")["energy_joules"] < RIM_J
    assert sidecar.record("failed")["energy_joules"] == pytest.approx(drawn_j(computed(engine, "failed")), abs=RIM_J)


def test_the_bench_adds_the_records_up_to_the_counter(engine: Engine) -> None:
    """`perjoule bench diffusion`, which starts a sidecar of its own: one and two in flight, within one step of the counter each."""
    command = [str(Path(sys.executable).with_name("perjoule")), "bench", "diffusion", "--engine", engine.url, "--energy",
               f"simulated:{engine.url}", "--in-flight", "1,2", "--requests", "2", "--size", "128x128", "--steps", "40"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    levels = orjson.loads(done.stdout)["levels"]
    assert [(level["in_flight"], level["images"], level["closes"]) for level in levels] == [(1, 2, True), (2, 2, True)]
    assert levels[0]["joules_per_image"]["iterations"] == pytest.approx(levels[0]["joules_per_image"]["records"], rel=0.5)


def test_a_form_is_read_as_json_is(sidecar: Sidecar) -> None:
    """Edits are sent as multipart/form-data, the picture among the fields."""
    fields = {"prompt": "a form", "size": "64x64", "num_inference_steps": "7", "n": "1"}
    parts = [f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()]
    picture = '--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n' + "x" * 9000
    body = (picture + "\r\n" + "".join(parts) + "--b--\r\n").encode()
    head = ("POST /v1/images/edits HTTP/1.1\r\nhost: x\r\nx-request-id: form\r\nconnection: close\r\n"
            f"content-type: multipart/form-data; boundary=b\r\ncontent-length: {len(body)}\r\n\r\n")
    at = urlsplit(sidecar.listen)
    with socket.create_connection((at.hostname, at.port), timeout=60) as connection:
        connection.sendall(head.encode() + body)
        got = b"".join(iter(lambda: connection.recv(65536), b""))
    assert got.startswith(b"HTTP/1.1 200")
    record = sidecar.record("form")
    assert (record["endpoint"], record["steps"], record["width"], record["units"]) == ("images.edits", 7, 64, 1)
