"""Who and what a request is, before it is sent on: its ids, and what the engine is told of them."""

from dataclasses import replace

from perjoule.sidecar.access.doors import CREDENTIALS
from perjoule.sidecar.dialects.observer import readable_encodings
from perjoule.sidecar.dialects.watch import Identity
from perjoule.sidecar.http.heads import Headers, first, line
from perjoule.sidecar.metering.pools import as_rank
from perjoule.sidecar.relay import ids
from perjoule.sidecar.relay.trace_context import TraceContext, parse_traceparent

RANK = b"x-data-parallel-rank"  # vLLM's: which of its engine cores is to serve the request
LONGEST_SHOWN = 4096  # bytes of a credential that is kept with a job
SAFE_ID = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:")


def identify(headers: Headers, tenant: str | None, drop: list[bytes], add: list[bytes], *, tracing: bool) -> Identity:
    """Ids of a request. The engine is told X-Request-Id, so that its logs and spans join ours, and traceparent: `drop` and `add` are
    what differs in the head that it gets, names of fields and lines."""
    record_id = ids.record_id()
    given = first(headers, b"x-request-id")
    if given is None:
        request_id = record_id
        add.append(line(b"X-Request-Id", record_id.encode()))
    else:
        request_id = given.decode() if 0 < len(given) <= 128 and SAFE_ID.issuperset(given) else record_id
    context = parse_traceparent(first(headers, b"traceparent"))
    parent_id = context.parent_id if context is not None else None
    rank = as_rank(ranked.decode("latin-1")) if (ranked := first(headers, RANK)) is not None else None
    if not tracing:
        return Identity(record_id, request_id, tenant, context.trace_id if context is not None else None, None, parent_id, rank)
    context = context or TraceContext(ids.trace_id(), None, flags=1)
    span_id = ids.span_id()
    drop.append(b"traceparent")
    add.append(line(b"traceparent", context.child(span_id).encode()))
    return Identity(record_id, request_id, tenant, context.trace_id, span_id, parent_id, rank)


def another(identity: Identity) -> Identity:
    """Of another response to the same request, as a session has many: what was said at its beginning holds for all of them."""
    return replace(identity, record_id=ids.record_id(), span_id=identity.span_id and ids.span_id())


def keep_readable(headers: Headers, drop: list[bytes], add: list[bytes]) -> None:
    """Of the encodings that the client takes, ask only for those that can be read here."""
    if (accepted := first(headers, b"accept-encoding")) is not None:
        drop.append(b"accept-encoding")
        add.append(line(b"Accept-Encoding", readable_encodings(accepted)))


def credential_shown(headers: Headers, drop: list[bytes]) -> tuple[tuple[str, str], ...]:
    """The credential of the client's own that the engine is shown. It is kept for as long as a job is open: not one of 64 KiB."""
    return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers
                 if name.lower() in CREDENTIALS and name.lower() not in drop and len(value) <= LONGEST_SHOWN)
