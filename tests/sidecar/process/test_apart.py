"""A place for records in a process of its own: what it is given, what it says, how it ends, and what comes of it when it dies."""

import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.ports import RefusedError, TryLaterError
from perjoule.sidecar.process import apart
from perjoule.sidecar.process.apart import Apart
from perjoule.sidecar.process.wire import records_bytes, records_of
from perjoule.sidecar.record import Charge, EnergyRecord, Outcome, RequestFacts, Status, TokenSource, Unit, UnitSource

FACTS = RequestFacts("r", "mine", 10**18, 5, Outcome.CANCELLED, "chat", "vllm", True, tenant="t\0ü", output_tokens=3,
                     output_source=TokenSource.FRAMES, unit=Unit.VIDEO_SECOND, units=1.5, units_source=UnitSource.ANSWERED)
CHARGE = Charge(Status.MEASURED, "step-model", "nvml", True, "gpu-board", ("GPU-a", "GPU-b"), 5, None, windows=2, concurrency_mean=1.5)
PLACE = '''
import os, sys, time
from pathlib import Path
from socket import socket
from perjoule.sidecar.ports import RefusedError, TryLaterError
from perjoule.sidecar.process.apart import store

class Place:
    """Writes down what it is given, and does what the request id of the first record says."""
    name = "place"
    def __init__(self, settings):
        self.file = Path(settings["file"])
        if settings.get("missing"):
            raise LookupError("there is no such place")
        self.hangs = settings.get("hangs")
    def put(self, records):
        word = records[0].facts.request_id
        if word == "later":
            raise TryLaterError("full", 2.5)
        if word == "refuse":
            raise RefusedError("not these", 2)
        if word == "fail":
            raise ValueError("broken")
        if word == "die":
            os._exit(7)
        with self.file.open("a") as file:
            file.writelines(record.as_text().decode() + "\\n" for record in records)
    def close(self):
        with self.file.open("a") as file:
            file.write("closed\\n")
        if self.hangs:
            time.sleep(60)

store(socket(fileno=int(sys.argv[1])), Place)
'''


def record(number=1, request_id="q"):
    return EnergyRecord(replace(FACTS, record_id=f"r{number}", request_id=request_id), CHARGE, "run", number)


@pytest.fixture
def place(tmp_path):
    """Starts one; answers its sink and the file that it writes."""
    made = []

    def start(**settings):
        made.append(Apart("place", [sys.executable, "-c", PLACE], {"file": str(tmp_path / "out"), **settings}))
        return made[-1], tmp_path / "out"

    yield start
    for sink in made:
        sink.close()


def test_what_is_given_is_what_is_stored_and_the_end_is_an_orderly_one(place):
    """Batch by batch, in order, as it was; then its own sink is closed before it ends."""
    sink, out = place()
    sink.put([record(1), record(2)])
    sink.put([record(3)])
    assert out.read_text() == "".join(record(number).as_text().decode() + "\n" for number in (1, 2, 3))
    sink.close()
    assert out.read_text().endswith("closed\n")
    assert sink._process.returncode == 0


def test_a_large_batch_passes(place):
    """Longer than any socket's buffer."""
    sink, out = place()
    sink.put([record(number, "x" * 3_000) for number in range(2_000)])
    assert len(out.read_text().splitlines()) == 2_000


def test_what_the_place_says_is_what_the_outbox_hears_and_the_next_batch_is_taken(place):
    """Patience, a refusal with its count, and anything else; none of it ends the process."""
    sink, out = place()
    with pytest.raises(TryLaterError, match="full") as later:
        sink.put([record(1, "later")])
    with pytest.raises(RefusedError, match="not these") as refused:
        sink.put([record(1, "refuse")])
    with pytest.raises(OSError, match="broken"):
        sink.put([record(1, "fail")])
    assert (later.value.after_s, refused.value.count) == (2.5, 2)
    sink.put([record(4)])
    assert len(out.read_text().splitlines()) == 1


