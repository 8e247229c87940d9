"""Conflicts: whose they are, what goes again and what never does (I6, I9)."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest

from kopf_ha.core.token import Stamp
from kopf_ha.core.wire import Request, Response
from kopf_ha.core.write import ATTEMPTS
from kopf_ha.errors import GateClosed, StaleLeader, Unfenced
from tests.core.fake_api import (
    APPLY,
    CHILD,
    DEPLOYMENT,
    JSON_PATCH,
    STRATEGIC,
    WIDGET,
    FakeApi,
    Process,
    as_status,
    json_of,
    patch,
    stamp,
    status,
    write,
)

MINE = stamp(7)
POOL = "/apis/t.dev/v1/namespaces/a/pools/x"


@pytest.fixture
def api() -> FakeApi:
    api = FakeApi()
    crd = copy.deepcopy(api.get("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.t.dev"))
    api.put("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/pools.t.dev", crd)
    for path in (WIDGET, CHILD, POOL):
        api.put(path, {"spec": {"theirs": 1, "list": [1]}}, MINE)
    return api


@pytest.fixture
def me(api: FakeApi) -> Process:
    me = Process(api, MINE, deciding=["pools.t.dev"])
    for path in (WIDGET, CHILD, POOL):
        me.patch(path, {"metadata": {"labels": {"known": "1"}}})
        assert me.fence.known.objects.get(api.target(path).key)
    api.log.clear()
    api.accepted.clear()
    return me


def version(api: FakeApi, path: str) -> str:
    return str(api.get(path)["metadata"]["resourceVersion"])


def user_edits(api: FakeApi, path: str) -> None:
    api.edit(path, lambda o: o["spec"].update(theirs=2))


def meddle(api: FakeApi, path: str, how: Any = user_edits) -> None:
    """Let somebody else be faster than every write to a path."""

    def intercept(request: Request) -> None:
        if request.method in ("PATCH", "PUT", "DELETE") and request.path.startswith(path):
            how(api, path)

    api.intercept = intercept


def meddle_once(api: FakeApi, path: str, how: Any) -> None:
    def once(api: FakeApi, path: str) -> None:
        api.intercept = lambda request: None
        how(api, path)

    meddle(api, path, once)


@pytest.mark.parametrize("path", [WIDGET, WIDGET + "/status", CHILD])
@pytest.mark.parametrize("saw", [False, True], ids=["client", "kopf"])
def test_a_merge_patch_goes_again_and_the_other_change_survives(
    api: FakeApi, me: Process, path: str, saw: bool
) -> None:
    me.saw = saw
    user_edits(api, path.removesuffix("/status"))
    assert me.patch(path, {"spec": {"mine": 1}, "status": {"mine": 1}}).status == 200
    now = api.get(path.removesuffix("/status"))
    assert now["spec"]["theirs"] == 2
    assert now["status" if path.endswith("/status") else "spec"]["mine"] == 1
    assert len(api.sent("PATCH")) == 2


@pytest.mark.parametrize("path", [WIDGET, CHILD])
def test_it_goes_again_a_bounded_number_of_times(api: FakeApi, me: Process, path: str) -> None:
    meddle(api, path)
    assert me.patch(path, {"spec": {"mine": 1}}).status == 409
    assert len(api.sent("PATCH")) == ATTEMPTS
    assert api.accepted == []


@pytest.mark.parametrize("path", [WIDGET, CHILD])
@pytest.mark.parametrize(
    "body",
    [
        {"spec": {"list": [1, 2]}},
        {"spec": {"deep": {"list": []}}},
        {"metadata": {"finalizers": ["f"]}},
        {"rules": [{"verbs": ["get"]}]},  # a ClusterRole has its lists at the root
        {"webhooks": [{"name": "w"}]},
    ],
)
def test_a_patch_with_a_list_goes_again_as_it_would_have_gone_in(
    api: FakeApi, me: Process, path: str, body: dict[str, Any]
) -> None:
    """I9: it is sent without a revision, so it means any; without the fence nobody would have got a conflict."""
    user_edits(api, path)
    assert me.patch(path, body).status == 200
    assert len(api.sent("PATCH")) == 2
    now = api.get(path)
    assert now["spec"]["theirs"] == 2
    for key, part in body.items():
        assert now[key] == part if isinstance(part, list) else now[key].items() >= part.items()


def test_lists_in_the_status_are_the_operators_own(api: FakeApi, me: Process) -> None:
    user_edits(api, WIDGET)
    assert me.patch(WIDGET + "/status", {"status": {"conditions": [{"type": "Ready"}]}}).status == 200


@pytest.mark.parametrize("directive", [{"$patch": "replace", "mine": 1}, {"$retainKeys": ["mine"], "mine": 1}])
def test_a_strategic_patch_that_replaces_goes_again(api: FakeApi, me: Process, directive: dict[str, Any]) -> None:
    user_edits(api, CHILD)
    assert me.patch(CHILD, {"spec": directive}, STRATEGIC).status == 200
    assert api.get(CHILD)["spec"]["mine"] == 1


@pytest.mark.parametrize("path", [WIDGET, CHILD])
@pytest.mark.parametrize("asked", ["merge", "json", "apply", "put", "delete"])
def test_a_conflict_that_is_not_of_the_revision_is_the_callers(
    api: FakeApi, me: Process, path: str, asked: str
) -> None:
    """The object is still at the revision that it was written on: a webhook, a quota, another apply's field."""
    sent = {
        "merge": patch(path, {"spec": {"mine": 1}}),
        "json": patch(path, [{"op": "add", "path": "/spec/mine", "value": 1}], JSON_PATCH),
        "apply": patch(path, {"metadata": {"name": "x"}, "spec": {"mine": 1}}, APPLY),
        "put": write("PUT", path, copy.deepcopy(api.get(path))),
        "delete": write("DELETE", path),
    }[asked]
    said = status(409, "Apply failed with 1 conflict", "Conflict", {"reason": "FieldManagerConflict"})
    api.intercept = lambda request: said if request.method in ("PATCH", "PUT", "DELETE") else None
    assert me.send(sent) == said
    assert len(api.sent("PATCH", "PUT", "DELETE")) == 1


