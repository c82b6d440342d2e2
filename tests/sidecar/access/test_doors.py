"""Who comes in and what is open: keys, the engine's own key, and routes that are not for clients, however they are spelled."""

import hashlib
import itertools
import re
import tracemalloc
from urllib.parse import unquote

import pytest
from hypothesis import example, find, given, settings
from hypothesis import strategies as st

from perjoule.sidecar.access.doors import OPERATORS_ONLY, WITHOUT_A_KEY, Doors, Entry, Refusal, Routes, read_routes
from perjoule.sidecar.access.keys import Budget, entry_for, read_keys
from perjoule.sidecar.dialects.endpoints import PATHS
from perjoule.sidecar.http.paths import origin_form, path_of

KEYS = read_keys(entry_for("a", "pj-a") + "interval_s = 60\ntokens = 1\n" + entry_for("b", "pj-b"), "keys.toml")
GUARDED = Doors(KEYS, upstream_key="sk-engine")
BEARER = (b"Authorization", b"Bearer pj-a")
# vLLM 0.25 to 0.33 (`launchers/`, `serve/`, `rl/`, `scale_out/`): what its own --api-key leaves open, or only a developer wants.
VLLM = ["/metrics", "/load", "/server_info", "/start_profile", "/stop_profile", "/collective_rpc", "/reset_prefix_cache",
        "/reset_mm_cache", "/reset_encoder_cache", "/sleep", "/wake_up", "/is_sleeping", "/release_kv_cache_memory", "/pause", "/resume",
        "/is_paused", "/abort_requests", "/inference/v1/abort_requests", "/v1/load_lora_adapter", "/v1/unload_lora_adapter",
        "/scale_elastic_ep", "/is_scaling_elastic_ep", "/init_weight_transfer_engine", "/start_weight_update", "/update_weights",
        "/finish_weight_update", "/weight_info", "/weight_checker", "/get_world_size", "/fault_tolerance/apply", "/docs", "/openapi.json",
        "/kv_event_sources"]
DENIED = [*VLLM, "/flush_cache", "/update_weights_from_disk", "/slots"]  # the last of SGLang and llama.cpp

def enter(target, *headers, method="POST", doors=GUARDED):
    return doors.enter(method, path_of(origin_form(target)), headers)


# keys


@pytest.mark.parametrize("field", [BEARER, (b"authorization", b"bearer  pj-a "), (b"X-Api-Key", b"pj-a"), (b"x-api-key", b" pj-a")])
def test_a_key_is_taken_where_clients_put_it(field):
    """OpenAI's, TGI's and Anthropic's clients; the record is the key's owner's, and neither field goes on to the engine."""
    assert enter("/v1/chat/completions", field) == Entry(
        "a", "a", "a", (b"authorization", b"x-api-key"), (b"\r\nAuthorization: Bearer sk-engine",))


def test_who_has_no_budget_is_not_asked_about_it():
    """Nothing is limited but what the file limits."""
    assert KEYS.budgets == {"a": Budget(60, tokens=1)}
    assert enter("/v1/models", (b"X-Api-Key", b"pj-b")).limited is None


def test_the_same_key_twice_is_one_key():
    """Some clients send both fields."""
    assert enter("/v1/models", BEARER, (b"X-Api-Key", b"pj-a")).name == "a"


@pytest.mark.parametrize(("fields", "got"), [
    ((), "none"), (((b"Authorization", b"Bearer pj-x"),), "one that is not known"), (((b"Authorization", b"Basic cGotYQ=="),), "none"),
    (((b"Authorization", b"pj-a"),), "none"), (((b"X-Api-Key", b""),), "one that is not known"),
    ((BEARER, (b"X-Api-Key", b"pj-b")), "two that differ"), ((BEARER, (b"Authorization", b"Bearer pj-x")), "two that differ"),
    (((b"Cookie", b"Authorization=Bearer pj-a"), (b"Proxy-Authorization", b"Bearer pj-a")), "none"),
])
@pytest.mark.parametrize("target", ["/v1/chat/completions", "/v1/models", "/energy/1", "/metrics", "/nothing", "*"])
def test_without_a_key_there_is_no_way_in(target, fields, got):
    """401 for everything, what exists and what does not, with how to do better."""
    refusal = enter(target, *fields)
    assert (refusal.status, refusal.kind, refusal.fields) == (401, "invalid_api_key", (("WWW-Authenticate", "Bearer"),))
    assert refusal.text.endswith(f"got {got}")
    assert "pj-" not in refusal.text


