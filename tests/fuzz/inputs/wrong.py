"""Ways in which text that an engine might send goes wrong: each takes bytes and a whole number that says where, and answers bytes."""

import re
from collections.abc import Callable

NUMBERS = (b"1e400", b"-1e400", b"-0", b"-0.0", b"1.5", b"6.0", b"-7", b"NaN", b"Infinity", b"99999999999999999999", b"1" + b"0" * 320,
           b"1099511627776", b"1099511627777", b"18446744073709551616", b"true", b"null", b'"6"', b"[6]", b"{}", b"01")
MEMBERS = (
    b'"usage":{"prompt_tokens":3,"completion_tokens":9},', b'"usage":null,', b'"usage" :\n{},', b'"u\\u0073age":{"prompt_tokens":4},',
    b'"usage":{"usage":{"prompt_tokens":1}},', b'"choices":[],', b'"choices": [ ],', b'"choices":[{"index":1,"text":"x"}],',
    b'"finish_reason":"stop",', b'"finish_reason":null,', b'"finish_reason": null,', b'"error":{"type":"Boom","code":7},',
    b'"error":"x",', b'"type":"error",', b'"type":"message_delta",', b'"type":"message_start",', b'"type":"response.completed",',
    b'"type":7,', b'"type":[],', b'"object":{},', b'"generated_text":null,', b'"generated_text":"x",', b'"token":{"id":1},',
    b'"text":"x",', b'"index":-1,', b'"index":1,', b'"index":true,',
    b'"meta_info":{"completion_tokens":4,"finish_reason":{"type":"stop"}},', b'"details":{"generated_tokens":5},', b'"delta":[],',
    b'"response":{"id":"r","status":"failed","object":"response"},', b'"message":{"model":"m"},', b'"metrics":{"queue_time_ms":1.5},',
    b'"prompt_tokens_details":{"cached_tokens":2},', b'"input_tokens":5,', b'"cache_read_input_tokens":3,', b'"cached_tokens":1,',
    b'"system_fingerprint":"f\\n\\"x",', b'"id":"' + b"i" * 300 + b'",', b'"model":"' + "é".encode() * 300 + b'",', b'"x":"\\ud800",')
TEXTS = (
    b"data: [DONE]", b"\\n\\ndata: [DONE]\\n\\n", b'\\"usage\\":{\\"prompt_tokens\\":99}', b'\\"finish_reason\\":null', b'"usage":{',
    b"}", b"\\", b"\xe2\x80\xa8", b"\xc3", b"\xff", b"\x00", b"\xef\xbb\xbf", b"\\ud83d\\ude00", b"\\u0000", b"a" * 3000)
EVENTS = (
    b"data: [DONE]\n\n", b"data:[DONE]\n\n", b"data: [DONE]", b": keep-alive\n\n", b': "finish_reason":null\n\n', b"\n", b"\n\n", b"\r",
    b"event: x\n", b"id: 1\nretry: 5\n\n", b"data\n\n", b"data:\n\n", b"data: [\n\n", b"data: [{}]\n\n", b"data: null\n\n",
    b"data: 5\n\n", b"\xef\xbb\xbf", b"data: {}\n\n", b'data: {"type":["message_delta"],"response":[],"choices":{}}\n\n',
    b"data: " + b"[" * 2000 + b"]" * 2000 + b"\n\n", b"data: " + b'{"a":' * 200 + b"1" + b"}" * 200 + b"\n\n", b"x" * 5000,
    b'data: {"choices":[],\ndata: "usage":{"prompt_tokens":1}}\n\n', b"event: error\ndata: {\"message\":\"m\"}\n\n",
    b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2},"system_fingerprint":"f"}\n\n',
    b'data: {"choices":[{"index":0,"text":"x","finish_reason":"stop"}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}],"usage":{"completion_tokens":3}}\n\n',
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":7}}\n\n')
LINE_ENDS = (b"\n", b"\r\n", b"\r")