def test_when_the_process_dies_the_batch_is_given_again_to_another(place):
    """However it died, before a batch or in the middle of it."""
    sink, out = place()
    sink.put([record(1)])
    with pytest.raises(OSError, match="exit code 7"):
        sink.put([record(2, "die")])
    sink.put([record(3)])
    os.kill(sink._process.pid, signal.SIGKILL)
    sink._process.wait()
    sink.put([record(4)])
    os.kill(sink._process.pid, signal.SIGSTOP)
    threading.Timer(0.3, os.kill, [sink._process.pid, signal.SIGKILL]).start()  # it dies with this batch unread
    with pytest.raises(OSError, match="signal 9"):
        sink.put([record(5)])
    sink.put([record(5)])
    assert [line.partition('"sequence":')[2].partition(",")[0] for line in out.read_text().splitlines()] == ["1", "3", "4", "5"]


def test_a_place_that_cannot_be_opened_says_why_each_time(place):
    """The outbox tries again, and shows the text meanwhile."""
    sink, _ = place(missing=True)
    for _ in range(2):
        with pytest.raises(OSError, match="there is no such place"):
            sink.put([record()])
        sink._process.wait()


def test_one_that_does_not_end_is_killed(place, monkeypatch):
    """Nobody waits for it for ever."""
    monkeypatch.setattr(apart, "LAST_STORED_S", 1.0)
    sink, out = place(hangs=True)
    sink.put([record()])
    began = time.monotonic()
    sink.close()
    assert out.read_text().endswith("closed\n")
    assert sink._process.returncode == -signal.SIGKILL
    assert time.monotonic() - began < 30


def test_a_record_that_no_json_holds_stays_here(place):
    """Its outbox drops it; the process has not heard of it, and takes the next."""
    sink, out = place()
    with pytest.raises(TypeError):
        sink.put([record(1, "\ud800")])
    sink.put([record(2)])
    assert len(out.read_text().splitlines()) == 1


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
numbers = st.none() | st.integers(-2**63, 2**63 - 1)


@given(texts, texts | st.none(), numbers, numbers, st.none() | st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(Outcome),
       st.sampled_from(Status), st.none() | st.sampled_from(TokenSource), st.lists(texts, max_size=3), st.booleans())
def test_a_record_comes_as_it_went(text, other, number, amount, real, outcome, status, counted, devices, flag):
    """Every kind of field: texts, integers, floats, nulls, enumerations, tuples."""
    facts = replace(FACTS, tenant=other, model=text, output_tokens=number, units=real, outcome=outcome, output_source=counted,
                    streamed=flag)
    charge = replace(CHARGE, status=status, energy_uj=amount, devices=tuple(devices), concurrency_mean=real, settled=flag)
    (got,) = records_of(records_bytes((EnergyRecord(facts, charge, text, 7),)))
    assert got == EnergyRecord(facts, charge, text, 7)
    assert got.as_text() == EnergyRecord(facts, charge, text, 7).as_text()
    assert [type(got.facts.outcome), type(got.charge.status), type(got.charge.devices)] == [Outcome, Status, tuple]


def test_one_that_is_left_alone_ends(tmp_path):
    """The meter's process was killed: what stores for it has closed its sink, and is gone."""
    file, told = tmp_path / "out", tmp_path / "pid"
    meter = ("import sys, os, time\n"
             f"from pathlib import Path\nfrom perjoule.sidecar.process.apart import Apart\n"
             f"sink = Apart('place', [sys.executable, '-c', {PLACE!r}], {{'file': {str(file)!r}}})\n"
             f"Path({str(told)!r}).write_text(str(sink._process.pid))\ntime.sleep(1)\nos._exit(9)\n")
    assert os.spawnl(os.P_WAIT, sys.executable, sys.executable, "-c", meter) == 9
    pid = int(told.read_text())
    for _ in range(300):
        if not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]:
            break
        time.sleep(0.05)
    else:
        raise AssertionError("it still runs")
    assert file.read_text() == "closed\n"