@pytest.mark.parametrize("path", [WIDGET, CHILD])
def test_a_callers_own_precondition_stays_its_own_conflict(api: FakeApi, me: Process, path: str) -> None:
    outdated = version(api, path)
    user_edits(api, path)
    answer = me.patch(path, {"metadata": {"resourceVersion": outdated}, "spec": {"mine": 1}})
    assert answer.status == 409
    assert [r.json["metadata"]["resourceVersion"] for r in api.sent("PATCH")] == [outdated]


@pytest.mark.parametrize("path", [WIDGET, CHILD])
def test_a_caller_that_knows_more_than_the_fence_is_judged_by_a_read(api: FakeApi, me: Process, path: str) -> None:
    user_edits(api, path)
    body = {"metadata": {"resourceVersion": version(api, path)}, "spec": {"mine": 1}}
    assert me.patch(path, body).status == 200
    assert [r.method for r in api.sent()] == ["GET", "PATCH"]


@pytest.mark.parametrize("path", [WIDGET, CHILD])
def test_a_caller_that_knows_more_than_a_stale_fence_is_refused(api: FakeApi, me: Process, path: str) -> None:
    api.put(path, {"spec": {}}, stamp(8))
    api.elect(stamp(8))
    body = {"metadata": {"resourceVersion": version(api, path)}, "spec": {"mine": 1}}
    with pytest.raises(StaleLeader):
        me.patch(path, body)
    assert api.sent("PATCH") == []


@pytest.mark.parametrize("how", ["put", "patch", "json"])
def test_when_the_stamp_came_first_its_answer_replaces_the_callers_version(api: FakeApi, how: str) -> None:
    api.put(WIDGET, {"spec": {"theirs": 1}}, stamp(6))
    me = Process(api, MINE)
    seen = api.get(WIDGET)
    now = seen["metadata"]["resourceVersion"]
    sent = {
        "put": write("PUT", WIDGET, {**seen, "spec": {"mine": 1}}),
        "patch": patch(WIDGET, {"metadata": {"resourceVersion": now}, "spec": {"mine": 1}}),
        "json": patch(
            WIDGET,
            [
                {"op": "test", "path": "/metadata/resourceVersion", "value": now},
                {"op": "add", "path": "/spec/mine", "value": 1},
            ],
            JSON_PATCH,
        ),
    }[how]
    assert me.send(sent).status == 200
    assert api.recorded(WIDGET) == MINE
    assert api.get(WIDGET)["spec"]["mine"] == 1


def test_when_the_stamp_came_first_an_outdated_version_is_still_a_conflict(api: FakeApi) -> None:
    api.put(WIDGET, {"spec": {"theirs": 1}}, stamp(6))
    me = Process(api, MINE)
    outdated = version(api, WIDGET)
    user_edits(api, WIDGET)
    answer = me.patch(WIDGET, {"metadata": {"resourceVersion": outdated}, "spec": {"theirs": 3}})
    assert answer.status == 409
    assert api.get(WIDGET)["spec"]["theirs"] == 2


@pytest.mark.parametrize("path", [WIDGET, CHILD])
@pytest.mark.parametrize("given", [None, "", "0", "000"])
def test_a_patch_with_no_real_version_gets_one(api: FakeApi, me: Process, path: str, given: str | None) -> None:
    now = version(api, path)
    assert me.patch(path, {"metadata": {"resourceVersion": given}, "spec": {"mine": 1}}).status == 200
    assert api.sent("PATCH")[0].json["metadata"]["resourceVersion"] == now


def test_a_version_is_compared_as_the_api_server_does(api: FakeApi) -> None:
    # "0101" is 101 for the API server; were it another for us, the object would not be stamped first (I3).
    api.put(WIDGET, {"spec": {}}, stamp(6))
    me = Process(api, MINE)
    body = {"metadata": {"resourceVersion": "0" + version(api, WIDGET)}, "spec": {"mine": 1}}
    assert me.patch(WIDGET, body).status == 200
    assert api.recorded(WIDGET) == MINE