def test_health_needs_no_key():
    """And is not lent the engine's."""
    for path, method in itertools.product(WITHOUT_A_KEY, ("GET", "HEAD")):
        assert enter(path, method=method) == Entry(None, None, None, (b"authorization", b"x-api-key"))
    assert enter("/ping").status == 401
    assert enter("/health/x", method="GET").status == 401


def test_a_browser_s_preflight_needs_no_key():
    """It cannot carry one, and asks nothing of the engine but leave; but not on routes that are not open."""
    asks = (b"Access-Control-Request-Method", b"POST")
    assert enter("/v1/chat/completions", asks, method="OPTIONS").add == ()
    assert enter("/sleep", asks, method="OPTIONS").status == 403
    assert enter("/v1/chat/completions", method="OPTIONS").status == 401


# the engine's key


def test_without_keys_everybody_comes_in_as_before():
    """The client's own key goes to the engine, and the record has half a hash of it."""
    entry = enter("/sleep", BEARER, doors=Doors())
    assert entry == Entry(hashlib.sha256(b"Bearer pj-a").hexdigest()[:32])
    assert enter("/x", (b"X-Api-Key", b"Bearer pj-a"), doors=Doors()).tenant == entry.tenant
    assert enter("/x", doors=Doors()) == Entry(None)


def test_large_keys_are_not_kept_in_memory():
    """A thousand clients with fields as large as they may be leave less behind than a few of those fields."""
    tracemalloc.start()
    tenants = {enter("/x", (b"X-Api-Key", b"%d" % number + b"k" * 65_000), doors=Doors()).tenant for number in range(1000)}
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(tenants) == 1000
    assert held < 500_000


def test_without_keys_the_engine_s_key_is_lent_to_who_shows_none():
    """Who has one of their own is believed to mean it."""
    lending = Doors(upstream_key="sk-engine")
    assert enter("/v1/models", doors=lending).add == (b"\r\nAuthorization: Bearer sk-engine",)
    assert enter("/v1/models", BEARER, doors=lending).add == ()


# routes


@pytest.mark.parametrize("path", sorted(PATHS | {"/v1/models", "/v1/models/org/name", "/v1/responses/r_1/cancel", "/v1/realtime", "/v2/x",
                                                 "/tokenize", "/version", "/health", "/energy/1", "/energy/metrics"}))
def test_the_api_is_open(path):
    """All that infers, and what clients ask beside it."""
    assert isinstance(enter(path or "/", BEARER), Entry)


@pytest.mark.parametrize("target", [*DENIED, "/anything", "/V1/models", "/v1/metrics", "/llm/v1/models", "/v1/a/../models", "*"])
def test_everything_else_is_not(target):
    """Also to who has a key: 403, the same for what exists and what does not."""
    refusal = enter(target, BEARER, method="GET")
    assert (refusal.status, refusal.kind) == (403, "route_not_open")


def test_routes_can_be_opened_by_name():
    """One path, or a folder, which opens nothing of the operator's."""
    doors = Doors(KEYS, read_routes("/metrics, /sdapi/*,/v1/load_lora_adapter/"))
    for path in ("/metrics", "/metrics/", "/sdapi/v1/txt2img", "/v1/load_lora_adapter"):
        assert isinstance(enter(path, BEARER, doors=doors), Entry), path
    for path in ("/metrics/x", "/sdapi", "/sdapi/metrics", "/v1/unload_lora_adapter"):
        assert enter(path, BEARER, doors=doors).status == 403, path


