"""Responses in the background of a real vLLM: answered at once, computed afterwards, charged all the same."""

import json
from typing import Any
from uuid import uuid4

import pytest

from tests.engines.serving import Sidecar, eventually
from tests.engines.vllm_cpu import MODEL, Vllm
from tests.engines.wire import Answer, exchange

pytestmark = pytest.mark.vllm

RESPONSE: dict[str, Any] = {"model": MODEL, "input": "import os", "background": True, "store": True, "temperature": 0}


def ours(answer: Answer) -> set[str]:
    """The sidecar's headers in an answer."""
    return {name for name in answer.headers if name.startswith("x-energy-")}


@pytest.mark.feature("vllm", "jobs", "real")
def test_a_response_in_the_background_is_charged_until_it_is_done(sidecar: Sidecar, authorization: dict[str, str]) -> None:
    """Its creation says only where the record will be; who asks for it afterwards is told tokens and joules by the job's own id."""
    name = f"background-{uuid4().hex}"
    created = exchange(sidecar.listen, "/v1/responses", RESPONSE | {"max_output_tokens": 24}, authorization | {"x-request-id": name})
    assert (created.status, ours(created)) == (200, {"x-energy-record"})
    job = json.loads(created.body)["id"]

    def done() -> Answer | None:
        asked = exchange(sidecar.listen, f"/v1/responses/{job}", None, authorization)
        return asked if json.loads(asked.body)["status"] in ("completed", "incomplete") else None

    answer = eventually(done, "the response to be done")
    record = sidecar.record(name)
    usage = json.loads(answer.body)["usage"]
    assert (record["job_id"], record["outcome"], record["endpoint"]) == (job, "completed", "responses")
    assert (record["input_tokens"], record["output_tokens"]) == (usage["input_tokens"], usage["output_tokens"])
    assert record["energy_uj"] > 0
    told = exchange(sidecar.listen, f"/v1/responses/{job}", None, authorization)
    assert float(told.headers["x-energy-joules"]) == pytest.approx(record["energy_joules"], abs=1e-6)
    assert json.loads(exchange(sidecar.listen, f"/energy/{job}").body)["record_id"] == record["record_id"]


def test_a_response_that_is_taken_back_is_cancelled(sidecar: Sidecar, vllm: Vllm, authorization: dict[str, str]) -> None:
    """Cancelled by its client: one record, with what it cost until then."""
    name = f"taken-back-{uuid4().hex}"
    created = exchange(sidecar.listen, "/v1/responses", RESPONSE | {"max_output_tokens": 1800, "ignore_eos": True},
                       authorization | {"x-request-id": name})
    job = json.loads(created.body)["id"]
    cancelled = exchange(sidecar.listen, f"/v1/responses/{job}/cancel", {}, authorization)
    assert cancelled.status == 200
    assert (sidecar.record(name)["outcome"], sidecar.record(name)["job_id"]) == ("cancelled", job)