def test_a_list_of_tests_keeps_those_that_are_not_the_precondition(api: FakeApi, me: Process) -> None:
    now = version(api, WIDGET)
    ops = [
        {"op": "test", "path": "/metadata/resourceVersion", "value": now},
        {"op": "test", "path": "/metadata/resourceVersion", "value": "1"},
        {"op": "add", "path": "/spec/mine", "value": 1},
    ]
    assert me.patch(WIDGET, ops, JSON_PATCH).status == 422
    assert api.accepted == []


@pytest.mark.parametrize("path", [WIDGET, CHILD])
@pytest.mark.parametrize("at", ["0", "-"])
def test_a_json_patch_without_a_test_goes_again(api: FakeApi, me: Process, path: str, at: str) -> None:
    """An index means another item on another revision; that is its caller's risk, with the fence and without."""
    api.edit(path, lambda o: o["spec"].update(list=[5]))
    assert me.patch(path, [{"op": "add", "path": f"/spec/list/{at}", "value": 0}], JSON_PATCH).status == 200
    assert api.get(path)["spec"]["list"] == ([0, 5] if at == "0" else [5, 0])
    assert len(api.sent("PATCH")) == 2


@pytest.mark.parametrize("path", [WIDGET, CHILD])
@pytest.mark.parametrize("edited", [False, True])
@pytest.mark.parametrize(
    "op",
    [
        {"op": "test", "path": "/spec/theirs", "value": 99},
        {"op": "remove", "path": "/spec/gone"},
        {"op": "test", "path": "/metadata/uid", "value": "u0"},
    ],
)
def test_an_operation_that_fails_is_the_callers_own(
    api: FakeApi, me: Process, path: str, edited: bool, op: dict[str, Any]
) -> None:
    if edited:
        user_edits(api, path)
    assert me.patch(path, [op], JSON_PATCH).status == 422
    # On a child the patch carries the stamp, too: what failed may be that, if somebody removed all annotations.
    assert len(api.sent("PATCH")) == (2 if path == CHILD and edited and op["path"] != "/metadata/uid" else 1)


def test_an_operation_on_a_scale_that_fails_is_the_callers_own(api: FakeApi, me: Process) -> None:
    """A Scale carries no stamp, so nothing of the fence's can have failed."""
    api.put(DEPLOYMENT, {"spec": {"replicas": 1}}, MINE)
    me.watch(DEPLOYMENT)
    user_edits(api, DEPLOYMENT)
    test = {"op": "test", "path": "/spec/replicas", "value": 99}
    assert me.patch(DEPLOYMENT + "/scale", [test], JSON_PATCH).status == 422
    assert len(api.sent()) == 1


@pytest.mark.parametrize("path", [WIDGET, CHILD])
def test_an_operation_that_holds_after_another_edit_succeeds(api: FakeApi, me: Process, path: str) -> None:
    user_edits(api, path)
    ops = [{"op": "test", "path": "/spec/theirs", "value": 2}, {"op": "add", "path": "/spec/mine", "value": 1}]
    assert me.patch(path, ops, JSON_PATCH).status == 200
    assert api.get(path)["spec"]["mine"] == 1


@pytest.mark.parametrize("path", [WIDGET, CHILD])
@pytest.mark.parametrize("verb", ["add", "replace"])
def test_a_json_patch_that_sets_a_version_is_conditioned_on_it(api: FakeApi, me: Process, path: str, verb: str) -> None:
    now = version(api, path)
    ops: list[Any] = [
        {"op": verb, "path": "/metadata/resourceVersion", "value": now},
        {"op": "add", "path": "/spec/m", "value": 1},
    ]
    user_edits(api, path)
    assert me.patch(path, ops, JSON_PATCH).status == 409
    assert api.accepted == []
    ops[0]["value"] = version(api, path)
    assert me.patch(path, ops, JSON_PATCH).status == 200


@pytest.mark.parametrize("path", [WIDGET, CHILD])
@pytest.mark.parametrize("at", ["outdated", "new", "none"])
def test_a_json_patch_that_replaces_the_metadata_keeps_its_version(
    api: FakeApi, me: Process, path: str, at: str
) -> None:
    given = {"outdated": version(api, path), "none": None}.get(at)
    user_edits(api, path)
    metadata: dict[str, Any] = {"name": "x", "labels": {"new": "1"}, "annotations": {}}
    if at != "none":
        metadata["resourceVersion"] = given or version(api, path)
    ops = [{"op": "replace", "path": "/metadata", "value": metadata}]
    got = me.patch(path, ops, JSON_PATCH).status
    assert got == (409 if at == "outdated" else 422 if at == "none" and path == WIDGET else 200)
    if got == 200:
        assert api.recorded(path) == MINE
        assert api.get(path)["metadata"]["labels"] == {"new": "1"}
    else:
        assert api.accepted == []


@pytest.mark.parametrize("path", [WIDGET, CHILD])
def test_an_apply_goes_again(api: FakeApi, me: Process, path: str) -> None:
    user_edits(api, path)
    assert me.patch(path, {"metadata": {"name": "x"}, "spec": {"mine": 1}}, APPLY).status == 200
    assert api.get(path)["spec"] == {"theirs": 2, "list": [1], "mine": 1}
    assert len(api.sent("PATCH")) == 2


# --- what the stamp's own conflict means


