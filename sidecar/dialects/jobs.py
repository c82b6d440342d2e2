"""Jobs: what one request creates and the engine computes after it has answered. What engines say of them, and where.

Videos as OpenAI, vLLM-Omni and SGLang make them, responses of OpenAI's in the background, and the queue of ComfyUI. Everything here takes
what an engine sent: nothing trusts a type, and nothing raises.
"""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import orjson

from perjoule.sidecar.dialects.payload import parsed
from perjoule.sidecar.dialects.usage import Usage, usage_of
from perjoule.sidecar.units import NS_PER_MS, NS_PER_S

LONGEST_BODY = 4 << 20  # of an answer about one job; a history has its whole graph
_ID = re.compile(r"(?!\.+$)[A-Za-z0-9._~:@+,=-]{1,256}")  # what a path can name in one way only (`paths.PLAIN`)
_WORD = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MOST_UNIX_NS = 2**62


class Kind(StrEnum):
    """Whose shapes a job has."""

    VIDEOS = "videos"
    RESPONSES = "responses"
    COMFYUI = "comfyui"


class State(StrEnum):
    """How far a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    GONE = "gone"  # the engine knows no such job


class Verb(StrEnum):
    """What a request about a job asks for."""

    STATUS = "status"
    RESULT = "result"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Opened:
    """A job as its creation named it. `base` is what stands before the routes of its kind, `credential` the fields that the engine was
    shown, with which it is asked again; they are kept in memory and nowhere else."""

    kind: Kind
    id: str
    base: str = ""
    credential: tuple[tuple[str, str], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Look:
    """A request about one job."""

    kind: Kind
    id: str
    verb: Verb


@dataclass(frozen=True, slots=True)
class Seen:
    """What an answer says of a job. `ended_unix_ns` is between which two moments it ended, `began_unix_ns` when it left the queue."""

    state: State
    error: str | None = None
    began_unix_ns: int | None = None
    ended_unix_ns: tuple[int, int] | None = None
    usage: Usage | None = None


_CREATES = {"/v1/videos": (Kind.VIDEOS, ""), "/v1/responses": (Kind.RESPONSES, ""), "/prompt": (Kind.COMFYUI, ""),
            "/api/prompt": (Kind.COMFYUI, "/api")}
_ABOUT = re.compile(r"(?P<base>/api)?/(?P<route>v1/videos|v1/responses|history)/(?P<id>[^/]+)(?P<rest>/content|/cancel)?")
_KINDS = {"v1/videos": Kind.VIDEOS, "v1/responses": Kind.RESPONSES, "history": Kind.COMFYUI}
_VERBS = {("GET", None): Verb.STATUS, ("GET", "/content"): Verb.RESULT, ("POST", "/cancel"): Verb.STATUS, ("DELETE", None): Verb.DELETE}
_BACKGROUND = re.compile(rb'"background"\s*:\s*true')
_LISTS = frozenset({"/queue", "/api/queue"})
_STATES = {
    "queued": State.QUEUED, "pending": State.QUEUED, "in_progress": State.RUNNING, "processing": State.RUNNING, "running": State.RUNNING,
    "completed": State.COMPLETED, "succeeded": State.COMPLETED, "incomplete": State.COMPLETED, "failed": State.FAILED,
    "error": State.FAILED, "cancelled": State.CANCELLED, "canceled": State.CANCELLED, "deleted": State.CANCELLED,
}


# requests


def creates(path: str, body: bytes) -> tuple[Kind, str] | None:
    """Which kind of job a POST to that path may create, and what stands before the routes of that kind."""
    found = _CREATES.get(path.partition("?")[0].removesuffix("/"))
    return None if found is not None and found[0] is Kind.RESPONSES and not _BACKGROUND.search(body) else found


def look_of(method: str, path: str | None) -> Look | None:
    """The job that a request is about, None for what is about none. `path` is `paths.path_of` the target."""
    match = _ABOUT.fullmatch(path) if path is not None else None
    if match is None:
        return None
    kind, verb = _KINDS[match["route"]], _VERBS.get((method, match["rest"]))
    of_comfyui = kind is Kind.COMFYUI
    if verb is None or (match["base"] and not of_comfyui) or (of_comfyui and (verb is not Verb.STATUS or method != "GET")):
        return None
    return Look(kind, match["id"], verb) if _ID.fullmatch(match["id"]) else None


def removed_by(method: str, path: str | None, body: bytes) -> tuple[str, ...] | None:
    """The jobs that a request takes out of ComfyUI's queue, () for all of them; None for another request."""
    if method != "POST" or path not in _LISTS:
        return None
    asks = parsed(body) or {}
    if asks.get("clear"):
        return ()
    ids = asks.get("delete")
    named = tuple(each for each in ids if isinstance(each, str) and _ID.fullmatch(each)) if isinstance(ids, list) else ()
    return named or None


