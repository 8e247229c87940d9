"""Every way to write × every recorded stamp × stamped kind or child, main resource and /status."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kopf_ha.core.token import Stamp
from kopf_ha.core.wire import Request
from kopf_ha.errors import ForeignStamp, StaleLeader
from tests.core.fake_api import (
    APPLY,
    CHILD,
    DEPLOYMENT,
    JSON_PATCH,
    MERGE,
    STRATEGIC,
    WIDGET,
    FakeApi,
    Process,
    as_earlier,
    as_label,
    as_note,
    as_notes,
    digest,
    patch,
    recorded_in,
    stamp,
    write,
)

MINE = stamp(7)
BODY: dict[str, Any] = {
    "metadata": {"annotations": {"theirs": "kept"}, "labels": {"l": "1"}},
    "spec": {"old": 1},
    "status": {"old": 1},
}

RECORDED: dict[str, Stamp | None] = {
    "unstamped": None,
    "earlier": stamp(6),
    "mine": MINE,
    "later": stamp(8),
    "twin": stamp(7, "another"),
    "foreign": stamp(3, lease="ns/other"),
}
ACCEPTED = ("unstamped", "earlier", "mine")


def mine_at(path: str) -> Stamp:
    """Give what is recorded of the present term: a Deployment's label has only a digest of the holder."""
    return replace(MINE, holder=digest(MINE.holder)) if "/deployments/" in path else MINE


def body_of(path: str, field: str) -> dict[str, Any]:
    return {"status" if path.endswith("/status") else "spec": {field: "new"}}


def merge(api: FakeApi, path: str) -> Request:
    return patch(path, body_of(path, "field"), MERGE)


def strategic(api: FakeApi, path: str) -> Request:
    return patch(path, body_of(path, "field"), STRATEGIC)


def json_patch(api: FakeApi, path: str) -> Request:
    part = "status" if path.endswith("/status") else "spec"
    return patch(path, [{"op": "add", "path": f"/{part}/field", "value": "new"}], JSON_PATCH)


def apply(api: FakeApi, path: str) -> Request:
    named = {"apiVersion": "v1", "kind": "Any", "metadata": {"name": "x"}}
    return patch(path, named | body_of(path, "field"), APPLY, "fieldManager=me&force=true")


def put(api: FakeApi, path: str) -> Request:
    body = copy.deepcopy(api.get(path.removesuffix("/status")))
    body["metadata"].pop("annotations")  # a client that builds the object anew
    body["status" if path.endswith("/status") else "spec"]["field"] = "new"
    if path.endswith("/status"):
        body["status"].pop("fencing", None)
    return write("PUT", path, body)


def delete(api: FakeApi, path: str) -> Request:
    return write("DELETE", path)


WAYS: list[Callable[[FakeApi, str], Request]] = [merge, strategic, json_patch, apply, put]
PATHS = [WIDGET, WIDGET + "/status", CHILD, DEPLOYMENT, DEPLOYMENT + "/status"]


def world(path: str, recorded: Stamp | None) -> tuple[FakeApi, Process]:
    api = FakeApi()
    api.put(path.removesuffix("/status"), BODY, recorded)
    return api, Process(api, MINE)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("recorded", ACCEPTED)
def test_a_write_is_accepted_and_leaves_my_stamp(way: Any, path: str, recorded: str) -> None:
    api, me = world(path, RECORDED[recorded])
    answer = me.send(way(api, path))
    assert answer.status == 200
    now = api.get(path.removesuffix("/status"))
    assert now["status" if path.endswith("/status") else "spec"]["field"] == "new"
    assert api.recorded(path.removesuffix("/status")) == mine_at(path)
    assert now["status"]["old"] == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("recorded", ACCEPTED)
def test_every_request_that_changes_something_names_the_revision(way: Any, path: str, recorded: str) -> None:
    api, me = world(path, RECORDED[recorded])
    me.send(way(api, path))
    for accepted in api.accepted:
        assert accepted.before is not None
        version, body = accepted.before["metadata"]["resourceVersion"], accepted.request.json
        if isinstance(body, list):
            # After the client's operations, so that none of them can take it back.
            assert {"op": "add", "path": "/metadata/resourceVersion", "value": version} in body
        else:
            assert body["metadata"]["resourceVersion"] == version
        if accepted.request.content_type == APPLY:
            # With the resourceVersion alone an apply would make a deleted object again.
            assert body["metadata"]["uid"] == accepted.before["metadata"]["uid"]