@pytest.mark.parametrize(
    "asked",
    [
        patch(WIDGET, {"spec": {"list": [2]}}),
        patch(WIDGET, [{"op": "add", "path": "/spec/list/0", "value": 2}], JSON_PATCH),
        patch(WIDGET, {"metadata": {"name": "x"}, "spec": {"list": [2]}}, "application/apply-patch+yaml"),
    ],
)
def test_a_stamp_that_lost_a_race_is_stamped_again(api: FakeApi, asked: Request) -> None:
    # The answer to the read that follows is a 200, too; handed on, it would report a write that never was.
    api.put(WIDGET, {"spec": {"theirs": 1, "list": [1]}}, stamp(6))
    me = Process(api, MINE)
    meddle_once(api, WIDGET, user_edits)
    assert me.send(asked).status == 200
    assert api.get(WIDGET)["spec"] == {"theirs": 2, "list": [2, 1] if asked.content_type == JSON_PATCH else [2]}
    assert api.recorded(WIDGET) == MINE


@pytest.mark.parametrize("path", [WIDGET, CHILD])
@pytest.mark.parametrize("how", ["test", "merge", "put", "delete"])
def test_a_precondition_of_the_caller_that_failed_with_the_stamp_fails_in_its_own_words(
    api: FakeApi, path: str, how: str
) -> None:
    """A `test` is a 422, and the stamp's conflict a 409."""
    api.put(path, {"spec": {"theirs": 1}}, stamp(6))
    me = Process(api, MINE)
    seen = copy.deepcopy(api.get(path))
    now = seen["metadata"]["resourceVersion"]
    test = {"op": "test", "path": "/metadata/resourceVersion", "value": now}
    asked = {
        "test": patch(path, [test, {"op": "add", "path": "/spec/mine", "value": 1}], JSON_PATCH),
        "merge": patch(path, {"metadata": {"resourceVersion": now}, "spec": {"mine": 1}}),
        "put": write("PUT", path, {**seen, "spec": {"mine": 1}}),
        "delete": write("DELETE", path, {"preconditions": {"resourceVersion": now}}),
    }[how]
    meddle_once(api, path, user_edits)
    assert me.send(asked).status == (422 if how == "test" else 409)
    assert api.sent("PATCH", "PUT", "DELETE")[-1].method == asked.method
    assert api.get(path)["spec"] == {"theirs": 2}


@pytest.mark.parametrize("saw", [True, False])
def test_an_object_that_goes_before_it_is_stamped_is_not_found(api: FakeApi, saw: bool) -> None:
    """As without the fence, even if the change would not be sent again."""
    api.put(WIDGET, {"spec": {"list": [1]}}, stamp(6))
    me = Process(api, MINE)
    me.saw = saw
    me.patch(WIDGET + "-other", {})  # the schema is known now
    me.watch(WIDGET)
    user_edits(api, WIDGET)
    api.intercept = lambda request: api.delete(WIDGET) if request.method == "GET" and request.path == WIDGET else None
    assert me.patch(WIDGET, [{"op": "remove", "path": "/spec/list"}], JSON_PATCH).status == 404
    assert api.accepted == []


def test_what_is_so_already_when_its_stamp_lost_a_race_is_no_conflict(api: FakeApi) -> None:
    api.put(WIDGET, {"metadata": {}, "spec": {"theirs": 1}}, stamp(6))
    me = Process(api, MINE)
    me.watch(WIDGET)
    meddle_once(api, WIDGET, lambda api, path: finalizers(api, "kopf"))
    version = api.get(WIDGET)["metadata"]["resourceVersion"]
    op = {"op": "add", "path": "/metadata/finalizers", "value": ["kopf"]}
    assert kopf_asks(me, api, op, at=version).status == 200
    assert api.accepted == []
    assert api.recorded(WIDGET) == stamp(6)


def test_a_stamp_whose_answer_is_no_object_is_not_the_answer_to_the_change(api: FakeApi) -> None:
    """It is a 200; handed on, it would report a write that never was."""
    api.put(WIDGET, {"spec": {"list": [1]}}, stamp(6))
    me = Process(api, MINE)
    api.intercept = lambda request: status(200, "") if request.path.endswith("/status") else None
    with pytest.raises(Unfenced, match="answer to the stamp is no object"):
        me.patch(WIDGET, {"spec": {"list": [2]}})
    assert api.get(WIDGET)["spec"] == {"list": [1]}


def test_an_object_that_was_gone_when_it_should_be_stamped_is_created_by_an_apply(api: FakeApi) -> None:
    api.put(WIDGET, {"spec": {}}, stamp(6))
    me = Process(api, MINE)
    me.patch(WIDGET + "-other", {})  # the schema is known now
    me.watch(WIDGET)
    api.delete(WIDGET)
    body = {"metadata": {"name": "x"}, "spec": {"mine": 1}}
    assert me.patch(WIDGET, body, APPLY).status == 201
    assert api.get(WIDGET)["spec"] == {"mine": 1}


def test_a_stamp_that_always_loses_is_a_conflict(api: FakeApi) -> None:
    api.put(WIDGET, {"spec": {"theirs": 1}}, stamp(6))
    me = Process(api, MINE)
    meddle(api, WIDGET)
    assert me.patch(WIDGET, {"spec": {"mine": 1}}).status == 409
    assert len(api.sent("PATCH")) == ATTEMPTS


