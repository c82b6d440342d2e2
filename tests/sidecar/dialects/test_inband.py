"""The bytes that are added and hidden: exact on streams recorded from vLLM 0.32 with and without usage."""

import json
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.dialects.inband import (
    StreamEditor,
    comment_bytes,
    energy_headers,
    energy_object,
    with_energy_in_usage,
)
from perjoule.sidecar.record import CHARGES, Charge, Status

STREAMS = Path(__file__).parents[2] / "streams"
RECORDED = {path.stem: path.read_bytes() for path in sorted(STREAMS.glob("*.sse"))}
PAIRS = ["chat", "chat-one-token", "chat-logprobs", "chat-stop", "completions", "completions-echo"]
DONE = b"data: [DONE]\n\n"
COMMENT = b': energy {"energy_joules":1.5}\n\n'
ENERGY = {"energy_joules": 1.5, "gpus": ["GPU-a"]}
SPLICED = b'"energy":{"energy_joules":1.5,"gpus":["GPU-a"]},'


def editor(*, hide=False, comment=False, energy=False):
    return StreamEditor(hide_usage=hide, comment=(lambda: COMMENT) if comment else None,
                        usage_energy=(lambda: ENERGY) if energy else None)


def edit(editing, data, sizes=()):
    """What the client gets of `data` fed in pieces of these sizes and then the rest, to its clean end."""
    got, at = b"", 0
    for size in sizes:
        got += editing.feed(data[at:at + size])
        at += size
    return got + editing.feed(data[at:]) + editing.finish()


def with_comment(stream):
    """Where the comment belongs in a recorded stream."""
    return stream.replace(DONE, COMMENT + DONE) if DONE in stream else stream + COMMENT


@pytest.mark.parametrize("name", PAIRS)
def test_a_stream_asked_for_usage_becomes_the_stream_of_one_who_did_not_ask(name):
    """vLLM's own answer without include_usage, to the last byte: no usage frame, the fingerprint where it was."""
    asked, plain = RECORDED[f"{name}-usage"], RECORDED[f"{name}-plain"]
    assert asked != plain
    for sizes in ((), [1] * len(asked), [len(event) + 2 for event in asked.split(b"\n\n")]):
        assert edit(editor(hide=True), asked, sizes) == plain
        assert edit(editor(hide=True, comment=True), asked, sizes) == with_comment(plain)


@given(st.sampled_from(PAIRS), st.lists(st.integers(1, 400)))
def test_hiding_is_exact_under_any_chunking(name, sizes):
    """How the network cuts a stream does not show in what the client gets."""
    assert edit(editor(hide=True), RECORDED[f"{name}-usage"], sizes) == RECORDED[f"{name}-plain"]


@pytest.mark.parametrize("name", [name for name in RECORDED if not name.endswith("-usage")])
def test_hiding_changes_nothing_where_there_is_nothing_to_hide(name):
    """Plain streams, errors, other dialects, and engines that show usage in every frame pass as they are."""
    assert edit(editor(hide=True), RECORDED[name], [50] * 20) == RECORDED[name]


@pytest.mark.parametrize("name", RECORDED)
def test_the_comment_is_all_that_is_added(name):
    """One comment before [DONE], or at the end of dialects without it, and every other byte as it was."""
    for sizes in ((), [1] * len(RECORDED[name])):
        assert edit(editor(comment=True), RECORDED[name], sizes) == with_comment(RECORDED[name])


@given(st.lists(st.sampled_from([b"data: [DONE]", b"data:[DONE]", b"data: x", b"data: [DO", b"\n\n", b"\n", b"\r\n\r\n",
                                 b"\r", b": c"])).map(b"".join), st.lists(st.integers(0, 20)), st.booleans())
def test_chunking_is_invisible_in_any_stream(stream, sizes, hide):
    """Whatever the bytes and the cuts: the same result, which is the stream and at most one comment."""
    whole = edit(editor(comment=True, hide=hide), stream)
    assert edit(editor(comment=True, hide=hide), stream, sizes) == whole
    assert whole in (stream, whole[:(at := whole.find(COMMENT))] + COMMENT + stream[at:])
    assert edit(editor(hide=hide), stream, sizes) == stream