def status_path(opened: Opened) -> str:
    """Where a job is asked after."""
    route = {Kind.VIDEOS: "/v1/videos/", Kind.RESPONSES: "/v1/responses/", Kind.COMFYUI: "/history/"}[opened.kind]
    return opened.base + route + opened.id


def queue_path(opened: Opened) -> str:
    """Where ComfyUI says who runs and who waits."""
    return opened.base + "/queue"


# answers


def job_created(kind: Kind, payload: dict[str, Any] | None) -> str | None:
    """The id of the job that an answer says it has begun, '' for one that nothing can be asked by; None where there is none: what is
    answered when it is done is no job."""
    if payload is None:
        return None
    if kind is Kind.COMFYUI:
        job_id = payload.get("prompt_id")
    else:
        state = _STATES.get(str(payload.get("status")))
        job_id = payload.get("id") if state in (State.QUEUED, State.RUNNING) else None
    if job_id is None:
        return None
    return job_id if isinstance(job_id, str) and _ID.fullmatch(job_id) else ""


def seen_of(kind: Kind, job_id: str, status: int, payload: dict[str, Any] | None, verb: Verb = Verb.STATUS) -> Seen | None:
    """What an answer says of that job; None if nothing."""
    if status == 404:
        return Seen(State.GONE)
    if not 200 <= status < 300 or verb is Verb.RESULT:
        return None
    if verb is Verb.DELETE:
        return Seen(State.CANCELLED)
    if payload is None:
        return None
    if kind is Kind.COMFYUI:
        entry = payload.get(job_id)
        return _seen_in_history(entry) if isinstance(entry, dict) else None
    state = _STATES.get(str(payload.get("status")))
    if state is None or payload.get("id", job_id) != job_id:
        return None
    ended = _unix_ns(payload.get("completed_at"), NS_PER_S)
    return Seen(state, _error_of(payload.get("error")) if state is State.FAILED else None,
                ended_unix_ns=None if ended is None else (ended, ended + NS_PER_S),
                usage=usage_of(payload) if state is State.COMPLETED else None)


def queue_of(payload: dict[str, Any] | None) -> dict[str, State] | None:
    """Who runs and who waits, by ComfyUI's queue: entries are [number, id, graph, …]; None for what is no queue."""
    if payload is None or not isinstance(payload.get("queue_running"), list):
        return None
    found: dict[str, State] = {}
    for name, state in (("queue_pending", State.QUEUED), ("queue_running", State.RUNNING)):
        entries = payload.get(name)
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, list) and len(entry) > 1 and isinstance(entry[1], str):
                found[entry[1]] = state
    return found


def _seen_in_history(entry: dict[str, Any]) -> Seen:
    """ComfyUI's history has a job once it is over; older versions say no more than that."""
    status = entry.get("status")
    status = status if isinstance(status, dict) else {}
    times: dict[str, int | None] = {}
    messages = status.get("messages")
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, list) and len(message) == 2 and isinstance(message[0], str) and isinstance(message[1], dict):
            times[message[0]] = _unix_ns(message[1].get("timestamp"), NS_PER_MS)
    ends = [name for name in ("execution_interrupted", "execution_error", "execution_success") if name in times]
    ended = times[ends[0]] if ends else None
    if "execution_interrupted" in times:
        state, error = State.CANCELLED, "execution_interrupted"
    elif status.get("status_str") == "error" or "execution_error" in times:
        state, error = State.FAILED, "execution_error"
    else:
        state, error = State.COMPLETED, None
    return Seen(state, error, times.get("execution_start"), None if ended is None else (ended, ended + NS_PER_MS))


def _error_of(error: Any) -> str:
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, str) and _WORD.fullmatch(code) else "job_failed"


def _unix_ns(value: Any, unit_ns: int) -> int | None:
    if type(value) not in (int, float) or not 0 < value < _MOST_UNIX_NS // unit_ns:
        return None
    return int(value * unit_ns)


def with_energy(body: bytes, energy: dict[str, Any], job_id: str) -> bytes:
    """A job's status with `energy` as its first member, and every other byte as it was: in ComfyUI's history it is in the job's entry.
    Returned unchanged where it would not read back as exactly that, has such a member, or says nothing of the job."""
    expected = parsed(body) or {}
    if expected.get("id") == job_id:
        status, at = expected, body.find(b"{") + 1
    else:
        match, entry = re.search(rb'"%b"\s*:\s*\{' % re.escape(job_id.encode()), body), expected.get(job_id)
        if match is None or not isinstance(entry, dict):
            return body
        status, at = entry, match.end()
    if "energy" in status:
        return body
    value = orjson.dumps(energy)
    edited = body[:at] + b'"energy":' + value + (b"," if status else b"") + body[at:]
    status["energy"] = orjson.loads(value)
    try:
        return edited if parsed(edited) == expected else body
    except RecursionError:
        return body