def test_a_stamp_that_loses_to_a_newer_leader_ends_the_term(api: FakeApi) -> None:
    api.put(WIDGET, {"spec": {"theirs": 1}}, stamp(6))
    me = Process(api, MINE)

    def newer(api: FakeApi, path: str) -> None:
        api.elect(stamp(8))
        api.edit(path, lambda o: o["status"].update(fencing=as_status(stamp(8))))

    meddle_once(api, WIDGET, newer)
    with pytest.raises(StaleLeader):
        me.patch(WIDGET, {"spec": {"mine": 1}})
    assert api.recorded(WIDGET) == stamp(8)


@pytest.mark.parametrize("path", [WIDGET, CHILD])
@pytest.mark.parametrize("how", ["test", "none"])
def test_a_json_patch_that_loses_to_a_newer_leader_ends_the_term(
    api: FakeApi, me: Process, path: str, how: str
) -> None:
    """Also where the test of the caller's own revision is what failed."""
    test = {"op": "test", "path": "/metadata/resourceVersion", "value": version(api, path)}
    ops = [*([test] if how == "test" else []), {"op": "add", "path": "/spec/mine", "value": 1}]
    api.elect(stamp(8))
    meddle_once(api, path, lambda api, path: api.put(path, {"spec": {"theirs": 1}}, stamp(8)))
    with pytest.raises(StaleLeader):
        me.patch(path, ops, JSON_PATCH)
    assert api.accepted == []


# --- another object of the same name


def recreated(api: FakeApi, path: str) -> None:
    api.put(path, {"spec": {"theirs": "new"}}, None)


@pytest.mark.parametrize("path", [WIDGET, CHILD])
@pytest.mark.parametrize("asked", [{"spec": {"mine": 1}}, {"status": {"address": "10.0.0.1"}}])
def test_what_kopf_decided_about_an_object_does_not_go_to_another_of_its_name(
    api: FakeApi, me: Process, path: str, asked: dict[str, Any]
) -> None:
    me.saw = True
    recreated(api, path)
    asked_path = path + "/status" if "status" in asked else path
    assert me.patch(asked_path, asked).status == 409
    assert api.get(path)["spec"] == {"theirs": "new"}
    assert "address" not in api.get(path).get("status", {})


@pytest.mark.parametrize("path", [WIDGET, CHILD])
@pytest.mark.parametrize("asked", [{"spec": {"mine": 1}}, {"status": {"address": "10.0.0.1"}}])
def test_a_caller_that_names_no_uid_means_whichever_object_has_the_name(
    api: FakeApi, me: Process, path: str, asked: dict[str, Any]
) -> None:
    recreated(api, path)
    assert me.patch(path + "/status" if "status" in asked else path, asked).status == 200
    assert api.get(path)["spec"]["theirs"] == "new"
    assert api.recorded(path) == MINE


@pytest.mark.parametrize("path", [WIDGET, CHILD])
def test_so_does_a_delete(api: FakeApi, me: Process, path: str) -> None:
    recreated(api, path)
    new = api.get(path)["metadata"]["uid"]
    assert me.send(write("DELETE", path)).status == 200
    assert api.sent("DELETE")[-1].json["preconditions"]["uid"] == new
    assert api.target(path).key not in api.objects


@pytest.mark.parametrize("path", [WIDGET, CHILD])
@pytest.mark.parametrize("asked", [patch(WIDGET, {"spec": {"mine": 1}}), write("DELETE", WIDGET)])
def test_but_not_to_one_that_a_newer_leader_made(api: FakeApi, me: Process, path: str, asked: Request) -> None:
    api.elect(stamp(8))
    api.put(path, {"spec": {"theirs": "new"}}, stamp(8))
    with pytest.raises(StaleLeader):
        me.send(replace(asked, path=path))
    assert api.accepted == []


@pytest.mark.parametrize("path", [WIDGET, CHILD])
@pytest.mark.parametrize("how", ["body", "query"])
def test_a_delete_of_a_certain_uid_spares_another_and_does_not_stamp_it(
    api: FakeApi, me: Process, path: str, how: str
) -> None:
    uid = api.get(path)["metadata"]["uid"]
    recreated(api, path)
    asked = write("DELETE", path, {"preconditions": {"uid": uid}})
    if how == "query":
        asked = write("DELETE", path, query=f"uid={uid}")
    assert me.send(asked).status == 409
    assert api.accepted == []
    assert {request.method for request in api.sent()} <= {"GET", "DELETE"}
    assert {request.json["preconditions"]["uid"] for request in api.sent("DELETE")} == {uid}


@pytest.mark.parametrize("path", [WIDGET, CHILD])
def test_a_patch_that_names_another_uid_does_not_stamp(api: FakeApi, path: str) -> None:
    recreated(api, path)
    me = Process(api, MINE)
    assert me.patch(path, {"metadata": {"uid": "u0"}, "spec": {"mine": 1}}).status == 409
    assert api.accepted == []


