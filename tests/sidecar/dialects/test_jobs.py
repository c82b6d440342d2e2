"""Jobs as engines name them and speak of them: what is believed, what is not, and that nothing raises."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.dialects.jobs import (
    Kind,
    Look,
    Opened,
    Seen,
    State,
    Verb,
    creates,
    job_created,
    look_of,
    queue_of,
    removed_by,
    seen_of,
    status_path,
    with_energy,
)
from perjoule.sidecar.dialects.jobwatch import Body
from perjoule.sidecar.http.paths import path_of

JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(
                        ["id", "status", "error", "code", "completed_at", "inference_time_s", "messages", "v1", "timestamp", "usage",
                         "queue_running", "queue_pending", "prompt_id", "status_str", "delete", "clear"]) | st.text(max_size=4),
                        inner, max_size=5), max_leaves=20)


@pytest.mark.parametrize(("method", "path", "look"), [
    ("GET", "/v1/videos/video_1", Look(Kind.VIDEOS, "video_1", Verb.STATUS)),
    ("GET", "/v1/videos/video_1/content", Look(Kind.VIDEOS, "video_1", Verb.RESULT)),
    ("DELETE", "/v1/videos/video_1", Look(Kind.VIDEOS, "video_1", Verb.DELETE)),
    ("GET", "/v1/responses/resp_1", Look(Kind.RESPONSES, "resp_1", Verb.STATUS)),
    ("POST", "/v1/responses/resp_1/cancel", Look(Kind.RESPONSES, "resp_1", Verb.STATUS)),
    ("GET", "/history/0a-1b", Look(Kind.COMFYUI, "0a-1b", Verb.STATUS)),
    ("GET", "/api/history/0a-1b", Look(Kind.COMFYUI, "0a-1b", Verb.STATUS)),
    ("GET", "/v1/videos", None), ("POST", "/v1/videos/video_1", None), ("GET", "/history", None), ("DELETE", "/history/0a", None),
    ("GET", "/api/v1/videos/video_1", None), ("GET", "/v1/videos/a/b/content", None), ("GET", "/v1/videos/video_1/content/x", None),
])
def test_requests_about_a_job(method, path, look):
    assert look_of(method, path) == look


@pytest.mark.parametrize("target", ["/v1/videos/a%2Fb", "/v1/videos/..", "/v1/videos/%2e%2e", "/v1/videos/a;x", "/v1/videos//x",
                                    "/v1/videos/a b", "/v1/videos/" + "a" * 257, "/history/%00"])
def test_an_id_that_servers_may_read_in_two_ways_is_nobody_s(target):
    assert look_of("GET", path_of(target)) is None


@given(st.text(min_size=1, max_size=300))
def test_where_a_job_is_asked_after_is_always_its_own_path(job_id):
    """Whatever an engine calls its job, we ask after exactly that, or not at all."""
    for kind in Kind:
        named = job_created(kind, {"id": job_id, "prompt_id": job_id, "status": "queued"})
        assert named in ("", job_id)
        if named:
            path = path_of(status_path(Opened(kind, named)))
            assert look_of("GET", path) == Look(kind, job_id, Verb.STATUS)


def test_only_what_is_not_done_yet_is_a_job():
    """An engine that answers with the finished thing has created none; a response in the foreground is none."""
    assert job_created(Kind.VIDEOS, {"id": "v", "status": "completed"}) is None
    assert job_created(Kind.VIDEOS, {"id": "v", "status": "failed"}) is None
    assert job_created(Kind.VIDEOS, {"error": {"message": "no"}}) is None
    assert job_created(Kind.RESPONSES, {"id": "r", "status": "queued"}) == "r"
    assert job_created(Kind.COMFYUI, {"prompt_id": "p", "number": 1, "node_errors": {}}) == "p"
    assert job_created(Kind.COMFYUI, {"error": {}, "node_errors": []}) is None
    assert job_created(Kind.COMFYUI, None) is None
    assert creates("/v1/responses", b'{"background": true}') == (Kind.RESPONSES, "")
    assert creates("/v1/responses", b'{"input": "\\"background\\": true"}') is None
    assert creates("/api/prompt/", b"{}") == (Kind.COMFYUI, "/api")
    assert creates("/v1/chat/completions", b'{"background": true}') is None


@pytest.mark.parametrize("job_id", ["", "a/b", "a\nb", "..", "a" * 257, "\x00", "x" * 1_000_000, "a?b", 7, ["a"], {}])
def test_garbage_is_no_name(job_id):
    assert job_created(Kind.VIDEOS, {"id": job_id, "status": "queued"}) == ""
    assert job_created(Kind.COMFYUI, {"prompt_id": job_id}) == ""


@pytest.mark.parametrize(("said", "state"), [
    ("queued", State.QUEUED), ("in_progress", State.RUNNING), ("completed", State.COMPLETED), ("failed", State.FAILED),
    ("cancelled", State.CANCELLED), ("deleted", State.CANCELLED)])
def test_the_status_of_a_video(said, state):
    assert seen_of(Kind.VIDEOS, "v", 200, {"id": "v", "status": said}).state is state


def test_what_a_finished_video_says():
    seen = seen_of(Kind.VIDEOS, "v", 200, {"id": "v", "status": "completed", "completed_at": 1_700_000_000})
    assert seen.ended_unix_ns == (1_700_000_000 * 10**9, 1_700_000_001 * 10**9)
    assert seen_of(Kind.VIDEOS, "v", 200, {"id": "v", "status": "failed", "error": {"code": "oom", "message": "a secret"}}).error == "oom"
    assert seen_of(Kind.VIDEOS, "v", 200, {"id": "v", "status": "failed", "error": {"message": "a secret"}}).error == "job_failed"


def test_what_is_not_about_this_job_says_nothing():
    assert seen_of(Kind.VIDEOS, "v", 200, {"id": "w", "status": "completed"}) is None
    assert seen_of(Kind.VIDEOS, "v", 401, {"error": {}}) is None
    assert seen_of(Kind.VIDEOS, "v", 500, {"id": "v", "status": "failed"}) is None
    assert seen_of(Kind.VIDEOS, "v", 200, {"id": "v", "status": "sideways"}) is None
    assert seen_of(Kind.COMFYUI, "p", 200, {"q": {"status": {"completed": True}}}) is None
    assert seen_of(Kind.COMFYUI, "p", 200, {}) is None
    assert seen_of(Kind.VIDEOS, "v", 404, None) == Seen(State.GONE)
    assert seen_of(Kind.VIDEOS, "v", 200, None, Verb.DELETE) == Seen(State.CANCELLED)


def test_comfyui_s_history_has_times_to_the_millisecond():
    def entry(word, status):
        messages = [["execution_start", {"timestamp": 1_700_000_000_123}], ["execution_cached", {"nodes": []}],
                    [f"execution_{word}", {"timestamp": 1_700_000_002_456}]]
        return {"p": {"status": {"status_str": status, "completed": status == "success", "messages": messages}}}

    seen = seen_of(Kind.COMFYUI, "p", 200, entry("success", "success"))
    assert (seen.state, seen.began_unix_ns) == (State.COMPLETED, 1_700_000_000_123 * 10**6)
    assert seen.ended_unix_ns == (1_700_000_002_456 * 10**6, 1_700_000_002_457 * 10**6)
    assert seen_of(Kind.COMFYUI, "p", 200, entry("error", "error")).state is State.FAILED
    assert seen_of(Kind.COMFYUI, "p", 200, entry("interrupted", "error")).state is State.CANCELLED
    assert seen_of(Kind.COMFYUI, "p", 200, {"p": {"outputs": {}}}).state is State.COMPLETED  # before there were messages


def test_comfyui_s_queue():
    queue = {"queue_running": [[1, "a", {}, {}, []]], "queue_pending": [[2, "b", {}, {}, []], "junk", [3], [4, None]]}
    assert queue_of(queue) == {"a": State.RUNNING, "b": State.QUEUED}
    assert queue_of({"error": "no"}) is None
    assert removed_by("POST", "/queue", b'{"delete": ["a", 1, "x/y"]}') == ("a",)
    assert removed_by("POST", "/api/queue", b'{"clear": true}') == ()
    assert removed_by("POST", "/queue", b'{"delete": []}') is None
    assert removed_by("POST", "/queue", b"junk") is None
    assert removed_by("GET", "/queue", b"") is None


@given(JSON, st.integers(100, 599), st.sampled_from(list(Kind)), st.sampled_from(list(Verb)), st.binary(max_size=40))
def test_nothing_that_an_engine_may_say_raises(value, status, kind, verb, text):
    payload = value if isinstance(value, dict) else {"v1": value, "status": value, "queue_running": value, "completed_at": value}
    seen_of(kind, "v1", status, payload, verb)
    job_created(kind, payload)
    queue_of(payload)
    removed_by("POST", "/queue", json.dumps(payload).encode())
    for encoding in (None, b"gzip", b"br"):
        body = Body(encoding)
        body.feed(text)
        body.payload()


@given(JSON)
def test_a_status_with_energy_is_the_status_and_the_energy(value):
    """Every other byte stays, and what is no status of that job stays whole."""
    energy = {"energy_joules": 1.5}
    for payload in (value, {"id": "v1", "status": value}, {"v1": {"status": value}}, {"id": "v1", "energy": 1}):
        body = json.dumps(payload).encode()
        edited = with_energy(body, energy, "v1")
        if edited is not body:
            assert edited.replace(b'"energy":{"energy_joules":1.5}' + (b"," if b'5},"' in edited else b""), b"", 1) == body
    assert json.loads(with_energy(b'{"id":"v1","status":"queued"}', energy, "v1"))["energy"] == energy
    assert json.loads(with_energy(b'{"v1": {"outputs": {}}}', energy, "v1"))["v1"]["energy"] == energy
    assert with_energy(b"{}", energy, "v1") == b"{}"  # ComfyUI's word for not yet


def test_a_body_that_is_too_long_is_not_read():
    body = Body(None)
    for _ in range(5):
        body.feed(b" " * (1 << 20))
    body.feed(b'{"id": "v"}')
    assert body.payload() is None
