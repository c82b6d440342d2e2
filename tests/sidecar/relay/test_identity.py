"""What a request is called, here and by the engine."""

import pytest

from perjoule.sidecar.relay.identity import another, identify

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = (b"traceparent", f"00-{TRACE}-b7ad6b7169203331-01".encode())


def identified(*headers, tracing=False):
    drop, add = [], []
    identity = identify(headers, "tenant", drop, add, tracing=tracing)
    return identity, set(drop), dict(line.removeprefix(b"\r\n").split(b": ") for line in add)


def test_a_client_s_request_id_is_kept():
    """The engine gets it as it is, so nothing is added; ours is another one."""
    identity, drop, add = identified((b"X-Request-Id", b"mine-1"))
    assert (identity.request_id, identity.tenant, drop, add) == ("mine-1", "tenant", set(), {})
    assert identity.record_id != "mine-1"


def test_without_one_the_engine_is_told_ours():
    """Its logs and our record then have the same word."""
    identity, _, add = identified()
    assert add == {b"X-Request-Id": identity.record_id.encode()}
    assert identity.request_id == identity.record_id


@pytest.mark.parametrize("given", [b"", b"a" * 129, b"a b", b"a\nb", b"\xff"])
def test_an_id_that_is_none_is_not_written_down(given):
    """Too long, or with characters that a log could be misled by: the engine still gets it, the record has ours."""
    identity, _, add = identified((b"x-request-id", given))
    assert (identity.request_id, add) == (identity.record_id, {})


def test_a_trace_is_joined_and_goes_on_only_with_a_span_of_ours():
    """Who traces puts its own span between; who does not hands the client's on."""
    identity, drop, add = identified(TRACEPARENT)
    assert (identity.trace_id, identity.parent_span_id, identity.span_id, drop) == (TRACE, "b7ad6b7169203331", None, set())
    assert b"traceparent" not in add
    identity, drop, add = identified(TRACEPARENT, tracing=True)
    assert (identity.trace_id, identity.parent_span_id, drop) == (TRACE, "b7ad6b7169203331", {b"traceparent"})
    assert add[b"traceparent"] == f"00-{TRACE}-{identity.span_id}-01".encode()


def test_the_rank_that_a_client_chose_is_known():
    """vLLM's X-data-parallel-rank says where it will run."""
    assert identified((b"X-data-parallel-rank", b"3"))[0].rank == 3
    assert identified()[0].rank is None


@pytest.mark.parametrize("tracing", [True, False])
def test_another_response_of_a_session_has_ids_of_its_own(tracing):
    """Its record and its span; all else is what the handshake said."""
    first, _, _ = identified(TRACEPARENT, (b"x-request-id", b"mine"), tracing=tracing)
    second = another(first)
    assert second.record_id != first.record_id
    assert (second.span_id != first.span_id) is tracing
    assert (second.span_id is not None) is tracing
    for name in ("request_id", "tenant", "trace_id", "parent_span_id", "rank"):
        assert getattr(second, name) == getattr(first, name)
