"""The soak: a short one passes, and each of its checks fails when what it looks for is wrong."""

import json
import random
import socket
from collections import Counter
from copy import deepcopy
from itertools import islice

import httptools
import pytest

from perjoule.adapters.ledger import store
from perjoule.bench.child import child
from perjoule.bench.relay_upstream import Wish
from perjoule.bench.soak import part, run
from perjoule.bench.soak_checks import Case, Ledger, cases, checks, complaints, is_right, read_ledger, slope, tables
from perjoule.bench.soak_clients import numbers
from perjoule.bench.soak_engine import death
from perjoule.bench.soak_turns import Requests, Saw, Streams
from perjoule.main import main
from perjoule.sidecar.record import Charge, EnergyRecord, Outcome, RequestFacts, Status

KB = 1024


@pytest.mark.slow
@pytest.mark.parametrize(("requests", "streams", "flags"), [(3000, 1000, []), (400, 300, ["--workers", "2", "--dev", "--no-spans"])],
                         ids=["as it comes", "two workers under -X dev, without spans"])
def test_a_short_soak(requests, streams, flags, tmp_path, capsys):
    """Every kind of request is there and accounted for, the joules add up, nothing is left open, and nothing complains."""
    file = tmp_path / "soak.json"
    code = run(["--requests", str(requests), "--streams", str(streams), "--seed", "7", "--json", str(file), *flags])
    assert code == 0, capsys.readouterr().out
    found = json.loads(file.read_text())
    assert sum(case["requests"] for case in found["cases"]) == requests + streams
    assert {case["saw"] for case in found["cases"]} == {"whole", "refused", "cut", "left", "unsent", "unmetered"}
    assert sum(case["requests"] for case in found["cases"] if case["records"]) == found["records"]
    assert found["samples"][-1]["rss_bytes"] > 10_000 * KB
    assert found["spans_received"] == (None if "--no-spans" in flags else found["records"])


def test_what_cannot_be_is_refused(capsys):
    """A flag that makes no sense says what was got and what was expected."""
    with pytest.raises(SystemExit) as refused:
        main(["bench", "soak", "--streams", "0"])
    assert refused.value.code == 2
    assert "--streams: got 0, expected at least 1" in capsys.readouterr().err


def test_parts_are_the_whole():
    """However many processes share them, every number is played once."""
    for parts in (1, 2, 3, 7):
        assert [n for at in range(parts) for n in numbers(part(10, 20, at, parts))] == list(range(10, 30))


# the turns


@pytest.mark.parametrize("kinds", [Requests, Streams])
def test_the_same_seed_gives_the_same_turns(kinds):
    """Another seed gives others; each number has its turn, once and in order, with an id that ends in it."""
    drawn = list(kinds(1, 9000, range(100, 1100)))
    assert [turn.send for turn in drawn] == [turn.send for turn in kinds(1, 9000, range(100, 1100))]
    assert [turn.send for turn in drawn] != [turn.send for turn in kinds(2, 9000, range(100, 1100))]
    assert [number for turn in drawn for number in turn.numbers] == list(range(100, 1100))
    sent = [turn for turn in drawn if turn.otherwise is not Saw.UNSENT]
    assert all(f"X-Request-Id: soak-1-{number}\r\n".encode() in turn.send for turn in sent for number in turn.numbers)


def test_a_third_of_the_streams_are_left():
    """And some of the rest are cut by the engine."""
    ends = Counter(Saw.LEFT if turn.leaves_when_done else turn.otherwise for turn in Streams(1, 9000, range(5000)))
    assert (ends[Saw.LEFT] + ends[Saw.UNSENT]) / 5000 == pytest.approx(0.37, abs=0.03)
    assert ends[Saw.CUT] / 5000 == pytest.approx(0.08, abs=0.02)


def test_a_request_says_where_it_ends():
    """A strict parser finds as many whole requests in what is sent as answers are expected."""
    for turn in islice(Requests(3, 9000, range(2000)), 1500):
        seen = Whole()
        parser = httptools.HttpRequestParser(seen)
        parser.feed_data(turn.send)
        assert seen.count == len(turn.answers)


class Whole:
    """Counts messages."""

    count = 0

    def on_message_complete(self):
        self.count += 1


@pytest.mark.parametrize("after", [0, 1, 2])
async def test_the_engine_dies_when_asked(after, tmp_path):
    """Before it answers, or after so many frames; it notes the request all the same."""
    (notes := tmp_path / "notes").write_bytes(bytes(3))
    async with child("perjoule.bench.soak_engine", "--notes", str(notes)) as engine:
        body = f"{Wish(5)}{death(after)}".encode()
        with socket.create_connection(("127.0.0.1", int(engine["url"].rpartition(":")[2])), timeout=10) as client:
            client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nX-Request-Id: soak-1-2\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            got = b""
            try:
                while piece := client.recv(65536):
                    got += piece
            except ConnectionResetError:
                assert after == 1
        assert b"[DONE]" not in got
        assert got.count(b'"content":"t') in ({after} if after % 2 == 0 else {0, after})  # RST may take them along
    assert notes.read_bytes() == b"\0\0\1"


