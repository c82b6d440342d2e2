"""Who may come in, what is open to them, and what the engine is told of them: decided by method, path and fields alone.

Without keys everybody may use everything, as if the engine stood there itself. With keys only the API is open, since the engine does
not guard the rest: vLLM's own `--api-key` covers `/v1`, `/v2`, `/inference` and `/cohere` (its `authenticate.py`), and what lies outside
starts profilers, frees memory and swaps weights.
"""

import hashlib
from dataclasses import dataclass

from perjoule.sidecar.access.keys import Keys
from perjoule.sidecar.dialects.endpoints import PATHS
from perjoule.sidecar.dialects.jobs import look_of
from perjoule.sidecar.http.heads import Headers, first, line
from perjoule.sidecar.http.remembered import remember

AUTHORIZATION, API_KEY = b"authorization", b"x-api-key"
RECORDS = "/energy/"  # ours, not the engine's
MOST_REMEMBERED = 1024
REMEMBERED_BYTES = 1024  # a field may have 64 KiB: a thousand of those, remembered, would be as large as all the rest of the sidecar
PREFLIGHT = b"access-control-request-method"
CREDENTIALS = (AUTHORIZATION, API_KEY)
WITHOUT_A_KEY = frozenset({"/health", "/ping"})  # a load balancer's question; /v1/models would name every tenant's adapters
NAMESPACES = frozenset({"v1", "v2", "inference", "cohere"})
COMFYUI = frozenset({"/prompt", "/api/prompt", "/view", "/api/view"})  # and a job's history; its queue and its socket show everybody's
OPEN = PATHS | WITHOUT_A_KEY | COMFYUI | {"/version", "/tokenize", "/detokenize", "/chat_tokenize", "/info"}
# vLLM's routes that serve the operator, not clients (0.25 to 0.33: launchers/, serve/, rl/, scale_out/), by any of their segments:
# some lie inside the namespaces, and behind `--root-path /v1` all of them do.
OPERATORS_ONLY = frozenset({
    "metrics", "load", "kv_event_sources", "server_info", "docs", "redoc", "openapi.json", "static", "tokenizer_info", "fault_tolerance",
    "start_profile", "stop_profile", "load_lora_adapter", "unload_lora_adapter", "collective_rpc", "abort_requests", "pause", "resume",
    "is_paused", "sleep", "wake_up", "is_sleeping", "release_kv_cache_memory", "reset_prefix_cache", "reset_mm_cache",
    "reset_encoder_cache", "scale_elastic_ep", "is_scaling_elastic_ep", "init_weight_transfer_engine", "shutdown_weight_transfer_engine",
    "start_weight_update", "start_draft_weight_update", "update_weights", "finish_weight_update", "update_weight_version", "weight_info",
    "weight_checker", "get_world_size",
})


@dataclass(frozen=True, slots=True)
class Refusal:
    """What is answered instead of the engine: a status, an error in OpenAI's shape (`kind` is its type), fields of the head."""

    status: int
    kind: str
    text: str
    fields: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)  # not frozen: it is made for every request
class Entry:
    """Who came in, and how the head of the request differs on its way to the engine: names of fields to drop, lines to add.

    `name` is the key's, None where there are no keys; `limited` is the name of one that has a budget.
    """

    tenant: str | None
    name: str | None = None
    limited: str | None = None
    drop: tuple[bytes, ...] = ()
    add: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Routes:
    """What `--allow-routes` opens beside the API: paths, and all that is below one that ends in `/*` and is not for operators."""

    paths: frozenset[str] = frozenset()
    folders: tuple[str, ...] = ()

    def are_open_to(self, path: str) -> bool:
        """Whether a client with a key may use that path."""
        if path in self.paths or path.startswith(RECORDS):
            return True
        segments = path.split("/")[1:]
        if not OPERATORS_ONLY.isdisjoint(segment.lower() for segment in segments):
            return False
        is_job = look_of("GET", path) is not None
        return path in OPEN or is_job or bool(segments and segments[0] in NAMESPACES) or path.startswith(self.folders)


def read_routes(text: str) -> Routes:
    """What `--allow-routes` says: `/sleep,/wake_up,/sdapi/*`. Raises ValueError: what was got and what was expected."""
    routes = [route.strip() for route in text.split(",") if route.strip()]
    for route in routes:
        if not route.startswith("/") or "//" in route or "*" in route.removesuffix("/*") or route in ("/", "/*"):
            raise ValueError(f"got {route!r}, expected paths with commas between, as /metrics or /sdapi/*")
    return Routes(frozenset(route.removesuffix("/") for route in routes if not route.endswith("/*")),
                  tuple(route.removesuffix("*") for route in routes if route.endswith("/*")))


class Doors:
    """The rules of one configuration; a reload makes new ones."""

    def __init__(self, keys: Keys | None = None, routes: Routes = Routes(), upstream_key: str | None = None) -> None:
        self.keys, self.upstream_key, self._routes = keys, upstream_key, routes
        self._upstream = (line(b"Authorization", b"Bearer " + upstream_key.encode()),) if upstream_key is not None else ()
        self._nameless = Entry(None, add=self._upstream)

    def enter(self, method: str, path: str | None, headers: Headers) -> Entry | Refusal:
        """Let in, or not. `path` is `paths.path_of` the target."""
        if self.keys is None:
            return self._anybody(headers)
        given = {key for field, value in headers if field.lower() in CREDENTIALS and (key := _key(field.lower(), value)) is not None}
        name = self.keys.name_of(next(iter(given))) if len(given) == 1 else None
        if name is None and not _needs_no_key(method, path, headers):
            got = ("none", "one that is not known")[len(given)] if len(given) < 2 else "two that differ"
            return Refusal(401, "invalid_api_key", f"expected an API key, as `Authorization: Bearer KEY` or `X-Api-Key: KEY`; got {got}",
                           (("WWW-Authenticate", "Bearer"),))
        if path is None or not self._routes.are_open_to(path):
            return Refusal(403, "route_not_open", "this path is not open to clients of this server (its operator can open it by name)")
        return Entry(name, name, name if name in self.keys.budgets else None, CREDENTIALS, self._upstream if name is not None else ())

    def _anybody(self, headers: Headers) -> Entry:
        authorization = first(headers, AUTHORIZATION)
        key = authorization or first(headers, API_KEY)
        if authorization is None and not key:
            return self._nameless
        return Entry(_hashed(key), add=self._upstream if authorization is None else ())


def _needs_no_key(method: str, path: str | None, headers: Headers) -> bool:
    """Health, for those who have no key to show; and what a browser asks before it may send one (the engine answers by itself)."""
    if method == "OPTIONS":
        return first(headers, PREFLIGHT) is not None
    return method in ("GET", "HEAD") and path in WITHOUT_A_KEY


def _key(field: bytes, value: bytes) -> bytes | None:
    """The key that one of the CREDENTIALS shows: bare in X-Api-Key, behind `Bearer` in Authorization; None for other schemes."""
    if field == API_KEY:
        return value.strip()
    scheme, _, key = value.strip().partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else None


def _hashed(key: bytes | None) -> str | None:
    """Who pays, where the engine and not the sidecar knows the keys: half of the SHA-256, from which the key cannot be had back."""
    if not key:
        return None
    name = _REMEMBERED.get(key)
    if name is None:
        name = hashlib.sha256(key).hexdigest()[:32]
        remember(_REMEMBERED, key, name, most=MOST_REMEMBERED, longest=REMEMBERED_BYTES)
    return name


_REMEMBERED: dict[bytes, str] = {}