@pytest.mark.parametrize("path", [WIDGET, CHILD])
def test_what_names_another_uid_fails_in_the_api_servers_words(api: FakeApi, me: Process, path: str) -> None:
    """I9: the fence's own precondition must not hide them, however often somebody else writes in between."""
    meddle_once(api, path, user_edits)
    answer = me.patch(path, {"metadata": {"uid": "u0"}, "spec": {"mine": 1}})
    assert (answer.status, answer.json["message"]) == (409, "Operation cannot be fulfilled: uid mismatch")
    assert api.accepted == []
    assert len(api.sent("PATCH")) == 2


@pytest.mark.parametrize("path", [WIDGET, CHILD])
def test_an_apply_to_a_uid_that_is_not_the_known_one_is_judged_by_a_read(api: FakeApi, me: Process, path: str) -> None:
    new = api.put(path, {"spec": {"theirs": 2}}, MINE)
    body = {"metadata": {"name": "x", "uid": new["metadata"]["uid"]}, "spec": {"mine": 1}}
    assert me.patch(path, body, APPLY).status == 200
    assert [r.method for r in api.sent()] == ["GET", "PATCH"]


@pytest.mark.parametrize("path", [WIDGET, CHILD])
def test_a_delete_goes_again_while_it_is_the_same_object(api: FakeApi, me: Process, path: str) -> None:
    user_edits(api, path)
    assert me.send(write("DELETE", path)).status == 200
    assert api.target(path).key not in api.objects


@pytest.mark.parametrize("path", [WIDGET, CHILD])
@pytest.mark.parametrize(
    "asked",
    [
        patch("", {"spec": {}}),
        patch("", [{"op": "add", "path": "/spec/mine", "value": 1}], JSON_PATCH),
        write("DELETE", ""),
        patch("/status", {"status": {}, "spec": {}}),
        patch("/status", {"metadata": {"name": "x"}, "status": {"mine": 1}}, APPLY),
        patch("", {"metadata": {"name": "x", "resourceVersion": "5"}, "spec": {"mine": 1}}, APPLY),
        patch("", {"metadata": {"name": "x", "uid": "u0"}, "spec": {"mine": 1}}, APPLY),
    ],
    ids=["merge", "json", "delete", "status", "apply of the status", "apply to a revision", "apply to a uid"],
)
def test_what_makes_no_object_is_not_sent_to_one_that_is_missing(
    api: FakeApi, me: Process, path: str, asked: Request
) -> None:
    """An apply that names an object's revision or uid means that object, so it makes no other in its place."""
    api.delete(path)
    assert Process(api, MINE).send(replace(asked, path=path + asked.path)).status == 404
    assert api.sent("PATCH", "PUT", "POST", "DELETE") == []


@pytest.mark.parametrize("path", [WIDGET, CHILD])
@pytest.mark.parametrize("asked", ["patch", "delete", "json"])
def test_what_is_gone_meanwhile_is_not_found(api: FakeApi, me: Process, path: str, asked: str) -> None:
    meddle_once(api, path, lambda api, path: api.put(path, {}) and api.delete(path))
    json_patch = patch(path, [{"op": "add", "path": "/spec/mine", "value": 1}], JSON_PATCH)
    sent = {"patch": patch(path, {"spec": {}}), "delete": write("DELETE", path), "json": json_patch}[asked]
    assert me.send(sent).status == 404
    assert me.fence.known.objects.get(api.target(path).key) is None


# --- deciding kinds


def test_the_status_of_a_deciding_kind_must_name_its_version(api: FakeApi, me: Process) -> None:
    with pytest.raises(Unfenced, match="must carry the resourceVersion"):
        me.patch(POOL + "/status", {"status": {"free": 1}})
    assert api.sent() == []


def test_the_status_of_a_deciding_kind_is_never_sent_again(api: FakeApi, me: Process) -> None:
    outdated = version(api, POOL)
    user_edits(api, POOL)
    body = {"metadata": {"resourceVersion": outdated}, "status": {"free": 1}}
    assert me.patch(POOL + "/status", body).status == 409
    assert len(api.sent("PATCH")) == 1


def test_nor_by_kopf_which_decides_from_what_its_watch_gave(api: FakeApi, me: Process) -> None:
    me.saw = True
    user_edits(api, POOL)
    assert me.patch(POOL + "/status", {"status": {"free": 1}}).status == 409
    assert len(api.sent("PATCH")) == 1
    assert api.accepted == []


def test_annotations_of_a_deciding_kind_are_sent_again_since_nothing_is_decided_by_them(
    api: FakeApi, me: Process
) -> None:
    user_edits(api, POOL)
    assert me.patch(POOL, {"metadata": {"annotations": {"k": "v"}}}).status == 200
    assert api.get(POOL)["spec"]["theirs"] == 2


def test_its_deletion_is_not(api: FakeApi, me: Process) -> None:
    user_edits(api, POOL)
    assert me.send(write("DELETE", POOL)).status == 409
    assert api.get(POOL)["spec"]["theirs"] == 2


def test_nor_if_what_lost_the_race_is_its_stamp(api: FakeApi) -> None:
    api.put(POOL, {"spec": {"theirs": 1}}, stamp(6))
    me = Process(api, MINE, deciding=["pools.t.dev"])
    meddle_once(api, POOL, user_edits)
    assert me.send(write("DELETE", POOL)).status == 409
    assert api.get(POOL)["spec"]["theirs"] == 2
    assert api.sent("DELETE") == []