@pytest.mark.parametrize(("stream", "expected"), [
    (b"data: [DONE]\n\n", COMMENT + b"data: [DONE]\n\n"),
    (b"data:[DONE]", COMMENT + b"data:[DONE]"),
    (b"data: x\r\n\r\ndata: [DONE]\r\n\r\n", b"data: x\r\n\r\n" + COMMENT + b"data: [DONE]\r\n\r\n"),
    (b"data: a\n\n", b"data: a\n\n" + COMMENT),
    (b"", b""),
    (b"data: a", b"data: a"),
    (b"data: a\n", b"data: a\n"),
    (b"data: a\n\ndata: [DO", b"data: a\n\ndata: [DO"),
    (b'data: "data: [DONE]"\n\n', b'data: "data: [DONE]"\n\n' + COMMENT),
    (b"id: 1\ndata: [DONE]\n\n", b"id: 1\ndata: [DONE]\n\n" + COMMENT),
    (b"data: [DONE]\n\ndata: [DONE]\n\n", COMMENT + b"data: [DONE]\n\ndata: [DONE]\n\n"),
])
def test_the_comment_stands_between_events_only(stream, expected):
    """Before the event [DONE], never inside an event, never in a stream that said nothing."""
    assert edit(editor(comment=True), stream) == expected
    assert edit(editor(comment=True), stream, [1] * len(stream)) == expected