@pytest.mark.parametrize(
    ("way", "alone"),
    [(merge, False), (strategic, False), (put, False), (apply, True), (json_patch, True), (delete, True)],
)
def test_a_child_is_stamped_with_the_write_where_that_can_carry_a_stamp(way: Any, alone: bool) -> None:
    """An apply would fight for it with the last term's, a JSON patch needs what it adds to, a deletion has no place."""
    api, me = world(CHILD, stamp(6))
    assert me.send(way(api, CHILD)).ok
    assert len(api.accepted) == (2 if alone else 1)
    assert api.accepted[0].request.content_type == (MERGE if alone else api.accepted[-1].request.content_type)


EVERYWHERE = [*itertools.product(WAYS, PATHS), *((delete, p) for p in PATHS if not p.endswith("/status"))]


@pytest.mark.parametrize(
    ("way", "path", "recorded"),
    [
        *((*to, recorded) for to in EVERYWHERE for recorded in ("later", "twin")),
        # in metadata each Lease has a stamp of its own
        *((*to, "foreign") for to in EVERYWHERE if to[1].startswith(WIDGET)),
    ],
)
def test_what_is_another_terms_is_not_touched(way: Any, path: str, recorded: str) -> None:
    api, me = world(path, RECORDED[recorded])
    api.elect(stamp(8))
    before = copy.deepcopy(api.get(path.removesuffix("/status")))
    with pytest.raises(ForeignStamp if recorded == "foreign" else StaleLeader) as refused:
        me.send(way(api, path))
    assert refused.value.line == "precondition"
    assert api.get(path.removesuffix("/status")) == before
    assert api.sent("PATCH", "PUT", "DELETE", "POST") == []


OTHER = stamp(30, lease="ns/other")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("path", [CHILD, DEPLOYMENT])
@pytest.mark.parametrize("recorded", [*ACCEPTED, "later"])
@pytest.mark.parametrize("earlier", [True, False])
def test_each_lease_has_a_stamp_of_its_own_in_metadata(way: Any, path: str, recorded: str, earlier: bool) -> None:
    """One object, several operators: a token orders only the writers of its own Lease (I1)."""
    api, me = world(path, RECORDED[recorded])
    kind = api.place(path).crd
    theirs = {"labels": as_label(OTHER)} if path == DEPLOYMENT else {"annotations": as_note(OTHER, kind)}
    if earlier:
        theirs.setdefault("annotations", {}).update(as_earlier(OTHER))

    def stamp_theirs(body: dict[str, Any]) -> None:
        for section, notes in theirs.items():
            body["metadata"].setdefault(section, {}).update(notes)

    api.edit(path, stamp_theirs)
    request = way(api, path)
    if request.method == "PUT":
        body = request.json
        body["metadata"].pop("labels", None)  # anew, as who builds the whole object
        request = write("PUT", path, body)
    if recorded == "later":
        api.elect(stamp(8))
        with pytest.raises(StaleLeader):
            me.send(request)
    else:
        assert me.send(request).status == 200
        assert api.recorded(path) == mine_at(path)
    now = api.get(path)["metadata"]
    assert all(now[section].items() >= notes.items() for section, notes in theirs.items())


def test_a_stamp_that_was_copied_to_another_kind_is_none(api: FakeApi, me: Process) -> None:
    """As controllers copy annotations; only the name tells whose they are."""
    replica_set = DEPLOYMENT.replace("deployments", "replicasets")
    api.put(replica_set, {"metadata": {"annotations": as_notes(stamp(99), "deployments.apps")}, "spec": {}})
    assert me.patch(replica_set, {"spec": {"a": 1}}).status == 200
    assert recorded_in(api.get(replica_set), False, "replicasets.apps") == stamp(99), "what the copy says"
    assert api.get(replica_set)["metadata"]["annotations"].items() >= as_note(MINE, "replicasets.apps").items()


def rolled_back(body: dict[str, Any]) -> None:
    """Do what `kubectl rollout undo` does: put the annotations of an earlier revision back."""
    body["metadata"]["annotations"] = {"theirs": "old", **as_earlier(stamp(5)), **as_note(stamp(5), "deployments.apps")}


