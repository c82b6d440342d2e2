"""Multipart bodies: what any client writes is read, files are found and not copied, and nothing hostile hurts."""

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st
from urllib3.filepost import encode_multipart_formdata

from perjoule.sidecar.dialects.forms import read_form


def form(*parts, boundary="b0undary"):
    """A body as urllib3 encodes it: pairs of a name and a text, or of a name and (file name, bytes)."""
    return encode_multipart_formdata(parts, boundary)[0]


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30)
names = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters='"\\%'), min_size=1, max_size=20)
fields = st.lists(st.tuples(names, texts | st.tuples(st.just("a.png"), st.binary(max_size=200))), min_size=1, max_size=8)


@given(fields)
def test_what_a_client_encodes_is_read(parts):
    """Texts by name, the first of each; of files, where the first one lies."""
    body = form(*parts)
    read = read_form(body)
    expected = {}
    for name, value in parts:
        if isinstance(value, str):
            expected.setdefault(name, value)
    assert read.fields == expected
    files = [value[1] for _, value in parts if isinstance(value, tuple)]
    if files:
        begin, until = read.file
        assert body[begin:until] == files[0]
    else:
        assert read.file is None


@given(fields, st.integers(0, 500))
def test_a_body_that_is_cut_is_read_as_far_as_it_goes(parts, at):
    """No field is ever made up of half a value."""
    body = form(*parts)
    read = read_form(body[:at])
    assert read is None or all((name, value) in parts for name, value in read.fields.items())


@given(st.lists(st.sampled_from([b"--b", b"\r\n", b"\r\n\r\n", b"--", b'Content-Disposition: form-data; name="a"', b"; filename=", b"x"]))
       .map(b"".join))
def test_garbage_does_not_raise(data):
    """Whatever stands there."""
    read_form(data)
    read_form(b"--b\r\n" + data)


def test_json_is_no_form():
    """Nor is nothing."""
    assert read_form(b'{"a":1}') is read_form(b"") is read_form(b"--") is None


def test_a_large_file_is_neither_copied_nor_scanned_twice():
    """Twenty megabytes full of beginnings of a delimiter, with a field behind them."""
    body = form(("image", ("a.png", b"\r\n--b0undar" * 2_000_000)), ("size", "64x64"))
    tracemalloc.start()
    read = read_form(body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert read.fields == {"size": "64x64"}
    assert peak < 100_000


def test_behind_a_very_large_file_nothing_is_read():
    """What stands before it is."""
    body = form(("n", "2"), ("image", ("a.png", bytes(40 << 20))), ("size", "64x64"))
    read = read_form(body)
    assert read.fields == {"n": "2"}
    assert read.file == (body.index(bytes(100)), len(body))


def test_parts_without_end_are_not_all_read():
    """A million empty parts are somebody's attack."""
    read = read_form(b"--b" + b'\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--b' * 1_000_000)
    assert read.fields == {"a": "1"}
