"""What leaves and what does not: the gate, terms, exemptions, the modes for comparison (I8)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kopf_ha.core.fence import Fence
from kopf_ha.core.hearing import term_path
from kopf_ha.core.wire import Request, Response
from kopf_ha.errors import (
    ForeignStamp,
    GateClosed,
    NoTerm,
    Refused,
    StaleLeader,
    StampDropped,
    Unfenced,
)
from tests.core.fake_api import (
    CHILD,
    EDIT,
    LEASE,
    LEASES,
    MERGE,
    MINE,
    WIDGET,
    FakeApi,
    Process,
    patch,
    stamp,
    write,
)
from tests.core.test_fence_hearing import by_term

# --- the gate


@pytest.mark.parametrize("end", ["closed", "expired", "both"])
@pytest.mark.parametrize(
    "asked", [patch(WIDGET, EDIT), write("POST", "/api/v1/namespaces/a/configmaps", {}), write("DELETE", CHILD)]
)
def test_nothing_leaves_without_a_valid_grant(api: FakeApi, me: Process, end: str, asked: Request) -> None:
    if end != "expired":
        me.grant.close("the Lease was deleted")
    if end != "closed":
        me.clock += 10.0
    with pytest.raises(GateClosed, match="term 7 is over") as refused:
        me.send(asked)
    assert api.sent() == []
    assert (refused.value.line, refused.value.sent) == ("gate", None)


def test_dry_runs_pass_the_gate_too(api: FakeApi, me: Process) -> None:
    me.grant.close("lost")
    with pytest.raises(GateClosed):
        me.patch(WIDGET, EDIT, query="dryRun=All")


def test_no_timeout_reaches_past_the_grant(api: FakeApi, me: Process) -> None:
    late = me.attempt(patch(WIDGET, EDIT))
    timeouts = []
    while not late.ended:
        assert late.pending is not None
        timeouts.append(late.pending.timeout)
        me.clock += 2.0
        late.step()
    assert timeouts == [10.0, 8.0, 6.0, 4.0]  # the schema, the read, the stamp, the patch


@pytest.mark.parametrize(
    ("given", "sent"), [(3.0, [3.0, 1.0, -1.0]), (9.0, [9.0, 7.0, 5.0]), (300.0, [10.0, 8.0, 6.0])]
)
def test_the_shorter_one_of_the_clients_timeout_and_the_grant_counts(
    api: FakeApi, me: Process, given: float, sent: list[float]
) -> None:
    """Its timeout is for all that the fence sends for it."""
    late = me.attempt(replace(patch(WIDGET, EDIT), timeout=given))
    for expected in sent:
        assert late.pending is not None
        assert late.pending.timeout == expected
        me.clock += 2.0
        late.step()


def test_the_gate_that_closes_after_the_stamp_is_what_kept_the_write_out(api: FakeApi, me: Process) -> None:
    late = me.attempt(patch(WIDGET, EDIT))
    while late.pending is not None and late.pending.method == "GET":
        late.step()
    me.grant.close("lost")  # while the stamp is under way
    with pytest.raises(GateClosed) as refused:
        late.finish()
    assert refused.value.line == "gate"
    assert api.recorded(WIDGET) == MINE
    assert "mine" not in api.get(WIDGET)["spec"]


def test_the_gate_comes_before_all_other_reasons(api: FakeApi, me: Process) -> None:
    me.grant.close("lost")
    with pytest.raises(GateClosed):
        me.send(write("PUT", "/api/v1/namespaces/a/pods/x/ephemeralcontainers", {}))


def test_a_thread_of_term_7_may_not_write_when_its_process_leads_term_9(api: FakeApi, me: Process) -> None:
    old = me.grant
    me.new_term(stamp(9, MINE.holder))
    api.elect(stamp(9, MINE.holder))
    assert me.patch(WIDGET, EDIT).status == 200
    api.log.clear()
    me.grant = old
    with pytest.raises(GateClosed, match="term 7"):
        me.patch(WIDGET, EDIT)
    assert api.sent() == []


def test_a_new_term_knows_nothing_of_what_the_last_one_knew(api: FakeApi, me: Process) -> None:
    me.patch(WIDGET, EDIT)
    assert len(me.fence.known.objects) == 1
    me.fence.known.new_term()
    assert len(me.fence.known.objects) == 0
    assert me.fence.known.schemas == {}


def test_a_request_of_term_7_in_flight_finds_the_stamp_of_term_9(api: FakeApi, me: Process) -> None:
    # Its grant still looks open: the process was paused between the gate and the socket.
    late = me.attempt(patch(WIDGET, EDIT))
    while late.pending is not None and late.pending.method == "GET":
        late.step()
    next_term = Process(api, stamp(9, MINE.holder))
    next_term.fence = me.fence
    me.fence.known.new_term()
    api.elect(stamp(9, MINE.holder))
    assert next_term.patch(WIDGET, {"spec": {"theirs": 1}}).status == 200
    with pytest.raises(StaleLeader):
        late.finish()
    assert api.recorded(WIDGET) == stamp(9, MINE.holder)
    assert "mine" not in api.get(WIDGET)["spec"]


def test_without_a_term_nothing_is_written(api: FakeApi) -> None:
    fence = Fence(LEASE)
    for asked in (patch(WIDGET, EDIT), write("DELETE", CHILD), write("POST", CHILD.removesuffix("/x"), {})):
        with pytest.raises(NoTerm, match=r"start it in an on\.startup handler"):
            next(fence.flow(asked, None, lambda: 0.0))


@pytest.mark.parametrize("error", [GateClosed, NoTerm, Unfenced, ForeignStamp, StaleLeader, StampDropped])
def test_a_refusal_is_nothing_that_clients_retry(error: type[Refused]) -> None:
    assert not issubclass(error, OSError | TimeoutError)


@pytest.mark.parametrize("path", [WIDGET + "/status", CHILD])
def test_what_nothing_is_decided_from_is_written_in_each_namespace(api: FakeApi, me: Process, path: str) -> None:
    """Only deciding kinds are set aside where the barrier could not look (I4)."""
    me.grant.swept = frozenset({"another"})
    assert me.patch(path, {"status": {"mine": 1}}).status == 200


# --- what passes


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_reads_pass_untouched_and_without_a_term(method: str) -> None:
    asked = Request(method, "/api/v1/pods", query="watch=true")
    assert next(Fence(LEASE).flow(asked, None, lambda: 0.0)) is asked


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/namespaces/a/events",
        "/apis/events.k8s.io/v1/namespaces/a/events/x",
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        "/apis/authentication.k8s.io/v1/tokenreviews",
        "/api/v1/namespaces/a/pods/x/eviction",
        "/api/v1/namespaces/a/secrets/x",
        "/prefix/of/a/proxy/api/v1/namespaces/a/events",
    ],
)
def test_what_is_exempt_passes_untouched(path: str) -> None:
    fence = Fence(LEASE, exempt=["pods/eviction", "secrets"])
    asked = write("POST", path, {"a": 1})
    assert next(fence.flow(asked, None, lambda: 0.0)) is asked


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/namespaces/a/events/../configmaps/x",
        "/api/v1/namespaces/a/events/x/%2e%2e/../configmaps/x",
        "/api/v1/namespaces/a/events//x",
        "/apis/events.k8s.io/v1/../../apps/v1/namespaces/a/deployments/x",
        "/version",
        "/metrics",
    ],
)
def test_a_path_that_another_may_resolve_otherwise_is_no_path(me: Process, path: str) -> None:
    with pytest.raises(Unfenced, match="no path of a Kubernetes object"):
        me.send(write("DELETE", path))


def test_an_exempt_subresource_does_not_exempt_the_kind(api: FakeApi) -> None:
    fence = Fence(LEASE, exempt=["configmaps/scale"])
    with pytest.raises(NoTerm):
        next(fence.flow(patch(CHILD, EDIT), None, lambda: 0.0))


# --- what runs on every replica


@pytest.mark.parametrize("mode", ["full", "rv", "none"])
@pytest.mark.parametrize("path", [WIDGET, "/version"])
def test_what_runs_on_every_replica_writes_nothing_whatever_the_mode(me: Process, mode: str, path: str) -> None:
    fence = Fence(LEASE, mode)
    with pytest.raises(NoTerm, match="runs on every replica"):
        next(fence.flow(patch(path, EDIT), me.grant, lambda: me.clock, only_reads=True))
    read = Request("GET", path)
    assert next(fence.flow(read, me.grant, lambda: me.clock, only_reads=True)) is read


@pytest.mark.parametrize("where", ["only_reads", "elsewhere"])
def test_what_is_exempt_belongs_to_no_term_there(me: Process, where: str) -> None:
    """So it waits for no API server that has not heard of the term: the refusal is its answer."""
    asked = write("POST", "/api/v1/namespaces/a/events", {"a": 1})
    flow = me.fence.flow(asked, me.grant, lambda: me.clock, **{where: True})
    assert next(flow) is asked
    with pytest.raises(StopIteration) as end:
        flow.send(by_term(6))
    assert end.value.value == by_term(6)


def test_a_caller_that_does_not_say_what_it_saw_saw_nothing(me: Process) -> None:
    fence = Fence(LEASE, deciding=["widgets.t.dev"])
    fence.known.schemas["t.dev", "v1", "widgets"] = True
    with pytest.raises(Unfenced, match="must carry the resourceVersion"):
        next(fence.flow(patch(WIDGET + "/status", {"status": {"a": 1}}), me.grant, lambda: me.clock))


# --- what goes to another cluster


def test_what_goes_to_another_cluster_passes_the_gate_and_is_not_changed(me: Process) -> None:
    """Tokens mean nothing there, and a term that is over is over there, too."""
    asked = patch(WIDGET, EDIT)
    flow = me.fence.flow(asked, me.grant, lambda: me.clock, elsewhere=True)
    assert next(flow) == replace(asked, timeout=10.0)
    with pytest.raises(StopIteration) as end:
        flow.send(Response(418))
    assert end.value.value == Response(418)
    me.grant.close("lost")
    for path, named in ((WIDGET, "widgets.t.dev a/x"), ("/version", "/version")):
        with pytest.raises(GateClosed, match=f"PATCH {named}: term 7 is over"):
            next(me.fence.flow(patch(path, EDIT), me.grant, lambda: me.clock, elsewhere=True))


def test_without_a_term_nothing_is_known_of_another_cluster(me: Process) -> None:
    asked = patch(WIDGET, EDIT)
    flow = me.fence.flow(asked, None, lambda: me.clock, elsewhere=True)
    assert next(flow) is asked
    with pytest.raises(StopIteration) as end:
        flow.send(Response(418))
    assert end.value.value == Response(418)


# --- what only kopf-ha writes


@pytest.mark.parametrize("query", ["", "dryRun=All"])
@pytest.mark.parametrize("method", ["PATCH", "PUT", "DELETE", "POST"])
@pytest.mark.parametrize("path", [term_path("ns", "op"), term_path("other", "op"), LEASES + "/op"])
def test_no_caller_writes_a_term_or_the_lease(api: FakeApi, me: Process, path: str, method: str, query: str) -> None:
    named, body = path, {"metadata": {"name": "op"}}
    if method == "POST":
        named = path.removesuffix("/op")
    with pytest.raises(Unfenced, match=r"written by (kopf-ha|the election) alone"):
        me.send(replace(write(method, named, body, query), content_type=MERGE if method == "PATCH" else ""))
    assert api.sent() == []


# --- the modes for comparison


def test_the_mode_is_full_unless_another_is_named() -> None:
    assert Fence(LEASE).mode == "full"


def test_mode_none_lets_everything_by(api: FakeApi) -> None:
    stale = Process(api, MINE, mode="none")
    stale.grant.close("lost")
    api.put(WIDGET, {"spec": {"theirs": 1}}, stamp(8))
    assert stale.patch(WIDGET, EDIT).status == 200
    assert next(stale.fence.flow(write("DELETE", "/version"), None, lambda: 0.0)).path == "/version"


def test_mode_rv_reads_again_and_tries_again_whoever_wrote(api: FakeApi) -> None:
    stale = Process(api, MINE, mode="rv")
    stale.grant.close("lost")
    api.put(WIDGET, {"spec": {"theirs": 1}}, stamp(8))
    body = {"metadata": {"resourceVersion": "1"}, "spec": {"mine": 1}}
    assert stale.patch(WIDGET, body).status == 200
    assert [r.method for r in api.sent()] == ["PATCH", "GET", "PATCH"]
    assert api.get(WIDGET)["spec"] == {"theirs": 1, "mine": 1}
    assert stale.patch("/prefix" + WIDGET, EDIT).status == 200
    assert api.sent()[-2].path == "/prefix" + WIDGET
    assert stale.patch(WIDGET + "gone", EDIT).status == 404