# --- Kopf's finalizers


def finalizers(api: FakeApi, *names: str) -> None:
    api.edit(WIDGET, lambda o: o["metadata"].update(finalizers=list(names)))


def kopf_asks(me: Process, api: FakeApi, *ops: dict[str, Any], at: str = "1") -> Response:
    me.saw = True
    return me.patch(WIDGET, [{"op": "test", "path": "/metadata/resourceVersion", "value": at}, *ops], JSON_PATCH)


@pytest.mark.parametrize(
    ("there", "op"),
    [
        (["kopf"], {"op": "add", "path": "/metadata/finalizers", "value": ["kopf"]}),
        (["other", "kopf"], {"op": "add", "path": "/metadata/finalizers/1", "value": "kopf"}),
        ([], {"op": "remove", "path": "/metadata/finalizers"}),
    ],
)
def test_what_is_so_already_is_no_conflict(api: FakeApi, me: Process, there: list[str], op: dict[str, Any]) -> None:
    if there:
        finalizers(api, *there)
    assert kopf_asks(me, api, op).status == 200
    assert api.sent("PATCH") == []


@pytest.mark.parametrize(
    ("there", "op"),
    [
        # An index means another one on another revision: that the first is gone says nothing.
        (["kopf"], {"op": "remove", "path": "/metadata/finalizers/0"}),
        (["other", "kopf"], {"op": "remove", "path": "/metadata/finalizers/1"}),
        (["other"], {"op": "add", "path": "/metadata/finalizers", "value": ["kopf"]}),
        (["other"], {"op": "add", "path": "/metadata/finalizers/1", "value": "kopf"}),
        (["kopf"], {"op": "remove", "path": "/metadata/finalizers"}),
        (["kopf"], {"op": "move", "from": "/metadata/a", "path": "/metadata/b"}),
        (["kopf"], {"op": "replace", "path": "/spec/gone", "value": None}),
    ],
)
def test_what_is_not_so_stays_a_conflict(api: FakeApi, me: Process, there: list[str], op: dict[str, Any]) -> None:
    finalizers(api, *there)
    assert kopf_asks(me, api, op).status in (409, 422)
    assert api.get(WIDGET)["metadata"]["finalizers"] == there


def test_what_became_so_while_it_was_asked_for_is_no_conflict(api: FakeApi, me: Process) -> None:
    """The answer to the failed test of the revision is a 422, which Kopf would keep in its memory."""
    seen = version(api, WIDGET)
    meddle_once(api, WIDGET, lambda api, path: finalizers(api, "kopf"))
    assert kopf_asks(me, api, ADDED, at=seen).status == 200
    assert api.accepted == []


def test_a_patch_of_the_current_revision_is_sent_even_if_it_is_so_already(api: FakeApi, me: Process) -> None:
    """I9: nothing has failed, so the API server answers: what a webhook says to it is the caller's."""
    finalizers(api, "kopf")
    said = status(403, "no writes on Fridays")
    api.intercept = lambda request: said if request.method == "PATCH" else None
    assert kopf_asks(me, api, ADDED, at=version(api, WIDGET)) == said


def test_others_are_not_told_that_it_is_so_already(api: FakeApi, me: Process) -> None:
    finalizers(api, "kopf")
    op = {"op": "add", "path": "/metadata/finalizers", "value": ["kopf"]}
    test = {"op": "test", "path": "/metadata/resourceVersion", "value": "1"}
    assert me.patch(WIDGET, [test, op], JSON_PATCH).status == 422


ADDED = {"op": "add", "path": "/metadata/finalizers", "value": ["kopf"]}


def behind_a_stamp(api: FakeApi, recorded: Stamp | None = None) -> tuple[Process, Response, str]:
    """Have Kopf add its finalizer to a new object; give the process, its answer, and the revision of the stamp."""
    created = api.put(WIDGET, {"spec": {}}, recorded)["metadata"]["resourceVersion"]
    me = Process(api, MINE)
    me.watch(WIDGET)
    first = kopf_asks(me, api, ADDED, at=created)
    stamped = api.accepted[-2].after
    assert stamped is not None
    return me, first, stamped["metadata"]["resourceVersion"]


@pytest.mark.parametrize("recorded", [None, stamp(6)])
def test_kopf_gets_its_answer_again_when_it_sees_the_stamp(api: FakeApi, recorded: Stamp | None) -> None:
    """The stamp's own event shows no finalizer yet, so Kopf asks for it again. That costs no request."""
    me, first, stamped = behind_a_stamp(api, recorded)
    assert first.status == 200
    before = len(api.log)
    assert kopf_asks(me, api, ADDED, at=stamped) == first
    assert len(api.log) == before


def test_kopf_gets_no_answer_of_another_patch_or_revision(api: FakeApi) -> None:
    me, _, stamped = behind_a_stamp(api)
    assert kopf_asks(me, api, ADDED | {"value": ["else"]}, at=stamped).status == 422
    finalizers(api)  # a user takes it away
    now = api.get(WIDGET)["metadata"]["resourceVersion"]
    assert kopf_asks(me, api, ADDED, at=now).status == 200
    assert api.get(WIDGET)["metadata"]["finalizers"] == ["kopf"]