_NUMBER = re.compile(rb"(?<=:)-?\d+")
_BRACE = re.compile(rb"\{(?=\")")
_END = re.compile(rb"[\"\w\]}](?=\})")
_TEXT = re.compile(rb'(?<=:")[^"\\]')
_NAME = re.compile(rb'"(\w+)":(\[\]|\{|"\w+"|null)')
_EVENT_END = re.compile(rb"\n\n")


def _at_one_of(form: re.Pattern[bytes], data: bytes, where: int) -> re.Match[bytes] | None:
    places = list(form.finditer(data))
    return places[where % len(places)] if places else None


def _one(choices: tuple[bytes, ...], where: int) -> bytes:
    return choices[where // 7 % len(choices)]  # not in step with the place


def other_number(data: bytes, where: int) -> bytes:
    """A count becomes something else."""
    place = _at_one_of(_NUMBER, data, where)
    return data if place is None else data[:place.start()] + _one(NUMBERS, where) + data[place.end():]


def other_member(data: bytes, where: int) -> bytes:
    """An object gets one more member, perhaps of a name that it has already: as its first, or as its last, which wins."""
    place = _at_one_of(_BRACE if where % 2 else _END, data, where)
    if place is None:
        return data
    member = _one(MEMBERS, where) if where % 2 else b"," + _one(MEMBERS, where)[:-1]
    return data[:place.end()] + member + data[place.end():]


def other_text(data: bytes, where: int) -> bytes:
    """A text gets something into it that looks like the protocol, or is no text."""
    place = _at_one_of(_TEXT, data, where)
    return data if place is None else data[:place.start()] + _one(TEXTS, where) + data[place.start():]


def other_event(data: bytes, where: int) -> bytes:
    """An event comes that was not expected there."""
    place = _at_one_of(_EVENT_END, data, where)
    at = len(data) if place is None else place.end()
    return data[:at] + _one(EVENTS, where) + data[at:]


def dropped(data: bytes, where: int) -> bytes:
    """An event does not come."""
    events = _EVENT_END.split(data)
    del events[where % len(events)]
    return b"\n\n".join(events)


def doubled(data: bytes, where: int) -> bytes:
    """An event comes twice."""
    events = _EVENT_END.split(data)
    return b"\n\n".join([*events[:where % len(events) + 1], *events[where % len(events):]])


def swapped(data: bytes, where: int) -> bytes:
    """An event comes too early."""
    events = _EVENT_END.split(data)
    events.insert(where // 7 % len(events), events.pop(where % len(events)))
    return b"\n\n".join(events)


def other_line_ends(data: bytes, where: int) -> bytes:
    """Lines end in another way; or each as it likes."""
    ends = [_one(LINE_ENDS, where)] if where % 2 else [*LINE_ENDS, LINE_ENDS[where % 3]]
    lines = data.split(b"\n")
    return lines[0] + b"".join(ends[i % len(ends)] + line for i, line in enumerate(lines[1:]))


def other_spelling(data: bytes, where: int) -> bytes:
    """The same JSON in other bytes: with white space, or a letter of a name as an escape."""
    place = _at_one_of(_NAME, data, where)
    if place is None:
        return data
    name, value = place.groups()
    escaped = b"\\u%04x" % name[0] + name[1:]
    spelled = (b'"%b" :%b', b'"%b":\t %b', b'"%b": %b', b'"%b"\r\ndata: :%b')[where // 7 % 4] % (escaped if where % 3 == 0 else name, value)
    return data[:place.start()] + spelled.replace(b"[]", b"[ ]" if where % 2 else b"[]") + data[place.end():]


def flipped(data: bytes, where: int) -> bytes:
    """A bit of a byte is wrong."""
    at = where // 8 % len(data) if data else 0
    return data[:at] + bytes([byte ^ 1 << where % 8 for byte in data[at:at + 1]]) + data[at + 1:]


def ended(data: bytes, where: int) -> bytes:
    """Nothing more comes."""
    return data[:where % (len(data) + 1)]


Way = Callable[[bytes, int], bytes]
WAYS: tuple[Way, ...] = (
    other_number, other_member, other_text, other_event, dropped, doubled, swapped, other_line_ends, other_spelling, flipped, ended)
OF_EVENTS = (dropped, doubled)  # an engine's role frame comes first
