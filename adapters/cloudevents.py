"""A CloudEvent for each request, posted in batches to an HTTP sink that takes them as OpenMeter does (CloudEvents 1.0, JSON batches)."""

import logging
from collections.abc import Sequence
from urllib.parse import urlsplit

import orjson

from perjoule.sidecar.ports import TryLaterError
from perjoule.sidecar.record import EnergyRecord
from perjoule.sidecar.records.event import event_of
from perjoule.sidecar.telemetry import SCOPE

CONTENT_TYPE = "application/cloudevents-batch+json"
TIMEOUT_S = 10.0  # for the sink to take a batch
ANSWER_CHARS = 200  # of what it says when it does not
OF_THE_EVENTS = {400, 413, 422}  # refusals of what was sent; all others are of the sink, its key or the way there

logger = logging.getLogger(__name__)


class EventError(Exception):
    """Events that a sink does not take; the text says why."""


class CloudEvents:
    """A RecordSink that posts events to `url`, with `token` as a bearer's where there is one. Whoever gives it records tries again what it
    has refused, so an event may come twice, and counts once by its source and id. Raises ValueError for a URL that cannot be used."""

    name = "events"

    def __init__(self, url: str, token: str | None = None, *, timeout_s: float = TIMEOUT_S) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ValueError("--events: expected http(s)://HOST[:PORT]/PATH, without a name or a password in it")
        import requests

        self._url, self._timeout_s = url, timeout_s
        self._session = requests.Session()
        self._session.headers.update({"Content-Type": CONTENT_TYPE, "User-Agent": SCOPE})
        if token is not None:
            self._session.headers["Authorization"] = f"Bearer {token}"
        self._session.auth = lambda request: request  # what was given is all that is shown: nothing out of a netrc

    def put(self, records: Sequence[EnergyRecord]) -> None:
        """Send these records as events; returns when the sink has taken them, else raises EventError or TryLaterError."""
        import requests

        body = orjson.dumps([event_of(record) for record in records])
        try:
            answer = self._session.post(self._url, data=body, timeout=self._timeout_s, allow_redirects=False)
        except requests.RequestException as error:
            raise TryLaterError(f"the sink did not take {len(records)} events: {type(error).__name__} {_root(error)}".rstrip()) from None
        if 200 <= answer.status_code < 300:
            return
        logger.debug("the sink's answer begins with %r", answer.text[:ANSWER_CHARS])  # it may repeat what it was sent: not for /readyz
        text = f"the sink did not take {len(records)} events: HTTP {answer.status_code} {answer.reason}"
        if answer.status_code in OF_THE_EVENTS:
            raise EventError(text)
        after = answer.headers.get("Retry-After", "")
        raise TryLaterError(text, float(after) if after.isascii() and after.isdigit() else 0.0)

    def close(self) -> None:
        """Release the connection; nothing is waiting here."""
        self._session.close()


def _root(error: BaseException) -> str:
    """What the system said, where it did: the library's own words hold the URL, and a URL may hold a secret."""
    while error.__context__ is not None:
        error = error.__context__
    return str(error) if isinstance(error, OSError) and error.errno else ""