@given(st.sampled_from(sorted(RECORDED)), st.lists(st.integers(1, 40), max_size=300))
def test_what_may_tell_is_known_before_the_charge_is_needed(name, sizes):
    """However a stream is cut: no charge goes into a piece that did not say so, or into one before the last words."""
    stream, told, early = RECORDED[name], False, []
    editing = StreamEditor(hide_usage=False, comment=lambda: early.append(told) or COMMENT, usage_energy=lambda: early.append(told) or {})
    at = 0
    for size in [*sizes, len(stream)]:
        told = editing.may_tell(stream[at:at + size]) or told
        editing.feed(stream[at:at + size])
        at += size
    assert all(early)
    assert not editor(comment=True).may_tell(stream[:len(stream) // 2])


def test_with_nothing_to_do_a_piece_passes_as_the_object_it_is():
    """No copy, whatever the cut; and the ordinary frame is not copied by the editors either."""
    piece = b'data: {"choices":[{"delta":{"content":"x"},"finish_reason":null}]}\n\n'
    assert editor().feed(piece[:9]) == piece[:9]
    for editing in (editor(), editor(comment=True), editor(hide=True), editor(hide=True, comment=True, energy=True)):
        assert editing.feed(piece) is piece


def test_only_what_may_become_done_is_held_back():
    """A comment to insert delays nothing but the beginning of `data: [DONE]`."""
    editing = editor(comment=True)
    pieces = (b"data: hel", b"lo\n", b"\n", b"data: [DO", b"x\n\n", b"data", b": y\n\n")
    assert [editing.feed(piece) for piece in pieces] == [
        b"data: hel", b"lo\n", b"\n", b"", b"data: [DOx\n\n", b"", b"data: y\n\n"]


@pytest.mark.parametrize("name", ["chat-usage", "engine-killed"])
@pytest.mark.parametrize("editing", [{"hide": True}, {"comment": True}, {"hide": True, "comment": True}])
def test_a_broken_stream_gives_back_what_was_held_and_adds_nothing(name, editing):
    """However far it came: what passed and what was held are the upstream's bytes."""
    data = RECORDED[name]
    data = data[:data.rindex(b"[DONE]")]
    for end in range(len(data) - 40, len(data)):
        if editing.get("hide") and b'"choices":[]' in data[:end]:
            continue  # part of what is to be hidden has come: see the next test
        broken = editor(**editing)
        assert broken.feed(data[:end]) + broken.abandon() == data[:end]


def test_a_stream_that_breaks_after_the_usage_frame_has_it_hidden():
    """The edit was made when its place came; what breaks later does not undo it."""
    asked, plain = RECORDED["chat-usage"], RECORDED["chat-plain"]
    broken = editor(hide=True, comment=True)
    assert broken.feed(asked.removesuffix(b" [DONE]\n\n")) + broken.abandon() == plain.removesuffix(b" [DONE]\n\n")


def finish(fingerprint=b""):
    return b'data: {"choices":[{"finish_reason":"stop"}]' + fingerprint + b"}\n\n"


def test_beyond_an_endless_event_nothing_is_edited():
    """Where an event is too long to be held, the rest passes as it comes, whatever the pieces."""
    rest = b"data: " + b"x" * (1 << 20) + b"\n\n" + finish() + USAGE_FRAME + DONE
    for size in (1 << 16, 100_000, 1 << 20, 1 << 21):
        sizes = [size] * (len(rest) // size)
        assert edit(editor(hide=True, energy=True), finish() + USAGE_FRAME + rest, sizes) == RESTORED + rest


USAGE_FRAME = b'data: {"choices":[],"usage":{"prompt_tokens":1},"system_fingerprint":"f"}\n\n'
RESTORED = finish(b',"system_fingerprint":"f"')
ERROR = b'data: {"error":{"type":"x"}}\n\n'


@pytest.mark.parametrize(("stream", "expected"), [
    (finish() + b": keep-alive\n\n" + USAGE_FRAME, finish(b',"system_fingerprint":"f"') + b": keep-alive\n\n"),
    (finish() + ERROR + USAGE_FRAME, finish() + ERROR),
    (finish() + ERROR, finish() + ERROR),
    (finish(), finish()),
    (finish(b',"system_fingerprint":"mine"') + USAGE_FRAME, finish(b',"system_fingerprint":"mine"')),
    (finish(b',"usage":{"prompt_tokens":1}') + USAGE_FRAME, finish(b',"usage":{"prompt_tokens":1}') + USAGE_FRAME),
    (finish() + USAGE_FRAME.replace(b',"system_fingerprint":"f"', b""), finish()),
    (USAGE_FRAME + DONE, DONE),
    (finish().rstrip(b"\n"), finish().rstrip(b"\n")),
])
def test_the_finish_frame_waits_for_what_follows_it(stream, expected):
    """Restored by the usage frame, released as it was by anything else; usage shown unasked is not ours to hide."""
    assert edit(editor(hide=True), stream) == expected
    assert edit(editor(hide=True), stream, [1] * len(stream)) == expected


@pytest.mark.parametrize("name", ["chat-usage", "chat-continuous", "completions-usage", "chat-two-choices-usage",
                                  "responses-plain", "messages-plain"])
def test_energy_goes_into_the_last_usage_object(name):
    """A client that asked for it finds it in the final usage of its dialect; every other byte is as it was."""
    got = edit(editor(energy=True), RECORDED[name], [33] * 10)
    assert got.count(SPLICED) == 1
    assert got.replace(SPLICED, b"") == RECORDED[name]
    payload = json.loads(got[got.rindex(b"data: {", 0, got.index(SPLICED)) + 6:].partition(b"\n")[0])
    assert (payload.get("response") or payload)["usage"]["energy"] == ENERGY


@pytest.mark.parametrize("name", ["chat-body", "completions-body", "responses-body", "messages-body"])
def test_energy_goes_into_the_usage_of_a_body(name):
    """Read back, the body is the recorded one with the energy in its usage."""
    body = (STREAMS / f"{name}.json").read_bytes()
    got = with_energy_in_usage(body, ENERGY)
    assert got.replace(SPLICED, b"") == body
    assert json.loads(got)["usage"]["energy"] == ENERGY


@pytest.mark.parametrize(("body", "expected"), [
    (b'{"usage": {}}', b'{"usage": {"energy":{"energy_joules":1.5,"gpus":["GPU-a"]}}}'),
    (b'{"usage":null}', None), (b"{}", None), (b"[]", None), (b"", None), (b"not JSON", None), (b'{"usage":5}', None),
    (b'{"usage":{"a":1},"x":{"usage":{"b":1}}}', None),  # the last usage object is not the answer's
    (b'{"usage":{"energy":{"theirs":1}}}', None),
    (b'{"text":"\\"usage\\":{"}', None),
])
def test_a_body_whose_usage_cannot_be_told_for_sure_stays_as_it_is(body, expected):
    """The result is read back before it is used."""
    assert with_energy_in_usage(body, ENERGY) == (expected or body)


CHARGE = Charge(Status.MEASURED, "token-share", "nvml", settled=True, boundary="gpu-board", devices=("GPU-a",),
                energy_uj=7_200_000, active_uj=3_600_000, prefill_uj=1_200_000, decode_uj=6_000_000,
                uncertainty_uj=90_000)


def charge(**changes):
    return Charge(**{name: changes.get(name, getattr(CHARGE, name)) for name in CHARGES})


def fields_of(lines):
    """The fields that these lines of a head say, each with the end of the line before it."""
    first, *others = b"".join(lines).split(b"\r\n")
    assert first == b""
    return dict(line.split(b": ", 1) for line in others)


def test_the_energy_object_is_a_superset_of_neuralwatt_s():
    """Joules, kWh, watts and seconds under the names that clients already read, and ours beside them."""
    assert energy_object(CHARGE, 2_000_000_000, "/energy/abc") == {
        "energy_joules": 7.2, "energy_kwh": 7.2 / 3.6e6, "avg_power_watts": 3.6, "duration_seconds": 2.0,
        "attribution_method": "token-share", "active_joules": 3.6, "prefill_joules": 1.2, "decode_joules": 6.0,
        "uncertainty_joules": 0.09, "status": "measured", "settled": True, "boundary": "gpu-board", "source": "nvml",
        "gpus": ["GPU-a"], "record": "/energy/abc"}


@pytest.mark.parametrize(("status", "settled", "said"), [
    (Status.MEASURED, True, "measured"), (Status.MEASURED, False, "provisional"), (Status.MIXED, True, "mixed"),
    (Status.MIXED, False, "provisional"), (Status.SIMULATED, False, "simulated"), (Status.SIMULATED, True, "simulated"),
    (Status.ESTIMATED, False, "estimated"), (Status.PROVISIONAL, False, "provisional"),
])
def test_a_joule_says_what_it_is_everywhere(status, settled, said):
    """Provisional until settled; simulated and estimated always, in the object and in the headers."""
    told = charge(status=status, settled=settled)
    assert (energy_object(told, 1, "/r")["status"], energy_object(told, 1, "/r")["settled"]) == (said, settled)
    assert fields_of(energy_headers(told, "/r"))[b"X-Energy-Status"] == said.encode()


def test_without_a_source_no_number_is_said():
    """Unavailable: no joule, not even null or 0, anywhere."""
    none = Charge(Status.UNAVAILABLE, "token-share", "none", settled=True)
    assert energy_object(none, 5, "/energy/a") == {
        "status": "unavailable", "attribution_method": "token-share", "source": "none", "record": "/energy/a"}
    assert fields_of(energy_headers(none, "/energy/a")) == {b"X-Energy-Status": b"unavailable", b"X-Energy-Record": b"/energy/a"}


def test_what_is_unknown_is_null_and_has_no_header():
    """Until an idle spell was seen there is no active energy, and a request of no duration has no power."""
    told = charge(active_uj=None, uncertainty_uj=None, boundary="")
    said = energy_object(told, 0, "/r")
    assert [said[name] for name in ("active_joules", "uncertainty_joules", "avg_power_watts", "boundary")] == [None] * 4
    assert fields_of(energy_headers(told, "/r")).keys() == {
        b"X-Energy-Status", b"X-Energy-Record", b"X-Energy-Method", b"X-Energy-Joules"}


@given(st.integers(0, 10**13))
def test_headers_keep_every_microjoule(energy_uj):
    """Six decimals say a whole number of microjoules exactly."""
    value = fields_of(energy_headers(charge(energy_uj=energy_uj), "/r"))[b"X-Energy-Joules"]
    assert int(value.replace(b".", b"")) == energy_uj
    assert value == b"%.6f" % (energy_uj / 1_000_000)


def test_the_comment_is_one_line_that_clients_skip():
    """`: energy {json}` and a blank line, no line end inside."""
    told = comment_bytes(energy_object(charge(source="a\nb"), 1, "/r"))
    assert told.startswith(b": energy {")
    assert told.index(b"\n") == len(told) - 2
    assert orjson.loads(told[9:])["source"] == "a\nb"