# the checks

RIGHT = [(Saw.WHOLE, True, 1, "completed"), (Saw.REFUSED, True, 1, "errored"), (Saw.CUT, True, 1, "errored"),
         (Saw.LEFT, True, 1, "cancelled"), (Saw.LEFT, True, 1, "completed"), (Saw.LEFT, False, 1, "cancelled"), (Saw.LEFT, False, 0, ""),
         (Saw.UNSENT, False, 0, ""), (Saw.UNSENT, False, 1, "cancelled"), (Saw.UNMETERED, True, 0, "")]
WRONG = [(Saw.WHOLE, True, 0, ""), (Saw.WHOLE, True, 2, "completed"), (Saw.WHOLE, True, 1, "cancelled"),
         (Saw.WHOLE, False, 1, "completed"), (Saw.REFUSED, True, 1, "completed"), (Saw.CUT, True, 1, "completed"), (Saw.CUT, True, 0, ""),
         (Saw.LEFT, True, 0, ""), (Saw.LEFT, True, 2, "cancelled"), (Saw.LEFT, True, 1, "errored"), (Saw.UNSENT, False, 2, "cancelled"),
         (Saw.UNSENT, True, 1, "cancelled"), (Saw.UNMETERED, True, 1, "completed"), (Saw.NOTHING, False, 0, ""),
         (Saw.WRONG, True, 1, "completed")]


@pytest.mark.parametrize("case", RIGHT)
def test_what_may_be(case):
    """One record for what reached the engine, with the outcome that the client saw."""
    assert is_right(Case(*case))


@pytest.mark.parametrize("case", WRONG)
def test_what_may_not_be(case):
    """A record that is missing, one too many, and one that says something else than the client saw."""
    assert not is_right(Case(*case))


def record(record_id, request_id, outcome=Outcome.COMPLETED, energy_uj=1000):
    facts = RequestFacts(record_id, request_id, 1_700_000_000_000_000_000, 5, outcome, "chat.completions", "vllm", streamed=True)
    return EnergyRecord(facts, Charge(Status.SIMULATED, "step-model", "simulated", settled=True, energy_uj=energy_uj))


def test_the_ledger_is_read_by_number(tmp_path):
    """Records are counted by the number at the end of their request id; what nobody asked for is a stranger."""
    ledger = store.Ledger(tmp_path / "l.sqlite3", store.Retention(36_500))
    ledger.put([record("a", "soak-1-0"), record("b", "soak-1-2", Outcome.CANCELLED), record("c", "soak-1-2", Outcome.CANCELLED),
                record("d", "soak-1-4", energy_uj=None), record("e", "soak-2-1"), record("f", "f" * 32), record("g", "soak-1-")])
    ledger.close()
    found = read_ledger(tmp_path / "l.sqlite3", 4, "soak-1")
    assert (found.rows, found.energy_uj, found.unknown, found.strangers) == (7, 6000, 1, 4)
    assert (list(found.counts), found.outcomes) == ([1, 0, 2, 0], ["completed", "", "cancelled", ""])
    counted, wrong = cases([1, 6, 4, 0], [1, 1, 2, 0], found)
    assert counted == {Case(Saw.WHOLE, True, 1, "completed"): 1, Case(Saw.UNMETERED, True, 0, ""): 1,
                       Case(Saw.LEFT, True, 2, "cancelled"): 1, Case(Saw.NOTHING, False, 0, ""): 1}
    assert wrong == [2, 3]
    assert str(Case(Saw.LEFT, True, 2, "cancelled")) == "left, reached the engine, 2 records cancelled"


DONE = range(0, 400_000, 1000)


def memory_of(bytes_each, filling=0):
    """Resident bytes over 400,000 requests: noise of a few pages, a leak, and something that is full after half of them."""
    noise = random.Random(5)
    return [70_000 * KB + int(bytes_each * n) + min(n, 150_000) * filling + noise.randrange(0, 512 * KB, 4 * KB) for n in DONE]


@pytest.mark.parametrize(("bytes_each", "filling", "leaks"),
                         [(0, 0, False), (0, 200, False), (4, 0, True), (64, 200, True), (-5, 0, False)])
def test_a_leak_is_told_from_noise_and_from_what_fills_up(bytes_each, filling, leaks):
    """A leak of four bytes a request is one; a cache that is full by the middle is none."""
    steep = slope(DONE, memory_of(bytes_each, filling))
    assert steep.is_leak is leaks
    assert steep.bytes_each == pytest.approx(bytes_each, abs=2 * steep.margin)


