"""The operator's port, asked over real HTTP."""

import asyncio
import threading

import pytest
from yarl import URL

from perjoule.adapters.ledger.store import Ledger
from perjoule.sidecar.record import Charge, EnergyRecord, Outcome, RequestFacts, Status
from tests.sidecar.admin.serving import asking

NOW = 1_790_000_000_000_000_000
S = 1_000_000_000


class Told:
    """What the live page is told: nothing."""

    def news(self):
        return {}

    async def past(self):
        return {}

    state = past


class View:
    """A service of which the test sets every answer."""

    def __init__(self, ledger=None):
        self.ledger = ledger
        self.live = Told()
        self.is_ready, self.account = True, {"measured_uj": 6, "requests_uj": 3, "idle_uj": 2, "unattributed_uj": 1}

    async def render_metrics(self, accept):
        return f"# you accept {accept}\n".encode(), "text/plain; version=0.0.4; charset=utf-8"

    def ready(self):
        return self.is_ready, {"upstream": "ok" if self.is_ready else "connection refused"}

    def balance(self):
        return self.account

    def in_flight(self):
        return [{"record_id": "r9", "model": "llama"}]

    def setting(self):
        return {"engine": "vllm"}

    async def boards(self):
        return [{"uuid": "GPU-a", "temperature_c": 41}]


def record(number, model="llama", arrival=NOW, energy_uj=5):
    return EnergyRecord(
        RequestFacts(f"r{number}", f"q/{number}", arrival, S, Outcome.COMPLETED, "chat.completions", "vllm", False,
                     model=model, input_tokens=1, output_tokens=2),
        Charge(Status.UNAVAILABLE if energy_uj is None else Status.MEASURED, "token-share", "nvml", True,
               energy_uj=energy_uj))


@pytest.fixture
def view(tmp_path):
    ledger = Ledger(tmp_path / "ledger.db", now_unix_ns=lambda: NOW)
    ledger.put([record(1), record(2, "b", NOW + 60 * S), record(3, arrival=NOW + 61 * S, energy_uj=None)])
    yield View(ledger)
    ledger.close()


@pytest.fixture
async def client(view):
    async with asking(view) as client:
        yield client


async def answer(client, path):
    async with client.get(path) as response:
        return response.status, await response.json()


async def test_metrics_pass_the_accept_header_and_the_content_type(client):
    """What the service renders for this Accept header is served with its own content type."""
    async with client.get("/metrics", headers={"Accept": "text/plain;version=1.0.0"}) as response:
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert await response.text() == "# you accept text/plain;version=1.0.0\n"


async def test_health_is_live_always_and_ready_when_the_service_is(client, view):
    """/livez is 200 in any state; /readyz is 200 or 503, and says why."""
    assert await answer(client, "/readyz") == (200, {"ready": True, "upstream": "ok"})
    view.is_ready = False
    assert await answer(client, "/readyz") == (503, {"ready": False, "upstream": "connection refused"})
    assert await answer(client, "/livez") == (200, {"live": True})


async def test_the_balance_says_whether_it_is_conserved(client, view):
    """The four integers are served with `conserved`, true only for exact equality; without a source it is a 404."""
    assert await answer(client, "/energy/balance") == (200, {
        "measured_uj": 6, "requests_uj": 3, "idle_uj": 2, "unattributed_uj": 1, "conserved": True})
    view.account = {**view.account, "measured_uj": 7}
    assert (await answer(client, "/energy/balance"))[1]["conserved"] is False
    view.account = None
    status, body = await answer(client, "/energy/balance")
    assert (status, body["error"]["code"]) == (404, "no_energy_source")


async def test_setting_and_boards(client):
    """What two runs must have in common to be compared, and how the boards are."""
    assert await answer(client, "/energy/setting") == (200, {"engine": "vllm"})
    assert await answer(client, "/energy/boards") == (200, {"boards": [{"uuid": "GPU-a", "temperature_c": 41}]})


async def test_requests_in_flight_are_listed(client):
    """What the service says is running now is served."""
    assert await answer(client, "/energy/in-flight") == (200, {"requests": [{"record_id": "r9", "model": "llama"}]})