def test_a_stamp_that_no_revision_follows_stays_visible(api: FakeApi) -> None:
    """Kopf waits for the revision that it was answered, so its event must reach Kopf (I7)."""
    created = api.put(WIDGET, {"spec": {}})["metadata"]["resourceVersion"]
    me = Process(api, MINE)
    me.watch(WIDGET)

    def nothing_changes(request: Request) -> Response | None:
        return json_of(200, api.get(WIDGET)) if request.path == WIDGET and request.body else None

    api.intercept = nothing_changes
    kopf_asks(me, api, ADDED, at=created)
    assert api.recorded(WIDGET) == MINE
    assert me.fence.known.told.get(api.target(WIDGET).key, version(api, WIDGET)) is None


def test_kopf_is_told_only_what_kopf_asked(api: FakeApi) -> None:
    """Kopf waits for no answer to what another client wrote, so it sees the event of that client's stamp, too (I7)."""
    api.put(WIDGET, {"spec": {}})
    me = Process(api, MINE)
    assert me.patch(WIDGET, [ADDED], JSON_PATCH).status == 200
    stamped = api.accepted[-2].after
    assert stamped is not None
    version = stamped["metadata"]["resourceVersion"]
    assert me.fence.known.told.get(api.target(WIDGET).key, version) is None


def test_a_patch_that_names_no_revision_is_sent_each_time(api: FakeApi, me: Process) -> None:
    """There is no revision by which an answer to it could be found again."""
    me.saw = True
    for _ in range(2):
        finalizers(api)  # a user takes it away
        assert me.patch(WIDGET, [ADDED], JSON_PATCH).status == 200
        assert api.get(WIDGET)["metadata"]["finalizers"] == ["kopf"]


@pytest.mark.parametrize("answer", [status(200, ""), Response(200, b"<html>")])
def test_an_answer_that_is_no_object_is_handed_on_and_told_to_nobody_again(api: FakeApi, answer: Response) -> None:
    """The write was accepted, whatever a proxy made of the answer."""
    created = api.put(WIDGET, {"spec": {}})["metadata"]["resourceVersion"]
    me = Process(api, MINE)
    me.watch(WIDGET)
    api.intercept = lambda r: answer if (r.method, r.path) == ("PATCH", WIDGET) else None
    assert kopf_asks(me, api, ADDED, at=created) == answer
    assert me.fence.known.told.get(api.target(WIDGET).key, version(api, WIDGET)) is None


def test_a_later_term_is_not_told_what_an_earlier_one_was(api: FakeApi) -> None:
    me, _, stamped = behind_a_stamp(api)
    me.fence.known.new_term()
    before = len(api.log)
    kopf_asks(me, api, ADDED, at=stamped)
    assert len(api.log) > before


# --- through the gate each time


def test_what_goes_again_passes_the_gate_again(api: FakeApi, me: Process) -> None:
    user_edits(api, WIDGET)
    late = me.attempt(patch(WIDGET, {"spec": {"mine": 1}}))
    late.step()  # a conflict
    late.step()  # the read
    assert late.pending is not None
    assert late.pending.method == "PATCH"
    me2 = Process(api, MINE)
    late = me2.attempt(patch(WIDGET, {"spec": {"mine": 2}}))
    while late.pending is not None and late.pending.method != "PATCH":
        late.step()
    user_edits(api, WIDGET)
    late.step()
    me2.grant.close("lost")
    with pytest.raises(GateClosed) as refused:
        late.finish()
    # What kept the write out was the conflict, not the gate.
    assert refused.value.line == "precondition"


def test_server_errors_on_the_fences_own_requests_are_the_clients(api: FakeApi, me: Process) -> None:
    user_edits(api, WIDGET)
    api.intercept = lambda r: status(503, "etcd leader changed") if r.method == "GET" else None
    assert me.patch(WIDGET, {"spec": {"mine": 1}}).status == 503
    api.put(CHILD, {"spec": {}}, stamp(6))
    fresh = Process(api, MINE)
    api.intercept = lambda r: status(429, "slow down") if r.method == "PATCH" else None
    assert fresh.send(write("DELETE", CHILD)).status == 429
    assert api.sent("DELETE") == []


@pytest.mark.parametrize("path", [WIDGET, CHILD])
@pytest.mark.parametrize("code", [403, 422, 500])
def test_after_a_write_that_was_refused_the_next_one_needs_no_read(
    api: FakeApi, me: Process, path: str, code: int
) -> None:
    api.intercept = lambda r: status(code, "no") if r.method == "PATCH" else None
    assert me.patch(path, {"spec": {"mine": 1}}).status == code
    api.intercept = lambda r: None
    assert me.patch(path, {"spec": {"mine": 1}}).status == 200
    assert api.sent("GET") == []


def test_bodies_are_not_changed_in_place(api: FakeApi, me: Process) -> None:
    asked = patch(WIDGET + "/status", {"metadata": {"labels": {}}, "status": {"mine": 1}})
    before = json.dumps(asked.json)
    me.send(asked)
    assert json.dumps(asked.json) == before
