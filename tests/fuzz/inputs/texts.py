"""What people write into settings and headers, right and wrong, and what nobody should."""

from dataclasses import fields

from hypothesis import strategies as st

from perjoule.sidecar.settings.config import Config
from tests.fuzz.inputs.wrong import NUMBERS, TEXTS


def made_of(*parts: str) -> st.SearchStrategy[str]:
    """Any row of these parts, with something else among them."""
    return st.lists(st.sampled_from(parts) | st.text(max_size=3), max_size=12).map("".join)


traceparents = st.builds(lambda parts, glue: glue.join(parts), st.tuples(
    st.sampled_from([
    "00", "00", "00", "01", "ff", "0", "0A"]), st.sampled_from(["0af7651916cd43dd8448eb211c80319c", "0" * 32, "A" * 32, "0" * 31]),
    st.sampled_from(["b7ad6b7169203331", "0" * 16, "b7ad6b716920333", "b7ad6b7169203331 "]), st.sampled_from([
    "01", "00", "ff", "0g", "1", "01-", "01-x", "01\n"])),
    st.sampled_from([
    "-", "-", "-", "-", "--", "_"])).map(str.encode) | st.binary(max_size=60) | made_of("00", "-", "0af7651916cd43dd", "01").map(str.encode)
pools = made_of("all", "GPU-1", "GPU-2", "GPU-3", ",", ",", ";", ";", "=", "=", "0", "1", "01", "prefill", "decode", " ")
addresses = made_of(
    "127.0.0.1", "[::1]", "[::]", "localhost", "[", "]", ":", ":", "9000", "0", "65536", "9" * 5000, "unix:", "//", "/", "/tmp/x", "@",
    "%25eth0", "a.b", ".", "-1", "x" * 110, "\0", "?", "#", " ")
origins = st.builds("{}{}".format, st.sampled_from(["http://", "https://", "unix:", "HTTP://", "ftp://", "//", ""]), addresses)
targets = made_of(
    "/", "/", "v1", "chat", "completions", "%2f", "%2e", "..", ".", ";", "?", "#", "//", "http://h", "\\", "%25", "%", "metrics",
    "\udc80", " ", "%c3%a9")

_names = st.sampled_from([field.name for field in fields(Config)] + ["config", "x", '"a b"'])
_values = st.sampled_from([
    "true", "1", "0", "-1", "1.5", "nan", "inf", "1e400", "9" * 400, "9" * 5000, "[" * 2000, "{}", "[]", "1979-05-27", '"text"',
    '"auto"', '"\\u0000"', "'''a'''", '"unix:/x"', '"http://127.0.0.1:8000"', '"https://h"', '"0=a;1=b"', '"660"', '"/metrics"', "0x10",
    "1_000", "", "=", *(number.decode() for number in NUMBERS)]) | st.text(max_size=8)
_lines = st.builds("{} = {}\n".format, _names, _values)
_tables = st.lists(_lines | st.just('upstream = "http://127.0.0.1:8000"\n'), max_size=5).map("".join)
toml = _tables.map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=60)
_variables = _names.filter(lambda name: name != "config").map(lambda name: "PERJOULE_" + name.upper())
environments = st.dictionaries(_variables, _values.map(lambda text: text.strip('"')), max_size=4)
_keys = st.sampled_from([
    "[[key]]\n", "[key]\n", 'name = "a"\n', 'name = "b"\n', f'sha256 = "{"0" * 64}"\n', f'sha256 = "{"1" * 64}"\n',
    f'sha256 = ["{"2" * 64}"]\n', "sha256 = []\n", "requests = 5\n", "tokens = 0\n", "interval_s = 60\n", "joules = nan\n",
    "joules = 1e400\n", "x = " + "[" * 2000, "x = 1\n", f"requests = {'9' * 5000}\n"])
_any_key = st.builds("{} = {}\n".format, st.sampled_from(["name", "sha256", "joules", "interval_s"]), _values)
keys = st.lists(_keys | _any_key, max_size=9).map("".join)

_json_members = st.sampled_from([
    '"stream_options":{}', '"stream_options":null', '"stream_options":{"include_usage":false}',
    '"stream_options":{"include_usage":true}', '"stream_options" :\t{ "a" : 1 , "include_usage" : null }',
    '"stream_options":{"include_usage":0}', '"stream_options":[]', '"stream_options":{"a":"}"}', '"stream_options":{"a":{"b":1}}',
    '"stream_\\u006fptions":{}', '"stream_options":{"continuous_usage_stats":true}',
    '"stream_options":{"include_usage":false,"include_usage":null}', '"a":{"stream_options":{}}', '"stream":true', '"stream":false',
    '"stream":1', '"model":"m"', '"model":7', '"model":"' + "é" * 257 + '"', '"n":2', '"n":true', '"n":1e400', '"prompt":["a","b"]',
    '"prompt":[[1,2],[3]]', '"prompt":[1,2]', '"messages":[{"role":"user","content":"\\"stream_options\\":{}"}]', '"max_tokens":5',
    '"input":"x"', '"messages":[{"content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}]',
    '"stream;base64,":true', '"x":"\\ud800"', '"x":NaN', '"x":' + "[" * 1100 + "]" * 1100, '"x":123456789012345678901234567890',
    '"\xe9":"' + TEXTS[3].decode() + '"'])
_between = st.sampled_from([",", ",", ",", ", ", ",\n", "\r\n,\t", "", ",,"])


@st.composite
def request_bodies(draw: st.DrawFn) -> bytes:
    """A JSON object of members that matter, in any order and number; now and then it is none."""
    members = draw(st.lists(_json_members, max_size=6))
    text = "".join(member + draw(_between) * (place < len(members) - 1) for place, member in enumerate(members))
    body = draw(st.sampled_from(["{%s}", "{%s}", "{%s}", " {\n%s\n} ", "[{%s}]", "{%s", "\ufeff{%s}", "{%s}{}"])) % text
    return body.encode("utf-8", "surrogatepass")
