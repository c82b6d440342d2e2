"""TLS towards clients and towards the engine: contexts made from files, and every reason why such a file cannot be used.

1.2 is the oldest version spoken on either side, HTTP/1.1 the only protocol. A context is made anew to read its files again.
"""

import ssl
import time
from pathlib import Path

from perjoule.sidecar.units import NS_PER_S

OLDEST = ssl.TLSVersion.TLSv1_2
ALPN = ["http/1.1"]


def server_context(cert: str, key: str, client_ca: str) -> ssl.SSLContext | None:
    """What the front presents to clients, and with `client_ca` the certificate that it demands of them; None without TLS.
    Raises ValueError, which begins with the flag."""
    if not cert:
        if key or client_ca:
            raise ValueError(f"--{'tls-key' if key else 'tls-client-ca'}: got a file without --tls-cert, expected both")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _present(context, "tls", cert, key)
    if client_ca:
        _trust(context, "tls-client-ca", client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return _as_we_speak(context)


def client_context(ca: str, cert: str, key: str, *, insecure: bool, flag: str = "upstream-tls") -> ssl.SSLContext:
    """How the engine, or whoever `flag` is for, is known, by `ca` or else by the system's authorities, and the certificate that we
    present to it, if any. `insecure` believes whoever answers. Raises ValueError, which begins with the flag."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if insecure:
        if ca:
            raise ValueError("--upstream-tls-insecure: got it with --upstream-tls-ca, expected one of them")
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    elif ca:
        _trust(context, f"{flag}-ca", ca)
    else:
        context.load_default_certs()
    if cert or key:
        _present(context, flag, cert, key)
    return _as_we_speak(context)


def _as_we_speak(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = OLDEST
    context.set_alpn_protocols(ALPN)
    return context


def _present(context: ssl.SSLContext, flag: str, cert: str, key: str) -> None:
    if not (cert and key):
        missing, given = ("key", "cert") if cert else ("cert", "key")
        raise ValueError(f"--{flag}-{given}: got a file without --{flag}-{missing}, expected both")
    _check_readable(f"{flag}-cert", cert)
    _check_readable(f"{flag}-key", key)
    try:
        context.load_cert_chain(cert, key, password="")  # or it would ask the terminal for one
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError(f"--{flag}-key: got {key}, which is not the key of the certificate in {cert}") from error
        raise ValueError(f"--{flag}-cert: got {cert}, and {key} as its key, expected a PEM certificate and its PEM key without a "
                         f"passphrase ({error.reason or 'not PEM'})") from error


def _trust(context: ssl.SSLContext, flag: str, ca: str) -> None:
    _check_readable(flag, ca)
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError as error:
        raise ValueError(f"--{flag}: got {ca}, expected PEM certificates of authorities ({error.reason or 'not PEM'})") from error
    ends = [str(authority["notAfter"]) for authority in context.get_ca_certs()]
    if ends and max(map(ssl.cert_time_to_seconds, ends)) * NS_PER_S < time.time_ns():
        raise ValueError(f"--{flag}: got {ca}, which has expired ({max(ends, key=ssl.cert_time_to_seconds)})")


def _check_readable(flag: str, path: str) -> None:
    try:
        with Path(path).open("rb"):
            pass
    except OSError as error:
        raise ValueError(f"--{flag}: cannot read {path}: {error.strerror}") from error
