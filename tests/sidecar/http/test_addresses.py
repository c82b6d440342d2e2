"""What people write for where to listen and where to connect: read as they mean it, or refused with what was expected."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.http.addresses import Origin, Tcp, Unix, leads_to, read_address, read_origin


@pytest.mark.parametrize(("text", "address"), [
    ("127.0.0.1:9000", Tcp("127.0.0.1", 9000)), ("[::1]:80", Tcp("::1", 80)), ("[::]:9000", Tcp("::", 9000)), (":7", Tcp("0.0.0.0", 7)),
    ("localhost:0", Tcp("localhost", 0)), ("[fe80::1%eth0]:80", Tcp("fe80::1%eth0", 80)), ("unix:/run/a.sock", Unix("/run/a.sock")),
    ("unix:///run/a.sock", Unix("/run/a.sock")), ("unix:////run/a.sock", Unix("/run/a.sock")),
    ("unix:a.sock", Unix("a.sock")), ("unix:" + "a" * 107, Unix("a" * 107)),
])
def test_where_to_listen(text, address):
    """A host and a port, brackets around IPv6, no host for every IPv4 interface, and a unix socket's path."""
    assert read_address(text) == address


@pytest.mark.parametrize("text", ["", "9000", "127.0.0.1", "127.0.0.1:", "a:b", "a:65536", "a:-1", "::1:80", "[::1]", "[]:80", "[a]:80",
                                  "http://a:80", "u@a:80", "a:80/b", "a b:80", "a..b:80", "a:80\n", "unix:", "unix://a", "unix:a\0b",
                                  "unix:" + "a" * 108])
def test_what_is_no_place_to_listen(text):
    """The message has what was got, and the forms that there are."""
    with pytest.raises(ValueError, match=r"^got .*, expected HOST:PORT, \[IPV6\]:PORT, :PORT or unix:PATH: \S"):
        read_address(text)


@pytest.mark.parametrize(("url", "origin"), [
    ("http://a:8000", Origin(Tcp("a", 8000))), ("http://a", Origin(Tcp("a", 80))), ("https://a", Origin(Tcp("a", 443), tls=True)),
    ("HTTPS://A:1/", Origin(Tcp("a", 1), tls=True)), ("http://[::1]:80/v2/", Origin(Tcp("::1", 80), prefix="/v2")),
    ("unix:/run/vllm.sock", Origin(Unix("/run/vllm.sock"))), ("unix:///run/vllm.sock", Origin(Unix("/run/vllm.sock"))),
])
def test_where_an_engine_is(url, origin):
    """Host, port by the scheme, the path that goes before every request's, or a unix socket."""
    assert read_origin(url) == origin


@pytest.mark.parametrize("url", ["", "a:80", "ftp://a", "http://", "http://:80", "http://a:99999", "http://a:0", "http://a/b c", "http://a/ü",
                                 "http://a b", "http://a?b", "http://a#b", "http://[a", "//a", "unix:", "http+unix://a"])
def test_what_is_no_engine_s_url(url):
    """The message has the forms that there are."""
    with pytest.raises(ValueError, match=r"^got .*, expected http://HOST:PORT, https://HOST:PORT or unix:PATH: "):
        read_origin(url)


@pytest.mark.parametrize("url", ["http://u:secret@a", "http://u:secret@a:99999", "http://u:secret@[a", "ftp://secret@a", "http://a?key=secret",
                                 "http://a:1/#secret"])
def test_a_secret_in_a_url_is_not_repeated(url):
    """Errors end up in logs."""
    with pytest.raises(ValueError, match=r"^got a URL with a user or a query, expected ") as refused:
        read_origin(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(("url", "listen", "leads"), [
    ("http://127.0.0.1:9000", "127.0.0.1:9000", True), ("http://localhost:9000", "[::]:9000", True), ("http://[::1]", "localhost:80", True),
    ("http://10.0.0.1:9000", "10.0.0.1:9000", True), ("http://10.0.0.1:9000", "0.0.0.0:9000", False), ("http://127.0.0.1:1", ":2", False),
    ("unix:///a", "unix:/a", True), ("unix:/a", "unix:/b", False), ("unix:/a", "127.0.0.1:80", False),
])
def test_whether_a_connection_comes_back_to_oneself(url, listen, leads):
    """The same port by any name of this host, or the same path."""
    assert leads_to(read_origin(url).address, read_address(listen)) is leads


@pytest.mark.parametrize(("host", "is_literal"), [("127.0.0.1", True), ("::1", True), ("localhost", False), ("a1.b2", False)])
def test_what_needs_no_looking_up(host, is_literal):
    """Literals of both families."""
    assert Tcp(host, 1).is_literal is is_literal


hosts = st.sampled_from(["127.0.0.1", "::1", "localhost", "a.example"])
addresses = st.one_of(st.builds(Tcp, hosts, st.integers(0, 65535)),
                      st.builds(Unix, st.from_regex(r"/?[a-z.ü%:][a-z./ü%:]{0,40}", fullmatch=True)))


@given(addresses)
def test_what_is_written_is_read_again(address):
    """An address's text means that address."""
    assert read_address(str(address)) == address


@given(st.text() | st.from_regex(r"(http:|https:|unix:|//|\[|\]|@|:|/|[a-z0-9.%])*", fullmatch=True))
def test_any_text_is_read_or_refused(text):
    """Nothing but a ValueError comes of nonsense, and what is read can be used by the socket module."""
    for read in (read_address, read_origin):
        try:
            got = read(text)
        except ValueError:
            continue
        address = got.address if isinstance(got, Origin) else got
        if isinstance(address, Tcp):
            assert address.host.encode("idna")
            assert 0 <= address.port <= 65535
        else:
            assert 0 < len(address.path.encode("utf-8", "surrogateescape")) <= 107
