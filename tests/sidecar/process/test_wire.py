"""The wire between a worker and the meter: what is said is what is heard, however the bytes were cut."""

from array import array

from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.access.doors import Refusal
from perjoule.sidecar.dialects.requests import Asked
from perjoule.sidecar.dialects.works import Product
from perjoule.sidecar.process.wire import Kind, Messages, asked_of, charge_of, facts_of, frames, message, refusal_of
from perjoule.sidecar.record import Charge, Outcome, RequestFacts, Status, TokenSource, Unit, UnitSource

FACTS = RequestFacts("r", "mine", 10**18, 5, Outcome.CANCELLED, "chat", "vllm", True, tenant="t", output_tokens=3,
                     output_source=TokenSource.FRAMES, unit=Unit.VIDEO_SECOND, units=1.5, units_source=UnitSource.ANSWERED)
ASKED = Asked(model="m", streamed=True, decodes=False, work_tokens=9, makes=Product(Unit.IMAGE, 2, UnitSource.ASKED, width=64))
CHARGE = Charge(Status.MEASURED, "step-model", "nvml", True, "gpu-board", ("GPU-a", "GPU-b"), 5, None, windows=2, concurrency_mean=1.5)
SAID = [message(Kind.BEGUN, 1, 2**62, None, ASKED, FACTS), frames(array("q", [1, 2**62, 1, 7, -5, 40])),
        message(Kind.TOLD, "r", CHARGE), message(Kind.FAILED),
        message(Kind.ADMITTED, 3, Refusal(429, "k", "wait", (("Retry-After", "5"),)))]


@given(st.lists(st.integers(1, 60), max_size=60))
def test_messages_are_the_same_however_they_were_cut(sizes):
    """Whole, byte by byte, with the next one's beginning: kinds, order and contents stay."""
    stream, messages, at, heard = b"".join(SAID), Messages(), 0, []
    for size in [*sizes, len(stream)]:
        heard += messages.feed(stream[at:at + size])
        at += size
    assert [kind for kind, _ in heard] == [Kind.BEGUN, Kind.FRAMES, Kind.TOLD, Kind.FAILED, Kind.ADMITTED]
    assert list(heard[1][1]) == [1, 2**62, 1, 7, -5, 40]


def test_what_is_read_is_what_was_meant():
    """Enumerations, tuples and nulls come back as themselves."""
    (_, begun), _, (_, told), _, (_, admitted) = Messages().feed(b"".join(SAID))
    assert (begun[:3], asked_of(begun[3]), facts_of(begun[4])) == ([1, 2**62, None], ASKED, FACTS)
    assert (facts_of(begun[4]).outcome, charge_of(told[1])) == (Outcome.CANCELLED, CHARGE)
    assert isinstance(asked_of(begun[3]).makes.unit, Unit)
    assert isinstance(facts_of(begun[4]).units_source, UnitSource)
    assert charge_of(told[1]).devices == ("GPU-a", "GPU-b")
    assert refusal_of(admitted[1]) == Refusal(429, "k", "wait", (("Retry-After", "5"),))