@pytest.mark.parametrize("text", ["metrics", "/*", "/", "/a/*/b", "/a*", "//a", "/a,b"])
def test_routes_that_are_none_are_refused(text):
    """What was got, and what was expected."""
    with pytest.raises(ValueError, match=r"got .*, expected paths with commas between"):
        read_routes(text)


def test_no_routes_open_nothing():
    """The setting's default."""
    assert read_routes("") == Routes()


# no spelling of a denied route gets through, whichever way a server reads it


def readings(target):
    """Every path that some server makes of a target: decoded or not, twice, slashes merged, dots taken out, parameters cut, ..."""
    steps = [unquote, lambda p: p.replace("\\", "/"), lambda p: re.sub("/+", "/", p), lambda p: re.sub(";[^/]*", "", p), without_dots,
             lambda p: p.split("?")[0], lambda p: p.split("#")[0], lambda p: p.split("\0")[0].strip(), str.lower, lambda p: p.rstrip("/"),
             lambda p: "/" + p.split("://", 1)[-1].partition("/")[2] if "://" in p else p]
    seen, new = set(), {target.split("?")[0]}
    while new and len(seen) < 500:
        seen |= new
        new = {step(path) for path in new for step in steps} - seen
    return seen


def without_dots(path):
    """RFC 3986 5.2.4."""
    out = []
    for segment in path.split("/"):
        if segment == "..":
            out = out[:-1] or [""]
        elif segment != ".":
            out.append(segment)
    return "/".join(out)


SEPARATORS = st.sampled_from(["/", "//", "/./", "/x/../", "/..;/", "/;a/", "/%2e/", "/%2e%2e/", "/%252e%252e/", "%2f", "%2F", "%252f", "\\",
                              "%5c", "/../", "/v1/", "/v1/../", "/v1/models/../../", "?", "#", "%23", "%00", "%20", ";x=1"])
LETTERS = st.sampled_from([str, str.upper, str.title, lambda word: f"%{ord(word[0]):02x}{word[1:]}",
                           lambda word: f"%25{ord(word[0]):02x}{word[1:]}", lambda word: f"{word[:-1]}%{ord(word[-1]):02X}"])
BEGINNINGS = st.sampled_from(["", "http://h", "http://h/v1/..", "/v1", "/v1/models"])
ENDS = st.sampled_from(["", "/", "//", "/.", ";a", "?a=b", "%20"])


@st.composite
def spellings(draw):
    """Denied routes as somebody might write them who wants in all the same."""
    words = draw(st.sampled_from(DENIED)).split("/")[1:]
    return draw(BEGINNINGS) + "".join(draw(SEPARATORS) + draw(LETTERS)(word) for word in words) + draw(ENDS)


@settings(max_examples=1000)
@given(spellings() | st.text(alphabet="/.%2eEfF5cC;?#\\v1metricsMETRICS:", max_size=40))
@example("/metrics")
@example("http://h?x=/metrics")
def test_no_spelling_of_a_denied_route_gets_through(target):
    """What any server could read as a denied route, out of what is sent to it, is refused to who has a key; and words of the
    operator's are in no path at all, since an engine's `--root-path` may stand before them."""
    if not isinstance(enter(target, BEARER), Refusal):
        for path in readings(origin_form(target)):
            assert path not in DENIED
            assert OPERATORS_ONLY.isdisjoint(path.split("/"))


@pytest.mark.parametrize("naive", [lambda target: target, lambda target: target.split("?")[0].rstrip("/"), unquote,
                                   lambda target: without_dots(unquote(target.split("?")[0]))])
def test_a_door_that_reads_paths_in_one_way_only_is_talked_round(naive):
    """So that the test above tests something: these would let some spelling in that some server reads as a denied route."""
    find(spellings(), lambda target: naive(target) not in DENIED and bool(readings(target) & set(DENIED)))


def test_what_vllm_has_for_operators_is_told_by_its_words():
    """Every route of the list has one."""
    assert not [route for route in VLLM if not OPERATORS_ONLY & set(route.split("/"))]
