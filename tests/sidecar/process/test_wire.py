"""The wire between a worker and the meter: what is said is what is heard, however the bytes were cut."""

from array import array
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.access.doors import Refusal
from perjoule.sidecar.dialects.jobs import Kind as JobKind
from perjoule.sidecar.dialects.jobs import Look, Opened, Seen, State, Verb
from perjoule.sidecar.dialects.jobwatch import View
from perjoule.sidecar.dialects.requests import Asked
from perjoule.sidecar.dialects.usage import Usage
from perjoule.sidecar.dialects.works import Product
from perjoule.sidecar.process.wire import (
    Kind,
    Messages,
    asked_of,
    batch,
    charge_of,
    facts_of,
    frames,
    look_of,
    message,
    opened_of,
    refusal_of,
    seen_of,
    view_of,
)
from perjoule.sidecar.record import Charge, Outcome, RequestFacts, Status, TokenSource, Unit, UnitSource

FACTS = RequestFacts("r", "mine", 10**18, 5, Outcome.CANCELLED, "chat", "vllm", True, tenant="t", output_tokens=3,
                     output_source=TokenSource.FRAMES, unit=Unit.VIDEO_SECOND, units=1.5, units_source=UnitSource.ANSWERED)
ASKED = Asked(model="m", streamed=True, decodes=False, work_tokens=9, makes=Product(Unit.IMAGE, 2, UnitSource.ASKED, width=64))
CHARGE = Charge(Status.MEASURED, "step-model", "nvml", True, "gpu-board", ("GPU-a", "GPU-b"), 5, None, windows=2, concurrency_mean=1.5)
SAID = [batch([message(Kind.BEGUN, 1, 2**62, None, ASKED, FACTS)]), frames(array("q", [1, 2**62, 1, 7, -5, 40])),
        batch([message(Kind.TOLD, "r", CHARGE), message(Kind.FAILED)]),
        batch([message(Kind.ADMITTED, 3, Refusal(429, "k", "wait", (("Retry-After", "5"),)))])]
SEEN = Seen(State.FAILED, "out of memory", 10**18, (10**18, 10**18 + 5), Usage(3, 4, queue_ns=5))


@given(st.lists(st.integers(1, 60), max_size=60))
def test_messages_are_the_same_however_they_were_cut(sizes):
    """Whole, byte by byte, with the next one's beginning: kinds, order and contents stay."""
    stream, messages, at, heard = b"".join(SAID), Messages(), 0, []
    for size in [*sizes, len(stream)]:
        heard += messages.feed(stream[at:at + size])
        at += size
    assert [kind for kind, _ in heard] == [Kind.BEGUN, Kind.FRAMES, Kind.TOLD, Kind.FAILED, Kind.ADMITTED]
    assert list(heard[1][1][0]) == [1, 2**62, 1, 7, -5, 40]


def heard_of(*said):
    """What is heard of one message."""
    ((_, heard),) = Messages().feed(batch([message(Kind.SAW, *said)]))
    return heard


def test_what_is_read_is_what_was_meant():
    """Enumerations, tuples and nulls come back as themselves."""
    (number, t_ns, rank, asked, facts), _, (_, told), _, (_, admitted) = (said for _, said in Messages().feed(b"".join(SAID)))
    read, made, charge = facts_of(facts), asked_of(asked), charge_of(told)
    assert (number, t_ns, rank, made, read, charge) == (1, 2**62, None, ASKED, FACTS, CHARGE)
    assert [type(read.outcome), type(read.output_source), type(read.unit), type(read.units_source)] == [
        Outcome, TokenSource, Unit, UnitSource]
    assert read.input_source is None
    assert isinstance(made.makes.unit, Unit)
    assert (type(charge.status), charge.devices) == (Status, ("GPU-a", "GPU-b"))
    assert refusal_of(admitted) == Refusal(429, "k", "wait", (("Retry-After", "5"),))


def test_what_is_written_out_has_every_field_in_its_place():
    """Of facts and charges: the values in the order of the fields, each of another one."""
    facts, charge = (of(*range(len(fields(of)))) for of in (RequestFacts, Charge))
    ((_, (said, charged)),) = Messages().feed(batch([message(Kind.SAW, facts, charge)]))
    assert said == list(range(len(fields(RequestFacts))))
    assert charged == list(range(len(fields(Charge))))


def test_what_is_said_of_jobs_is_what_is_heard():
    """Each with everything in it, and with nothing that may be left out."""
    opened, look = Opened(JobKind.VIDEOS, "v", "/api", (("authorization", "Bearer k"),)), Look(JobKind.COMFYUI, "c", Verb.DELETE)
    view = View("r", "t", 5, (replace(CHARGE), 7), ASKED.makes)
    heard = heard_of(opened, look, SEEN, Seen(State.GONE), view, View("r", None, 5))
    assert opened_of(heard[0]) == opened
    assert look_of(heard[1]) == look
    assert [seen_of(each) for each in heard[2:4]] == [SEEN, Seen(State.GONE)]
    assert [view_of(each) for each in heard[4:]] == [view, View("r", None, 5)]


def test_what_cannot_be_said_spoils_nothing_that_can():
    """A text that is no text raises where it is said, before it is beside others."""
    with pytest.raises(TypeError):
        message(Kind.ENDED, 1, 5, replace(FACTS, model="\ud800"))