@pytest.mark.parametrize(("query", "expected"), [
    ("", ["r3", "r2", "r1"]), ("?limit=1", ["r3"]), ("?model=llama", ["r3", "r1"]), ("?tenant=nobody", []),
    (f"?since={NOW // S + 60}&until={NOW // S + 61}", ["r2"]),
    ("?since=2026-09-21T14:14:21Z", ["r3"]), ("?since=2026-09-21T14:14:20.5", ["r3"]),
    ("?until=2026-09-21T16:14:20%2B02:00", ["r1"]),
])
async def test_the_latest_records_are_listed(client, query, expected):
    """Without `by` the newest records come first, filtered by model, tenant and a half-open span of arrival."""
    status, body = await answer(client, "/energy" + query)
    assert (status, [found["record_id"] for found in body["records"]]) == (200, expected)


async def test_sums_are_grouped(client):
    """`by=model` sums what is known and counts the rest."""
    status, body = await answer(client, "/energy?by=model")
    assert (status, body["by"], body["interval_s"]) == (200, ["model"], None)
    assert [(g["model"], g["requests"], g["with_energy"], g["energy_uj"]) for g in body["groups"]] == [
        ("b", 1, 1, 5), ("llama", 2, 1, 5)]


async def test_sums_are_cut_by_interval(client):
    """`interval=3600` alone gives one row an hour of arrival, with its beginning."""
    _, body = await answer(client, "/energy?interval=3600")
    assert body["interval_s"] == 3600
    assert sum(group["requests"] for group in body["groups"]) == 3
    assert all(group["interval_unix_ns"] % (3600 * S) == 0 for group in body["groups"])


@pytest.mark.parametrize(("query", "param", "message"), [
    ("by=colour", "by", "by: got 'colour', expected some of model, tenant, outcome, endpoint, status"),
    ("limit=0", "limit", "limit: got '0', expected a whole number of records from 1 to 10000"),
    ("limit=10001", "limit", "limit: got '10001', expected a whole number of records from 1 to 10000"),
    ("interval=1m", "interval", "interval: got '1m', expected a whole number of seconds from 1 to 31622400"),
    ("since=yesterday", "since", "since: got 'yesterday', expected Unix seconds or a time as 2026-07-01T12:00:00Z"),
    ("until=99999999999999", "until", "until: got '99999999999999', expected Unix seconds or a time"),
    ("since=9999-12-31T23:59:59Z", "since", "since: got '9999-12-31T23:59:59Z', expected Unix seconds or a time"),
    ("since=253402300799", "since", "since: got '253402300799', expected Unix seconds or a time"),
    ("since=0001-01-01T00:00:00%2B14:00", "since", "since: got '0001-01-01T00:00:00+14:00', expected Unix seconds"),
    ("until=" + "9" * 5000, "until", "until: got '999"),
    ("limit=" + "9" * 5000, "limit", "limit: got '999"),
    ("colour=red", "colour", "colour: got an unknown parameter, expected some of by, interval, since, until, limit"),
])
async def test_a_bad_query_is_told_what_was_got_and_expected(client, query, param, message):
    """A 400 in OpenAI's error shape that names the parameter."""
    status, body = await answer(client, "/energy?" + query)
    assert status == 400
    assert body["error"]["message"].startswith(message)
    assert body["error"] | {"message": ""} == {
        "message": "", "type": "invalid_request_error", "param": param, "code": "invalid_query"}


async def test_one_record_is_found_by_either_id(client):
    """/energy/{id} takes a record id and a request id, slashes escaped; an unknown id is a 404 that repeats it."""
    assert (await answer(client, "/energy/r2"))[1]["model"] == "b"
    assert (await answer(client, "/energy/q%2F2"))[1]["record_id"] == "r2"
    status, body = await answer(client, "/energy/r4")
    assert (status, body["error"]["message"]) == (404, "id: got 'r4', expected the id of a kept record or request")


@pytest.mark.parametrize("path", ["/energy", "/energy?by=model", "/energy/r1"])
async def test_without_a_ledger_the_reason_is_told(client, view, path):
    """With --ledger off these are 404 with the reason, and the rest of the port works."""
    view.ledger = None
    status, body = await answer(client, path)
    assert (status, body["error"]["code"]) == (404, "no_ledger")
    assert (await answer(client, "/livez"))[0] == 200


async def test_other_paths_and_methods_are_errors_in_the_same_shape(client):
    """404 and 405 are JSON too."""
    status, body = await answer(client, "/nowhere")
    assert (status, body["error"]["message"]) == (404, "GET /nowhere: Not Found")
    async with client.post("/energy") as response:
        assert (response.status, (await response.json())["error"]["code"]) == (405, "invalid_request")


@pytest.mark.parametrize("path", ["/energy", "/energy?by=model", "/energy/r1"])
@pytest.mark.parametrize(("lose", "reason"), [
    (lambda path: path.write_bytes(b"no database any more" * 1000), "file is not a database"),
    (lambda path: path.unlink(), "unable to open database file")], ids=["spoilt", "deleted"])
