"""Line 4: an API server that has not heard of the term refuses the leader for a moment, and nobody notices (I9)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kopf_ha.core.hearing import LAG, PAUSES, check_floor, term_path
from kopf_ha.core.refusal import Leader, about_term, leader_in
from kopf_ha.core.wire import Request, Response
from kopf_ha.errors import Denied, FloorLost, GateClosed, StaleLeader, TermEnded
from tests.core.fake_api import CHILD, EDIT, LEASE, MINE, FakeApi, Process, denied, patch, stamp, status, write

MANY = CHILD.removesuffix("/x")
EXEC = "/api/v1/namespaces/a/pods/x/exec"
BODY = {"metadata": {"name": "y"}}


def by_term(token: int, pod: str = "uid-other", lease: str = LEASE, **more: Any) -> Response:
    said = f"{about_term(lease)}token {token} leads, in pod {pod}, and this write is of pod uid-pod7"
    return denied(more.pop("policy", "kopf-ha-ns.op-term"), said, **more)


class Deaf:
    """What an API server does that hears of the term only after some refusals."""

    def __init__(self, process: Process, refusals: float, then: Callable[[], Any] = lambda: 0, token: int = 6) -> None:
        self.process, self.left, self.then, self.token = process, refusals, then, token
        self.refused: list[Request] = []
        self.waited = 0.0

    def __call__(self, request: Request) -> Response | None:
        self.process.clock += request.after
        self.waited += request.after
        assert not request.after or request.method == "GET", "no write waits behind the gate"
        if request.method == "GET" or self.left <= 0:
            return opened(request)
        self.left -= 1
        self.refused.append(request)
        self.then()
        return by_term(self.token)


def opened(request: Request) -> Response | None:
    """Answer what opens a connection."""
    return status(200, "") if request.path == EXEC else None


WRITES = [
    write("POST", MANY, BODY),
    write("POST", MANY, BODY, "dryRun=All"),
    write("DELETE", CHILD),
    write("DELETE", MANY),
    write("PUT", CHILD, {"metadata": {"name": "x"}}),
    patch(CHILD, EDIT),
    write("POST", EXEC, {}),
    write("POST", "/api/v1/namespaces/a/secrets", BODY),
]


@pytest.mark.parametrize("asked", WRITES, ids=str)
def test_a_write_of_the_current_leader_goes_again_until_the_server_has_heard(
    api: FakeApi, me: Process, asked: Request
) -> None:
    """I9: the answer is the one that it gets where the server has heard at once."""
    pod: dict[str, Any] = {"spec": {}}
    other = FakeApi()
    for one in (api, other):
        one.put("/api/v1/namespaces/a/pods/x", pod)
    other.put(CHILD, {"metadata": {"annotations": {"theirs": "kept"}}, "spec": {}}, stamp(6))
    other.intercept = opened
    wanted = Process(other, MINE).send(asked)
    deaf = Deaf(me, 3)
    api.intercept = deaf
    got = me.send(asked)
    assert got.status == wanted.status
    assert len(deaf.refused) == 3
    assert {replace(r, timeout=None) for r in deaf.refused} == {replace(deaf.refused[0], timeout=None)}
    assert len(api.accepted) == len(other.accepted), "it is done once"
    assert 0 < deaf.waited < 0.1


def test_each_object_of_a_collection_waits_by_itself(api: FakeApi, me: Process) -> None:
    for name in ("p", "q"):
        api.put(f"{MANY}/{name}", {}, stamp(6))
    api.intercept = Deaf(me, 5)
    assert me.send(write("DELETE", MANY)).ok
    assert len([a for a in api.accepted if a.after is None]) == 3


def test_each_request_of_a_write_goes_again_soon(api: FakeApi, me: Process) -> None:
    """That the server has heard of the stamp's term does not make the deletion wait for longer."""
    deaf = Deaf(me, 1)
    api.intercept = lambda request: None if request.method == "PATCH" else deaf(request)
    assert me.send(write("DELETE", CHILD)).ok
    assert len(deaf.refused) == 1
    assert 0 < deaf.waited <= PAUSES[0]


