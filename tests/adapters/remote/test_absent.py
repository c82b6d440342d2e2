"""Which sources elsewhere may still come, so that they are waited for, and which are not what was meant."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from perjoule.adapters.energy import open_counter
from perjoule.adapters.remote import Access
from perjoule.sidecar.ports import AbsentError, UnavailableError
from tests.fakes.certificates import Certificates, make_certificates
from tests.fakes.pages import Answer, pages


def refused(spec: str, access: Access | None = None) -> type[UnavailableError]:
    """What opening it raises."""
    with pytest.raises(UnavailableError) as caught:
        open_counter(spec, "all", lambda: 0, access)
    return caught.type


@pytest.mark.parametrize(("answer", "kind"), {
    "a proxy whose server is not up": ((502, b""), AbsentError), "a server that is loading": ((503, b"loading"), AbsentError),
    "an exporter that has read nothing yet": (b"# HELP up\n", AbsentError), "the wrong token": ((401, b""), UnavailableError),
    "another program": ((404, b""), UnavailableError), "a page of something else": (b"<html>", UnavailableError),
}.values())
def test_what_a_page_says_of_it(answer: Answer, kind: type[UnavailableError]) -> None:
    """Whoever answers and is not it, will not become it."""
    with pages({"/metrics": answer}) as there:
        assert refused(f"dcgm:{there.url}") is kind


@contextmanager
def with_tls(made: Certificates) -> Iterator[int]:
    """The port of somebody who shakes hands and hangs up."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made("server.pem"), made("server.key"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        def serve() -> None:
            while server.fileno() != -1:
                with suppress(OSError):
                    client, _ = server.accept()
                    context.wrap_socket(client, server_side=True).close()

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)  # wakes the thread


def test_a_certificate_of_another_authority_is_not_waited_for(tmp_path: Path) -> None:
    """It will not get better."""
    made = make_certificates(tmp_path)
    with with_tls(made) as port:
        for spec in (f"meter:tls://localhost:{port}", f"dcgm:https://localhost:{port}"):
            assert refused(spec, Access("token", made("other.pem"))) is UnavailableError


def test_a_socket_that_may_not_be_opened_is_not_waited_for(tmp_path: Path) -> None:
    """One that is not there is."""
    assert refused(f"meter:unix:{tmp_path}/none") is AbsentError
    assert refused(f"zeusd:unix:{tmp_path}/none") is AbsentError
    assert refused(f"meter:unix:{'x' * 200}") is UnavailableError