@pytest.mark.parametrize("way", [*WAYS, delete])
def test_a_rollback_takes_no_stamp_back(way: Any) -> None:
    api, me = world(DEPLOYMENT, stamp(8))
    api.elect(stamp(8))
    api.edit(DEPLOYMENT, rolled_back)
    me.watch(DEPLOYMENT)
    with pytest.raises(StaleLeader):
        me.send(way(api, DEPLOYMENT))


def test_after_a_rollback_the_leader_goes_on() -> None:
    api, me = world(DEPLOYMENT, MINE)
    api.edit(DEPLOYMENT, rolled_back)
    me.watch(DEPLOYMENT)
    assert me.patch(DEPLOYMENT, {"spec": {"a": 1}}).status == 200
    assert api.recorded(DEPLOYMENT) == mine_at(DEPLOYMENT)
    assert len(api.sent()) == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("path", [CHILD, DEPLOYMENT])
@pytest.mark.parametrize(("token", "taken"), [(6, True), (7, False), (8, False)])
def test_a_stamp_of_an_earlier_release_counts(way: Any, path: str, token: int, taken: bool) -> None:
    """On its own, and beside a lower one of this form, which a downgrade leaves behind."""

    def of_this(one: Stamp) -> dict[str, Any]:
        return {"labels": as_label(one)} if path == DEPLOYMENT else {"annotations": as_note(one)}

    for mine in ({}, of_this(stamp(5))):
        api = FakeApi()
        api.put(path, BODY)
        api.edit(path, lambda o: o["metadata"]["annotations"].update(as_earlier(stamp(token, "another"))))
        api.edit(path, lambda o, m=mine: [o["metadata"][k].update(v) for k, v in m.items()])  # type: ignore[misc]
        api.elect(stamp(8))
        me = Process(api, MINE)
        if not taken:
            with pytest.raises(StaleLeader):
                me.send(way(api, path))
            continue
        assert me.send(way(api, path)).status == 200
        # An earlier release reads the annotations, and so a stale leader that runs one is refused.
        now = api.get(path)["metadata"]
        expected = {**as_earlier(MINE), **of_this(MINE).get("annotations", {})}
        assert now["annotations"].items() >= expected.items()
        assert path == CHILD or now["labels"].items() >= as_label(MINE).items()


def test_a_deployment_gets_no_annotations_of_earlier_releases() -> None:
    """Its controller would copy them to its ReplicaSets."""
    api, me = world(DEPLOYMENT, stamp(6))
    assert me.patch(DEPLOYMENT, {"spec": {"a": 1}}).status == 200
    assert api.get(DEPLOYMENT)["metadata"]["annotations"] == {"theirs": "kept"}


@pytest.mark.parametrize("path", [CHILD, DEPLOYMENT])
@pytest.mark.parametrize("way", [merge, strategic, apply])
def test_a_patch_leaves_the_stamps_of_other_leases_to_their_owners(way: Any, path: str) -> None:
    """I9: an apply that named them would own them, and the other operator's apply would get a conflict."""
    api, me = world(path, MINE)
    section, theirs = ("labels", as_label(OTHER)) if path == DEPLOYMENT else ("annotations", as_note(OTHER))
    api.edit(path, lambda o: o["metadata"].setdefault(section, {}).update(theirs))
    assert me.send(way(api, path)).status == 200
    assert api.get(path)["metadata"][section].items() >= theirs.items()
    for request in api.sent("PATCH"):
        assert theirs.keys().isdisjoint(request.json["metadata"].get(section, {}))


@pytest.mark.parametrize("path", [WIDGET, CHILD])
@pytest.mark.parametrize("metadata", [{"labels": {"l": "1"}, "annotations": {"a": "1"}}, {"labels": {"l": "1"}}, None])
def test_an_apply_makes_a_missing_object_as_it_was_asked_for(path: str, metadata: dict[str, Any] | None) -> None:
    api = FakeApi()
    body = {"metadata": metadata and {"name": "x", **metadata}, "spec": {"mine": 1}}
    assert Process(api, MINE).send(patch(path, body, APPLY)).status == 201
    now = api.get(path)
    assert now["spec"] == {"mine": 1}
    for section, texts in (metadata or {}).items():
        assert now["metadata"][section].items() >= texts.items()
    assert path == WIDGET or api.recorded(path) == MINE