async def test_a_ledger_that_cannot_be_read_is_a_503_with_the_reason(client, tmp_path, caplog, path, lose, reason):
    """An error of the database is told in the same shape, and logged in one line."""
    for suffix in ("-wal", "-shm"):
        (tmp_path / f"ledger.db{suffix}").unlink()
    lose(tmp_path / "ledger.db")
    status, body = await answer(client, path)
    assert (status, body["error"]["type"], body["error"]["code"]) == (503, "server_error", "ledger_unavailable")
    assert reason in body["error"]["message"]
    [entry] = [entry for entry in caplog.records if entry.name == "perjoule.sidecar.admin.port"]
    assert (entry.levelname, entry.exc_info) == ("WARNING", None)


async def test_a_slow_ledger_does_not_hold_up_the_rest():
    """While a query blocks, /livez answers."""
    asked, answered = threading.Event(), threading.Event()
    was_answered = []

    class Slow:
        def latest(self, limit, **where):
            asked.set()
            was_answered.append(answered.wait(20))
            return []

    async with asking(View(Slow())) as client:
        waiting = asyncio.create_task(answer(client, "/energy"))
        await asyncio.to_thread(asked.wait, 20)
        assert await answer(client, "/livez") == (200, {"live": True})
        answered.set()
        assert await waiting == (200, {"records": []})
    assert was_answered == [True]


PATHS = ["/metrics", "/energy", "/energy/r1", "/energy/balance", "/energy/in-flight", "/energy/setting", "/energy/boards",
         "/energy/live", "/nothing"]


@pytest.mark.parametrize("shown", [{}, {"Authorization": "Bearer"}, {"Authorization": "Bearer toke"}, {"Authorization": "Bearer token2"},
                                   {"Authorization": "Basic dG9rZW4="}, {"Authorization": "token"}, {"X-Api-Key": "token"},
                                   {"Authorization": "Bearer t\u00f6ken"}])
async def test_with_a_token_everything_needs_it_but_the_questions_of_orchestrators(view, shown):
    """401 with the challenge, for what exists and what does not; the token itself is not told."""
    async with asking(view, lambda: "token") as client:
        for path in PATHS:
            async with client.get(path, headers=shown) as response:
                assert (response.status, response.headers["WWW-Authenticate"]) == (401, "Bearer")
                assert (await response.json())["error"]["code"] == "invalid_token"
        for path in ("/livez", "/readyz"):
            assert (await answer(client, path))[0] == 200


async def test_with_the_token_everything_is_open(view):
    """Under any name, since who has the token was told the name."""
    async with asking(view, lambda: "token") as client:
        for path in PATHS[:-1]:
            async with client.get(path, headers={"Authorization": "bearer token", "Host": "perjoule.internal:9464"}) as response:
                assert response.status == 200, path


@pytest.mark.parametrize("host", ["127.0.0.1:9464", "localhost", "LOCALHOST:1", "[::1]:9464", "a.localhost:80", "10.1.2.3"])
async def test_without_a_token_it_is_answered_under_its_address(client, host):
    """And as `localhost`."""
    async with client.get("/energy/balance", headers={"Host": host}) as response:
        assert response.status == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:9464", "localhost.evil.example", "127.0.0.1.evil.example", "", "[",
                                  "127.0.0.1@evil.example"])
async def test_without_a_token_no_web_page_can_reach_it_under_a_name_of_its_own(client, host):
    """DNS rebinding: the page's name leads to 127.0.0.1, and the browser lets its scripts read the answer."""
    for path in PATHS:
        async with client.get(path, headers={"Host": host}) as response:
            assert response.status == 403, path
            assert (await response.json())["error"]["code"] == "bad_host"
    async with client.get("/readyz", headers={"Host": host}) as response:
        assert response.status == 200  # what asks this has its own idea of our name


async def test_a_path_cannot_write_lines_into_the_log(view, caplog):
    """What the log repeats of a request is as it came, encoded."""
    class Broken:
        def get(self, any_id):
            raise OSError("cannot be read")

    view.ledger = Broken()
    async with asking(view) as client:
        status, _ = await answer(client, URL("/energy/x%0AERROR%20all%20is%20lost", encoded=True))
        assert status == 503
    (logged,) = [record.getMessage() for record in caplog.records if "cannot be read" in record.getMessage()]
    assert logged == "GET /energy/x%0AERROR%20all%20is%20lost: cannot be read"
