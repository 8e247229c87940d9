"""What the API server refused, what the Lease says before 'stale' is declared, stamps that are none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kopf_ha.core.refusal import RULE_MESSAGE, about_tokens
from kopf_ha.core.token import TOKEN_MAX
from kopf_ha.core.wire import Request, Response
from kopf_ha.core.write import STAMPS
from kopf_ha.errors import (
    Denied,
    FloorLost,
    ForeignStamp,
    StaleLeader,
    StampDropped,
    TermEnded,
    Unfenced,
)
from tests.core.fake_api import (
    CHILD,
    CRDS,
    EDIT,
    FENCING,
    JSON_PATCH,
    LEASE,
    LEASES,
    MERGE,
    WIDGET,
    FakeApi,
    Process,
    as_status,
    crd,
    denied,
    invalid,
    json_of,
    nothing_changed,
    patch,
    stamp,
    status,
    write,
)

# --- line 3


ABOUT = about_tokens(LEASE)
STALE = ABOUT + "stale leader: the write carries token 7"
TOKENS = [
    denied("kopf-ha-op-stamped", ABOUT + "pod u has not stamped the object"),
    denied("kopf-ha-op-child-configmaps", STALE),
    invalid("<nil>", RULE_MESSAGE),
]
OTHER_RULES = [
    denied("kopf-ha-op-terminating-widgets", "fencing: the object is being deleted, so status.a gets no new value"),
    denied("kopf-ha-op-child-configmaps", "fencing: of configmaps the operator makes only its own"),
    denied("kopf-ha-op-stamped", "expression 'x' resulted in error: no such key: secret", code=422),
    denied("kopf-ha-op-stamped", about_tokens("ns/other") + "stale leader"),
    invalid("status.fencing.token", "2000000001: fencing.token in body should be less than or equal to"),
]
NOT_OURS = [
    status(403, 'widgets.t.dev "fencing" is forbidden: User "system:serviceaccount:ns:op" cannot patch "fencings"'),
    denied("somebody-elses", "no writes on Fridays, says fencing"),
    denied("kopf-ha-op-stamped", STALE, binding="somebody-elses"),
    invalid("metadata.labels", '"fencing stamp": a valid label must be an empty string or consist of'),
    invalid("metadata.labels", f'"{RULE_MESSAGE}": a valid label must be an empty string or consist of'),
    invalid("spec.fencing", "x"),
    status(409, "the fencing stamp", "Conflict", {"message": "the fencing stamp"}),
]
ADD = [{"op": "add", "path": "/spec/mine", "value": 1}]


def refuse(answer: Response, method: str = "PATCH", path: str = "", then: Callable[[], Any] = lambda: 0) -> Any:
    """Answer such requests so, after `then` changed the world."""

    def intercept(request: Request) -> Response | None:
        if request.method != method or not request.path.endswith(path):
            return None
        then()
        return answer

    return intercept


def child_of(answer: Response) -> str:
    return CHILD if "configmaps" in answer.message else WIDGET


@pytest.mark.parametrize("answer", TOKENS)
@pytest.mark.parametrize("body", [EDIT, ADD])
def test_a_refusal_about_tokens_of_who_is_stale_ends_the_term(
    api: FakeApi, me: Process, answer: Response, body: Any
) -> None:
    """The object, read again, tells: a newer leader has stamped it."""

    def overtaken() -> None:
        api.put(child_of(answer), {}, stamp(8))
        api.elect(stamp(8))

    api.intercept = refuse(answer, then=overtaken)
    with pytest.raises(StaleLeader) as refused:
        me.patch(child_of(answer), body, JSON_PATCH if isinstance(body, list) else MERGE)
    assert refused.value.line == "server"
    assert "records token 8" in str(refused.value)
    assert refused.value.answer == answer


@pytest.mark.parametrize("answer", TOKENS)
@pytest.mark.parametrize("method", ["PATCH", "DELETE", "POST"])
def test_who_does_not_hold_the_lease_any_more_is_stale(
    api: FakeApi, me: Process, answer: Response, method: str
) -> None:
    """Whatever the object says: it may be another one of that name, or none."""
    api.intercept = refuse(answer, method, then=lambda: api.elect(stamp(8)))
    path = child_of(answer)
    with pytest.raises(StaleLeader, match="the API server refused") as refused:
        me.send(write("POST", CHILD.removesuffix("/x"), {}) if method == "POST" else write(method, path, EDIT))
    assert refused.value.line == "server"


@pytest.mark.parametrize("answer", [*TOKENS, *OTHER_RULES])
@pytest.mark.parametrize("body", [EDIT, ADD])
@pytest.mark.parametrize("at", ["/status", "/x"])
def test_a_refusal_of_one_object_leaves_the_term(
    api: FakeApi, me: Process, answer: Response, body: Any, at: str
) -> None:
    """I10: the rule is not about tokens, or object and Lease both say that this term is the current one."""
    path = WIDGET if at == "/status" else child_of(answer)
    api.intercept = refuse(answer, path=at)
    with pytest.raises(Denied) as refused:
        me.patch(path, body, JSON_PATCH if isinstance(body, list) else MERGE)
    assert not isinstance(refused.value, TermEnded)
    assert refused.value.line == "server"
    assert refused.value.sent.path.endswith(at)
    assert refused.value.answer == answer
    assert api.accepted == [] or at == "/x"
    api.intercept = lambda request: None
    assert me.patch(path, EDIT).ok, "the term goes on"


@pytest.mark.parametrize("answer", [*TOKENS, *OTHER_RULES])
@pytest.mark.parametrize("method", ["DELETE", "POST"])
def test_a_refused_delete_or_creation_leaves_the_term(api: FakeApi, me: Process, answer: Response, method: str) -> None:
    api.intercept = refuse(answer, method)
    with pytest.raises(Denied):
        me.send(
            write("DELETE", child_of(answer)) if method == "DELETE" else write("POST", CHILD.removesuffix("/x"), {})
        )


def test_after_a_refused_creation_no_collection_is_read(api: FakeApi, me: Process) -> None:
    """It may be long. The Lease alone says whether the term goes on."""
    api.intercept = refuse(TOKENS[1], "POST")
    with pytest.raises(Denied):
        me.send(write("POST", CHILD.removesuffix("/x"), {}))
    assert [r.path for r in api.sent("GET")] == [LEASES + "/op"]


def test_a_refusal_repeats_no_value(api: FakeApi, me: Process) -> None:
    for answer in OTHER_RULES[2], OTHER_RULES[4]:
        api.intercept = refuse(answer)
        with pytest.raises(Denied, match=r"policy kopf-ha-op-stamped|status\.fencing\.token") as refused:
            me.patch(WIDGET, EDIT)
        assert "secret" not in str(refused.value)
        assert "2000000001" not in str(refused.value)


@pytest.mark.parametrize("answer", NOT_OURS)
def test_other_answers_are_the_clients(api: FakeApi, me: Process, answer: Response) -> None:
    me.patch(WIDGET, EDIT)
    api.intercept = refuse(answer)
    assert me.patch(WIDGET, EDIT) == answer
    assert not me.grant.closed


@pytest.mark.parametrize("failing", ["/x", "/leases/op", ""])
def test_a_refusal_stays_one_when_the_read_after_it_fails(api: FakeApi, me: Process, failing: str) -> None:
    """The 503 would go to the client, which would try the refused write again (I8)."""

    def intercept(request: Request) -> Response | None:
        if request.method == "PATCH":
            return TOKENS[0]
        return status(503, "no leader") if api.sent("PATCH") and request.path.endswith(failing) else None

    api.intercept = intercept
    with pytest.raises(Denied) as refused:
        me.patch(WIDGET, EDIT)
    assert refused.value.line == "server"


def test_a_refusal_may_be_a_lost_floor(api: FakeApi, me: Process) -> None:
    me.patch(WIDGET, EDIT)
    fence = {"fencing": as_status(stamp(9))}
    api.intercept = refuse(TOKENS[0], then=lambda: api.edit(WIDGET, lambda o: o["status"].update(fence)))
    with pytest.raises(FloorLost) as lost:
        me.patch(WIDGET, EDIT)
    assert lost.value.floor == 9


# --- the Lease is read before 'stale' is declared


@pytest.mark.parametrize("spec", [{"holderIdentity": "other"}, {"leaseTransitions": 6}, {"leaseTransitions": None}])
def test_only_who_holds_the_lease_in_this_term_lost_a_floor(api: FakeApi, me: Process, spec: dict[str, Any]) -> None:
    api.put(WIDGET, {}, stamp(8))
    api.edit(LEASES + "/op", lambda o: o["spec"].update(spec))
    with pytest.raises(StaleLeader):
        me.patch(WIDGET, EDIT)


@pytest.mark.parametrize("answer", [status(404, "gone"), status(403, "no"), status(500, "broken"), Response(200, b"")])
def test_a_lease_that_cannot_be_read_is_not_mine(api: FakeApi, me: Process, answer: Response) -> None:
    api.put(WIDGET, {}, stamp(8))
    api.intercept = lambda r: answer if "/leases/" in r.path else None
    with pytest.raises(StaleLeader):
        me.patch(WIDGET, EDIT)


@pytest.mark.parametrize("token", [7, 8, TOKEN_MAX])
@pytest.mark.parametrize("lease", [None, status(403, "no"), status(500, "broken"), Response(200, b"<html>")])
def test_what_stands_in_annotations_ends_no_term(api: FakeApi, me: Process, token: int, lease: Response | None) -> None:
    """I10: whoever may edit a child could write them. It stays refused, and says who can repair it."""
    api.put(CHILD, {}, stamp(token, "another"))
    api.intercept = lambda r: lease if "/leases/" in r.path else None
    for request in (write("DELETE", CHILD), patch(CHILD, EDIT), patch(CHILD, ADD, JSON_PATCH)):
        with pytest.raises(Unfenced, match=r"remove its annotation kopf-ha.*or raise leaseTransitions") as refused:
            me.send(request)
        assert not isinstance(refused.value, TermEnded)
    assert me.fence.known.floor == 0
    assert nothing_changed(api)


@pytest.mark.parametrize("lease", ["names it", "is gone"])
def test_a_child_tells_of_a_newer_leader_where_the_lease_does_not_name_me(
    api: FakeApi, me: Process, lease: str
) -> None:
    api.put(CHILD, {}, stamp(8))
    if lease == "names it":
        api.elect(stamp(8))
    else:
        api.delete(LEASES + "/op")
    with pytest.raises(StaleLeader):
        me.patch(CHILD, EDIT)


def test_floors_are_noted_from_stamped_kinds_of_our_lease_only(api: FakeApi, me: Process) -> None:
    me.patch(WIDGET, EDIT)
    me.fence.known.floor = 0
    for path, recorded in ((CHILD, stamp(50)), (WIDGET, stamp(60, lease="ns/other")), (WIDGET, stamp(5))):
        api.put(path, {}, recorded)
        me.watch(path)
    assert me.fence.known.floor == 5
    me.fence.known.new_term()
    assert me.fence.known.floor == 5


def test_a_field_called_fencing_is_no_floor_before_the_schema_says_so(api: FakeApi, me: Process) -> None:
    """I10: the status of somebody else's kind may be anybody's to write."""
    api.put(f"{CRDS}/widgets.t.dev", crd(v1=None))
    api.objects[api.target(WIDGET).key]["status"] = {"fencing": as_status(stamp(TOKEN_MAX))}
    me.watch(WIDGET)
    assert me.fence.known.floor == 0
    assert me.patch(WIDGET, EDIT).ok
    assert me.fence.known.floor == 0


OTHER = WIDGET.replace("/x", "/y")


def test_a_kind_is_not_written_below_a_token_that_one_of_its_objects_was_seen_with(api: FakeApi, me: Process) -> None:
    """What the watch saw before the schema was known counts from the moment that it is: the term before has 9."""
    api.put(OTHER, {}, stamp(9))
    me.watch(OTHER)
    assert me.fence.known.floor == 0
    with pytest.raises(FloorLost) as lost:
        me.patch(WIDGET, EDIT)
    assert lost.value.floor == me.fence.known.floor == 9
    assert nothing_changed(api)


def test_who_sees_a_higher_token_and_does_not_hold_the_lease_is_stale(api: FakeApi, me: Process) -> None:
    api.put(OTHER, {}, stamp(9))
    api.elect(stamp(9))
    me.watch(OTHER)
    with pytest.raises(StaleLeader):
        me.patch(WIDGET, EDIT)


# --- stamps that are none


BROKEN = [{}, [], "x", 5, {"token": 6}, {**as_status(stamp(6)), "token": "6"}, {**as_status(stamp(6)), "token": 0}]


@pytest.mark.parametrize("raw", BROKEN)
def test_a_malformed_stamp_is_not_guessed_at(api: FakeApi, me: Process, raw: Any) -> None:
    api.objects[api.target(WIDGET).key]["status"] = {"fencing": raw}
    with pytest.raises(Unfenced, match="the fence does not guess") as refused:
        me.patch(WIDGET, EDIT)
    assert not refused.value.never, "it concerns no other object (I10)"
    assert nothing_changed(api)
    me.watch(WIDGET)  # and a watch still gets through


def test_a_read_that_gives_no_object_is_no_object_that_is_gone(api: FakeApi, me: Process) -> None:
    # The answer to the read would be handed on as the answer to the write.
    for answer in (json_of(200, {"kind": "Table"}), Response(200, b"<html>"), json_of(200, {"metadata": {"uid": "u"}})):
        api.intercept = lambda r, a=answer: a if r.path == CHILD and r.method == "GET" else None  # type: ignore[misc]
        with pytest.raises(Unfenced, match="no object") as refused:
            me.patch(CHILD, EDIT)
        assert not refused.value.never, "it concerns no other object (I10)"
    assert nothing_changed(api)


@pytest.mark.parametrize("answer", [Response(200, b"<html>"), Response(200, b"[]"), json_of(200, {"items": {}})])
def test_a_collection_of_which_the_server_gives_no_list_is_not_deleted(
    api: FakeApi, me: Process, answer: Response
) -> None:
    collection = CHILD.removesuffix("/x")
    api.intercept = lambda r: answer if (r.method, r.path) == ("GET", collection) else None
    with pytest.raises(Unfenced, match="no list"):
        me.send(write("DELETE", collection))
    assert api.accepted == []


def test_what_was_listed_is_deleted_without_another_read(api: FakeApi, me: Process) -> None:
    collection = CHILD.removesuffix("/x")
    assert me.send(write("DELETE", collection)).ok
    assert [r.path for r in api.sent("GET")] == [collection]
    assert {r.content_type for r in api.sent("DELETE")} == {"application/json"}


def test_of_several_refusals_in_a_collection_the_first_is_told(api: FakeApi, me: Process) -> None:
    for name in "ab":
        api.put(f"{WIDGET[:-1]}{name}", {}, stamp(3, lease=f"ns/{name}"))
    with pytest.raises(ForeignStamp, match="fenced by Lease ns/a"):
        me.send(write("DELETE", WIDGET.removesuffix("/x")))


def test_a_stamp_alone_that_always_loses_is_no_success(api: FakeApi, me: Process) -> None:
    """The read after it is a 200; handed on, it would report a stamp that never was (I4)."""
    said = status(409, "the object has been modified", "Conflict")
    api.intercept = lambda r: said if r.method == "PATCH" else None
    assert me.patch(WIDGET + "/status", {"status": {}}) == said
    assert len(api.sent("PATCH")) == STAMPS


@pytest.mark.parametrize("attempt", [1, STAMPS])
def test_a_stamp_alone_of_what_goes_meanwhile_is_not_found(api: FakeApi, me: Process, attempt: int) -> None:
    def goes(request: Request) -> Response | None:
        if request.method != "PATCH" or len(api.sent("PATCH")) > attempt:
            return None
        if len(api.sent("PATCH")) == attempt:
            api.delete(WIDGET)
        return status(409, "the object has been modified", "Conflict")

    api.intercept = goes
    assert me.patch(WIDGET + "/status", {"status": {}}).status == 404


@pytest.mark.parametrize("kept", [{}, {"token": {}}, {k: v for k, v in FENCING.items() if k != "podUID"}])
@pytest.mark.parametrize(
    "asked",
    [patch(WIDGET, EDIT), patch(WIDGET + "/status", {"status": {"a": 1}}), patch(WIDGET + "/status", {"status": {}})],
    ids=["object", "status", "stamp alone"],
)
def test_a_stamp_that_the_schema_drops_ends_the_term(api: FakeApi, me: Process, asked: Request, kept: Any) -> None:
    api.put(f"{CRDS}/widgets.t.dev", crd(v1=kept))
    api.put(WIDGET, {"spec": {}})
    with pytest.raises(StampDropped, match=r"status\.fencing"):
        me.send(asked)
    assert "mine" not in api.get(WIDGET)["spec"]


def test_a_stamp_that_the_server_drops_from_a_child(api: FakeApi, me: Process) -> None:
    def mutate(request: Request) -> Response | None:
        if request.method != "PATCH":
            return None
        return json_of(200, {"metadata": {"uid": "u", "resourceVersion": "9"}})

    api.intercept = mutate
    with pytest.raises(StampDropped):
        me.patch(CHILD, EDIT)