@pytest.mark.parametrize("asked", WRITES, ids=str)
def test_a_leader_that_the_lease_names_no_more_is_stale(api: FakeApi, me: Process, asked: Request) -> None:
    api.put("/api/v1/namespaces/a/pods/x", {"spec": {}})
    deaf = Deaf(me, 99, lambda: api.elect(stamp(8)), token=8)
    api.intercept = deaf
    with pytest.raises(StaleLeader, match=r"refused .*: policy kopf-ha-ns\.op-term: fencing term of Lease") as refused:
        me.send(asked)
    assert refused.value.line == "term"
    assert refused.value.sent.method == deaf.refused[0].method
    assert refused.value.answer == by_term(8)
    assert len(deaf.refused) == 1
    assert api.accepted == []


@pytest.mark.parametrize("lease", ["readable", "unreadable"])
def test_a_server_that_never_hears_is_named(api: FakeApi, me: Process, lease: str) -> None:
    """A frozen informer, or a token that others made up: nothing of it ends the term (I10)."""
    me.grant.extend(me.clock + 100)
    deaf = Deaf(me, 10_000)
    api.intercept = deaf if lease == "readable" else lambda r: deaf(r) or (status(500, "no") if is_lease(r) else None)
    with pytest.raises(Denied, match="this API server has not heard of it: its informer of Terms") as refused:
        me.send(write("POST", MANY, BODY))
    assert not isinstance(refused.value, TermEnded)
    assert refused.value.line == "term"
    assert LAG - 1 < deaf.waited <= LAG
    assert len(deaf.refused) < 40
    api.intercept = lambda request: None
    assert me.send(write("POST", MANY, BODY)).ok, "the term goes on"


def test_credentials_of_another_pod_are_named_at_once(api: FakeApi, me: Process) -> None:
    """A token of the account that somebody made by hand. To wait would not help."""
    api.intercept = lambda request: by_term(7, MINE.pod_uid) if request.method == "POST" else None
    with pytest.raises(Denied, match="that is this term, so the client's credentials are not those of this pod"):
        me.send(write("POST", MANY, BODY))
    assert len(api.sent("POST")) == 1


def test_a_read_that_is_refused_in_these_words_does_not_go_again(api: FakeApi, me: Process) -> None:
    """Line 4 refuses only writes, so a proxied server made it up."""
    said = by_term(6)
    api.intercept = lambda request: said if (request.method, request.path) == ("GET", CHILD) else None
    assert me.patch(CHILD, EDIT) == said
    assert len(api.sent()) == 1


def is_lease(request: Request) -> bool:
    return "/leases/" in request.path


def test_a_collection_does_not_wait_for_each_object(api: FakeApi, me: Process) -> None:
    me.grant.extend(me.clock + 100)
    for n in range(5):
        api.put(f"{MANY}/{n}", {}, stamp(6))
    deaf = Deaf(me, 10_000)
    api.intercept = deaf
    with pytest.raises(Denied):
        me.send(write("DELETE", MANY))
    assert deaf.waited <= LAG


def test_a_client_waits_no_longer_than_it_said(api: FakeApi, me: Process) -> None:
    deaf = Deaf(me, 10_000)
    api.intercept = deaf
    with pytest.raises(Denied):
        me.send(replace(write("POST", MANY, BODY), timeout=0.5))
    assert 0.1 < deaf.waited < 0.5


def test_the_gate_closes_while_it_waits(api: FakeApi, me: Process) -> None:
    deaf = Deaf(me, 10_000, lambda: me.grant.close("lost"))
    api.intercept = deaf
    with pytest.raises(GateClosed):
        me.send(write("POST", MANY, BODY))
    assert len(deaf.refused) == 1


@pytest.mark.parametrize("token", [7, 9])
def test_a_term_above_mine_while_the_lease_is_mine_is_a_lost_floor(api: FakeApi, me: Process, token: int) -> None:
    api.put(term_path("ns", "op"), {"spec": {"token": token, "holder": "other", "podUID": "u"}})
    api.intercept = Deaf(me, 99, token=token)
    with pytest.raises(FloorLost, match=f"has token {token}, mine is 7") as lost:
        me.send(write("POST", MANY, BODY))
    assert (lost.value.floor, lost.value.line) == (token, "term")