def test_what_is_too_uncertain_is_not_judged():
    """A few samples have no slope, and one that may be off by whole objects is none."""
    assert slope(range(10), range(10)) is None
    noise = random.Random(1)
    assert slope(range(400), [noise.randrange(10_000_000) for _ in range(400)]).is_leak is None


@pytest.mark.parametrize("line", [
    "Task exception was never retrieved", "x.py:3: RuntimeWarning: coroutine 'f' was never awaited", "Traceback (most recent call last):",
    "2026-11-21 07:00:00,1 ERROR perjoule: the meter failed", "Task was destroyed but it is pending!", "Exception ignored in: <function f>",
    "ResourceWarning: unclosed"])
def test_a_complaint_is_found(line):
    """With what stands behind it."""
    assert complaints(f"INFO perjoule: hello\n{line}\n  more\n") == [line, "  more"]


def test_what_is_said_in_passing_is_no_complaint():
    """Neither is a warning."""
    assert complaints("2026-11-21 07:00:00,1 INFO perjoule: engine: vllm\n2026-11-21 07:00:00,1 WARNING perjoule: upstream is slow\n") == []


def a_run():
    """What is found after a run in which all is well."""
    sink = {"stored": 3, "dropped": 0, "waiting": 0}
    look = {"t_s": 1.0, "rss_bytes": 70_000 * KB, "pss_bytes": 1, "open_files": 20, "threads": 9, "in_flight": 0, "joules": 1.0,
            "metering_failures": 0, "sinks": {"ledger": dict(sink), "otlp": dict(sink)}}
    samples = [{**look, "requests": done, "rss_bytes": used} for done, used in zip(DONE, memory_of(0), strict=True)]
    found = {"at_start": look, "at_end": deepcopy(look), "samples": samples, "spans_received": 3, "complaints": [], "ledger_bytes": 5,
             "balance": {"measured_uj": 90, "requests_uj": 60, "idle_uj": 30, "unattributed_uj": 0}, "seconds": 1.0, "cases": []}
    counted = Counter({Case(Saw.WHOLE, True, 1, "completed"): 300_003, Case(Saw.UNMETERED, True, 0, ""): 5})
    return found, counted, Ledger(3, 60, 0, bytearray(b"\1\1\1"), ["completed"] * 3, 0)


def leak(found, counted, ledger):
    for sample, used in zip(found["samples"], memory_of(100), strict=True):
        sample["rss_bytes"] = used


FAULTS = {
    "each answer": lambda found, counted, ledger: counted.update([Case(Saw.NOTHING, True, 1, "completed")]),
    "a request that reached": lambda found, counted, ledger: counted.update([Case(Saw.CUT, True, 1, "completed")]),
    "no record is of no": lambda found, counted, ledger: object.__setattr__(ledger, "strangers", 1),
    "measured ==": lambda found, counted, ledger: found["balance"].update(idle_uj=31),
    "requests ==": lambda found, counted, ledger: object.__setattr__(ledger, "energy_uj", 61),
    "records are without": lambda found, counted, ledger: object.__setattr__(ledger, "unknown", 1),
    "the ledger has": lambda found, counted, ledger: found["at_end"]["sinks"]["ledger"].update(stored=4),
    "the collector has": lambda found, counted, ledger: found.update(spans_received=2),
    "no record was dropped": lambda found, counted, ledger: found["at_end"].update(metering_failures=1),
    "nothing is in flight": lambda found, counted, ledger: found["at_end"].update(open_files=24),
    "there are no more threads": lambda found, counted, ledger: found["at_end"].update(threads=10),
    "memory does not grow": leak,
    "the log complains": lambda found, counted, ledger: found.update(complaints=["Traceback"]),
}


def test_all_is_well():
    """Nothing is objected to in a run in which nothing is wrong, and no check is without its fault below."""
    found, counted, ledger = a_run()
    verdicts = checks(found, counted, ledger)
    assert [check for check in verdicts if check.kept is not True] == []
    assert [next(fault for fault in FAULTS if check.what.startswith(fault)) for check in verdicts] == list(FAULTS)


@pytest.mark.parametrize("what", FAULTS)
def test_a_fault_is_seen(what):
    """By the check that looks for it; the run then has failed, and its table says so."""
    found, counted, ledger = a_run()
    FAULTS[what](found, counted, ledger)
    verdicts = checks(found, counted, ledger)
    assert what in {fault for check in verdicts if check.kept is False for fault in FAULTS if check.what.startswith(fault)}
    shown = tables({**found, "checks": [check._asdict() for check in verdicts]})[1]
    assert "NO" in list(shown.columns[0].cells)
