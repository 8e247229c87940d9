"""What the API server refused, what the Lease says before 'stale' is declared, stamps that are none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kopf_ha.core.token import TOKEN_MAX
from kopf_ha.core.wire import Request, Response
from kopf_ha.core.write import FLOOR_STEP
from kopf_ha.errors import (
    FloorLost,
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
    LEASES,
    MERGE,
    WIDGET,
    FakeApi,
    Process,
    crd,
    json_of,
    nothing_changed,
    stamp,
    status,
    write,
)

# --- line 3


POLICY = "widgets.t.dev \"x\" is forbidden: ValidatingAdmissionPolicy '{}' with binding '{}' denied request: {}"
RULE = 'Widget.t.dev "x" is invalid: <nil>: Invalid value: The fencing stamp in status.fencing may not be removed'
REFUSALS = [
    (403, POLICY.format("kopf-ha-op-stamped", "kopf-ha-op-stamped", "pod u has not stamped the object")),
    (403, POLICY.format("named-otherwise", "b", "fencing: stale leader: the write carries token 7")),
    (422, POLICY.format("kopf-ha-op-stamped", "b", "expression resulted in error")),
    (422, RULE),
    (422, 'Widget.t.dev "x" is invalid: status.fencing.token: Invalid value: 2000000001: should be less than'),
]
NONE = [
    (403, 'widgets.t.dev "fencing" is forbidden: User "system:serviceaccount:ns:op" cannot patch resource "fencings"'),
    (403, POLICY.format("somebody-elses", "b", "no writes on Fridays")),
    (422, 'Widget.t.dev "fencing" is invalid: spec.fencing: Required value'),
    (409, "the fencing stamp"),
]


def refuse(code: int, message: str, method: str = "PATCH", path: str = "") -> Callable[[Request], Response | None]:
    def intercept(request: Request) -> Response | None:
        return status(code, message) if request.method == method and request.path.endswith(path) else None

    return intercept


@pytest.mark.parametrize(("code", "message"), REFUSALS)
@pytest.mark.parametrize("body", [EDIT, [{"op": "add", "path": "/spec/mine", "value": 1}]])
@pytest.mark.parametrize("at", ["/status", "/x"])
def test_a_refusal_of_the_server_ends_the_term(
    api: FakeApi, me: Process, code: int, message: str, body: Any, at: str
) -> None:
    api.intercept = refuse(code, message, path=at)
    with pytest.raises(StaleLeader) as refused:
        me.patch(WIDGET, body, JSON_PATCH if isinstance(body, list) else MERGE)
    assert refused.value.line == "server"
    assert message.partition(": ")[2] in str(refused.value)
    assert refused.value.sent.path.endswith(at)
    assert refused.value.answer.status == code


@pytest.mark.parametrize(("code", "message"), REFUSALS)
@pytest.mark.parametrize("method", ["DELETE", "POST"])
def test_a_refused_delete_or_creation_ends_the_term(
    api: FakeApi, me: Process, code: int, message: str, method: str
) -> None:
    api.intercept = refuse(code, message, method)
    with pytest.raises(StaleLeader) as refused:
        me.send(write("DELETE", CHILD) if method == "DELETE" else write("POST", CHILD.removesuffix("/x"), {}))
    assert refused.value.line == "server"


@pytest.mark.parametrize(("code", "message"), NONE)
def test_other_answers_are_the_clients(api: FakeApi, me: Process, code: int, message: str) -> None:
    me.patch(WIDGET, EDIT)
    api.intercept = refuse(code, message)
    assert me.patch(WIDGET, EDIT).status == code
    assert not me.grant.closed


def test_a_refusal_stays_one_when_the_read_after_it_fails(api: FakeApi, me: Process) -> None:
    # The 503 would go to the client, which would try the refused write again (I8).
    def intercept(request: Request) -> Response | None:
        refused = bool(api.sent("PATCH"))
        if request.method == "PATCH":
            return status(*REFUSALS[0])
        return status(503, "no leader") if refused else None

    api.intercept = intercept
    with pytest.raises(StaleLeader) as refused:
        me.patch(WIDGET, EDIT)
    assert refused.value.line == "server"


def test_a_refusal_may_be_a_lost_floor(api: FakeApi, me: Process) -> None:
    me.patch(WIDGET, EDIT)

    def intercept(request: Request) -> Response | None:
        if request.method != "PATCH":
            return None
        api.edit(WIDGET, lambda o: o["status"].update(fencing=stamp(9).as_status()))
        return status(*REFUSALS[1])

    api.intercept = intercept
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


@pytest.mark.parametrize("above", [0, 1, FLOOR_STEP])
def test_a_child_tells_of_a_lost_floor_too(api: FakeApi, me: Process, above: int) -> None:
    api.put(CHILD, {}, stamp(7 + above, "another"))
    with pytest.raises(FloorLost) as lost:
        me.patch(CHILD, EDIT)
    assert lost.value.floor == 7 + above


@pytest.mark.parametrize("token", [8 + FLOOR_STEP, TOKEN_MAX])
def test_an_edited_annotation_does_not_use_up_all_tokens(api: FakeApi, me: Process, token: int) -> None:
    api.put(CHILD, {}, stamp(token, "forged"))
    with pytest.raises(Unfenced, match="somebody edited its annotations") as refused:
        me.patch(CHILD, EDIT)
    assert not isinstance(refused.value, TermEnded)
    assert me.fence.floor == 0


def test_floors_are_noted_from_stamped_kinds_of_our_lease_only(api: FakeApi, me: Process) -> None:
    me.patch(WIDGET, EDIT)
    me.fence.floor = 0
    for path, recorded in ((CHILD, stamp(50)), (WIDGET, stamp(60, lease="ns/other")), (WIDGET, stamp(5))):
        api.put(path, {}, recorded)
        me.watch(path)
    assert me.fence.floor == 5
    me.fence.new_term()
    assert me.fence.floor == 5


# --- stamps that are none


BROKEN = [{}, [], "x", 5, {"token": 6}, {**stamp(6).as_status(), "token": "6"}, {**stamp(6).as_status(), "token": 0}]


@pytest.mark.parametrize("raw", BROKEN)
def test_a_malformed_stamp_is_not_guessed_at(api: FakeApi, me: Process, raw: Any) -> None:
    api.objects[api.target(WIDGET).key]["status"] = {"fencing": raw}
    with pytest.raises(Unfenced, match="the fence does not guess"):
        me.patch(WIDGET, EDIT)
    assert nothing_changed(api)
    me.watch(WIDGET)  # and a watch still gets through


def test_a_read_that_gives_no_object_is_no_object_that_is_gone(api: FakeApi, me: Process) -> None:
    # The answer to the read would be handed on as the answer to the write.
    for answer in (json_of(200, {"kind": "Table"}), Response(200, b"<html>"), json_of(200, {"metadata": {"uid": "u"}})):
        api.intercept = lambda r, a=answer: a if r.path == CHILD and r.method == "GET" else None  # type: ignore[misc]
        with pytest.raises(Unfenced, match="no object"):
            me.patch(CHILD, EDIT)
    assert nothing_changed(api)


@pytest.mark.parametrize("kept", [{}, {"token": {}}, {k: v for k, v in FENCING.items() if k != "podUID"}])
def test_a_stamp_that_the_schema_drops_ends_the_term(api: FakeApi, me: Process, kept: Any) -> None:
    api.put(f"{CRDS}/widgets.t.dev", crd(v1=kept))
    api.put(WIDGET, {"spec": {}})
    with pytest.raises(StampDropped, match=r"status\.fencing"):
        me.patch(WIDGET, EDIT)
    assert "mine" not in api.get(WIDGET)["spec"]


def test_a_stamp_that_the_server_drops_from_a_child(api: FakeApi, me: Process) -> None:
    def mutate(request: Request) -> Response | None:
        if request.method != "PATCH":
            return None
        return json_of(200, {"metadata": {"uid": "u", "resourceVersion": "9"}})

    api.intercept = mutate
    with pytest.raises(StampDropped):
        me.patch(CHILD, EDIT)