@pytest.mark.parametrize(
    "spec",
    [
        None,
        {},
        {"token": "9"},
        {"token": True},
        {"token": 7, "holder": MINE.holder},
        {"token": 6, "holder": "other"},
        status(403, "no"),
        Response(503, b"<html>"),
        Response(200, b"<html>"),
    ],
)
def test_a_refusal_that_somebody_made_up_ends_no_term(api: FakeApi, me: Process, spec: Any) -> None:
    """I10: a proxied server can answer what it likes. The Term, read from a quorum, says nothing of the sort."""
    deaf, term = Deaf(me, 10_000, token=2_000_000_000), term_path("ns", "op")
    unreadable = spec if isinstance(spec, Response) else None
    if spec is not None and unreadable is None:
        api.put(term, {"spec": spec})
    api.intercept = lambda r: unreadable if unreadable is not None and r.path == term else deaf(r)
    with pytest.raises(Denied):
        me.send(write("POST", "/api/v1/namespaces/a/services/x/proxy/", BODY))


@pytest.mark.parametrize("token", [True, 1.0, "1", None])
def test_a_token_that_is_no_whole_number_says_nothing(token: Any) -> None:
    check_floor({"token": token, "holder": "other"}, stamp(1))


@pytest.mark.parametrize("grant", ["open", "ends soon", "closed", "none"])
def test_exempt_kinds_wait_too(api: FakeApi, grant: str) -> None:
    me = Process(api, MINE, exempt=["configmaps"])
    deaf = Deaf(me, 2)
    api.intercept = deaf
    if grant == "closed":
        me.grant.close("lost")
    if grant == "ends soon":
        me.clock += 9.5
    if grant == "none":
        flow = me.fence.flow(write("POST", MANY, BODY), None, lambda: me.clock)
        next(flow)
        with pytest.raises(StopIteration) as end:
            flow.send(by_term(6))
        assert end.value.value.status == 403
    else:
        assert me.send(write("POST", MANY, BODY)).status == (403 if grant == "closed" else 201)
        assert len(deaf.refused) == (1 if grant == "closed" else 2)


def test_an_exempt_write_of_a_stale_leader_ends_its_term(api: FakeApi) -> None:
    me = Process(api, MINE, exempt=["configmaps"])
    api.intercept = Deaf(me, 99, lambda: api.elect(stamp(8)), token=8)
    with pytest.raises(StaleLeader) as refused:
        me.send(write("POST", MANY, BODY))
    assert refused.value.answer == by_term(8)
    assert refused.value.sent.path == MANY


def test_of_an_exempt_write_that_went_again_the_last_answer_counts(api: FakeApi) -> None:
    me = Process(api, MINE, exempt=["configmaps"])

    def overtaken() -> None:
        if len(deaf.refused) > 1:
            api.elect(stamp(8))
            deaf.token = 8

    deaf = Deaf(me, 99, overtaken)
    api.intercept = deaf
    with pytest.raises(StaleLeader) as refused:
        me.send(write("POST", MANY, BODY))
    assert refused.value.answer == by_term(8)


OTHERS = [
    by_term(8, lease="ns/other"),
    by_term(8, policy="somebody-elses-term"),
    by_term(8, policy="kopf-ha-ns.op-child-configmaps"),
    by_term(8, binding="somebody-elses"),
    by_term(8, code=422),
    denied("kopf-ha-ns.op-term", f"he said: {about_term(LEASE)}token 8 leads, in pod x, and this write is of pod y"),
    denied("kopf-ha-ns.op-term", f"{about_term(LEASE)}token 8 leads, in pod x, and this write is of pod y, he said"),
    status(403, str(by_term(8).json["message"])),
]


@pytest.mark.parametrize("answer", OTHERS)
def test_nothing_else_is_taken_for_it(answer: Response) -> None:
    assert leader_in(answer, LEASE) is None


def test_it_is_recognised() -> None:
    assert leader_in(by_term(8, "a-b"), LEASE) == Leader(8, "a-b")
    # A token of the account that is bound to no pod.
    unbound = f"{about_term(LEASE)}token 8 leads, in pod a-b, and this write is of no pod"
    assert leader_in(denied("kopf-ha-ns.op-term", unbound), LEASE) == Leader(8, "a-b")
