"""A write that brings the stamp alone: nobody's edits keep it out (I10). And what is refused without one."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from kopf_ha.core.wire import Request, Response
from kopf_ha.errors import FloorLost, NotStamped, Refused, SetAside, StaleLeader, TermEnded, Unfenced
from tests.core.fake_api import (
    CRDS,
    DEPLOYMENT,
    JSON_PATCH,
    MERGE,
    MINE,
    WIDGET,
    FakeApi,
    Process,
    as_earlier,
    as_note,
    as_notes,
    as_status,
    crd,
    patch,
    stamp,
    status,
)

POOL = "/apis/t.dev/v1/namespaces/a/pools/x"
ALONE: dict[str, Any] = {"status": {}}


@pytest.fixture
def api() -> FakeApi:
    api = FakeApi()
    api.put(f"{CRDS}/pools.t.dev", copy.deepcopy(api.get(f"{CRDS}/widgets.t.dev")))
    return api


@pytest.fixture
def me(api: FakeApi) -> Process:
    return Process(api, MINE, deciding=["pools.t.dev"])


def busy(api: FakeApi) -> None:
    """A user edits the spec between any two requests of ours: no revision that was read is the one at the write."""

    def edit(request: Request) -> None:
        if request.path.startswith(POOL):
            api.edit(POOL, lambda o: o["spec"].update(n=o["spec"].get("n", 0) + 1))

    api.intercept = edit


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(
    "there",
    [{}, {"status": {"free": 3}}, {"status": {"fencing": as_status(stamp(6)), "free": 3}}, {"status": {}}],
    ids=["no status", "no stamp", "an earlier stamp", "an empty status"],
)
def test_however_fast_others_edit(api: FakeApi, me: Process, there: dict[str, Any], known: bool) -> None:
    api.put(POOL, {"spec": {}} | there)
    if known:
        me.fence.known.schemas["t.dev", "v1", "pools"] = True
        me.watch(POOL)
    busy(api)
    answer = me.patch(POOL + "/status", ALONE)
    assert answer.status == 200
    assert api.recorded(POOL) == MINE
    assert api.get(POOL)["status"].get("free") == there.get("status", {}).get("free")
    # Of one that was listed without a stamp it is guessed that it has no status either.
    guessed_wrong = known and "status" in there and "fencing" not in there["status"]
    assert len(api.sent("PATCH")) == (2 if guessed_wrong else 1)
    # What the next write stands on.
    seen = me.fence.known.objects.get(api.target(POOL).key)
    assert seen is not None
    assert (seen.stamp, seen.version) == (MINE, answer.json["metadata"]["resourceVersion"])


def test_another_writer_of_the_status_costs_a_read(api: FakeApi, me: Process) -> None:
    """A leader before us, late, between our read and our stamp."""
    api.put(POOL, {"spec": {}})
    attempt = me.attempt(patch(POOL + "/status", ALONE))
    while attempt.pending is None or attempt.pending.method != "PATCH":
        attempt.step()
    api.edit(POOL, lambda o: o.update(status={"fencing": as_status(stamp(5)), "free": 2}))
    assert attempt.finish().status == 200
    assert api.recorded(POOL) == MINE
    assert api.get(POOL)["status"]["free"] == 2


def test_a_later_term_keeps_its_stamp(api: FakeApi, me: Process) -> None:
    """I1."""
    api.put(POOL, {"spec": {}}, stamp(6))
    attempt = me.attempt(patch(POOL + "/status", ALONE))
    while attempt.pending is None or attempt.pending.method != "PATCH":
        attempt.step()
    api.edit(POOL, lambda o: o["status"].update(fencing=as_status(stamp(8))))
    api.elect(stamp(8))
    with pytest.raises(StaleLeader):
        attempt.finish()
    assert api.recorded(POOL) == stamp(8)


def test_a_floor_that_was_lost(api: FakeApi, me: Process) -> None:
    api.put(POOL, {"spec": {}}, stamp(8))
    with pytest.raises(FloorLost):
        me.patch(POOL + "/status", ALONE)


@pytest.mark.parametrize("code", [403, 409, 422, 429, 500])
def test_an_answer_that_has_nothing_to_do_with_the_stamp(api: FakeApi, me: Process, code: int) -> None:
    api.put(POOL, {"spec": {}}, stamp(6))

    def refuse(request: Request) -> Response | None:
        return status(code, "frozen by somebody's policy") if request.method == "PATCH" else None

    api.intercept = refuse
    assert me.patch(POOL + "/status", ALONE).status == code
    # A conflict may be another's luck; what will not change is not asked again and again.
    assert len(api.sent("PATCH")) == 1 or code == 409


def test_one_that_is_gone(api: FakeApi, me: Process) -> None:
    assert me.patch(POOL + "/status", ALONE).status == 404
    assert api.sent("PATCH") == []


@pytest.mark.parametrize(
    "body",
    [
        patch(POOL + "/status", {"status": {"free": 1}, "metadata": {"resourceVersion": "VERSION"}}),
        patch(POOL + "/status", [{"op": "add", "path": "/status/free", "value": 1}], JSON_PATCH),
        patch(POOL + "/status", {"status": {"free": 1}}),  # Kopf's, which decides from what its watch saw
    ],
    ids=["merge", "json patch", "Kopf's"],
)
def test_nothing_is_decided_from_what_is_set_aside(api: FakeApi, me: Process, body: Request) -> None:
    made = api.put(POOL, {"spec": {}}, stamp(6))
    me.saw = True
    me.grant.set_aside = frozenset({made["metadata"]["uid"]})
    version = made["metadata"]["resourceVersion"].encode()
    request = Request(body.method, body.path, "", body.content_type, body.body.replace(b"VERSION", version))
    with pytest.raises(SetAside, match=r"pools.t.dev/status a/x: the object is set aside") as caught:
        me.send(request)
    assert isinstance(caught.value, Refused)
    assert not isinstance(caught.value, TermEnded)
    assert api.sent("PATCH") == []
    # Its labels and its end are no decision; and it is the object's matter, not that of others.
    assert me.patch(POOL, {"metadata": {"labels": {"a": "b"}}}).status == 200
    # When the barrier comes to it after all, it is an object as any other.
    assert me.patch(POOL + "/status", ALONE).status == 200
    me.grant.set_aside = frozenset()
    assert me.patch(POOL + "/status", {"status": {"free": 1}}, MERGE).status == 200


def test_what_is_set_aside_is_one_object_not_its_name(api: FakeApi, me: Process) -> None:
    api.put(POOL, {"spec": {}}, stamp(6))
    me.saw = True
    me.grant.set_aside = frozenset({"another uid"})
    assert me.patch(POOL + "/status", {"status": {"free": 1}}).status == 200


def test_nothing_is_decided_from_a_namespace_that_was_not_looked_at(api: FakeApi, me: Process) -> None:
    """I4: an earlier leader could still write it. The barrier's own stamps come first."""
    api.put(POOL, {"spec": {}}, stamp(6))
    me.saw = True
    me.grant.swept = frozenset({"another"})
    with pytest.raises(SetAside):
        me.patch(POOL + "/status", {"status": {"free": 1}})
    assert me.patch(POOL + "/status", ALONE).status == 200
    me.grant.swept = frozenset({"another", "a"})
    assert me.patch(POOL + "/status", {"status": {"free": 1}}).status == 200


@pytest.mark.parametrize("stamped_meanwhile", [False, True])
def test_nothing_is_decided_from_what_was_not_read_after_its_stamp(
    api: FakeApi, me: Process, stamped_meanwhile: bool
) -> None:
    """I4, with `--barrier each`. That the object has its stamp by now is not enough: the code decided without it."""
    made = api.put(POOL, {"spec": {}}, stamp(6))
    uid = made["metadata"]["uid"]
    me.saw = True
    me.grant.unread = {uid, "another"}
    if stamped_meanwhile:
        assert me.patch(POOL + "/status", ALONE).status == 200
    sent = len(api.sent("PATCH"))
    with pytest.raises(NotStamped, match=r"stamped\(body\)") as caught:
        me.patch(POOL + "/status", {"status": {"free": 1}})
    assert caught.value.never, "the code has to change"
    assert not isinstance(caught.value, TermEnded), "and other objects are served (I10)"
    assert len(api.sent("PATCH")) == sent
    # Its labels are no decision.
    assert me.patch(POOL, {"metadata": {"labels": {"a": "b"}}}).status == 200
    me.grant.read(uid)
    assert me.patch(POOL + "/status", {"status": {"free": 1}}).status == 200
    assert me.grant.unread == {"another"}


@pytest.mark.parametrize(
    ("path", "first"), [(WIDGET, WIDGET + "/status"), (DEPLOYMENT, DEPLOYMENT)], ids=["stamped", "noted"]
)
@pytest.mark.parametrize("asked", ["/scale", ""])
def test_where_the_stamp_goes(api: FakeApi, me: Process, path: str, first: str, asked: str) -> None:
    """A stamped kind has it in its status; other kinds have a note in their metadata. A Scale can carry neither."""
    api.put(path, {"metadata": {}, "spec": {"replicas": 1}}, stamp(6))
    assert me.patch(path + asked, {"spec": {"replicas": 2}}).status == 200
    stamped_first = path == WIDGET or asked
    assert [r.path for r in api.sent("PATCH")] == [first] * bool(stamped_first) + [path + asked]


# --- a kind without `status.fencing`

NOTE_ALONE: dict[str, Any] = {"metadata": {"annotations": {}}}


@pytest.fixture
def bare(api: FakeApi) -> FakeApi:
    """The deciding kind has no status subresource, as every second operator's."""
    definition = crd("t.dev", "pools", v1=None)
    definition["spec"]["versions"][0]["subresources"] = {}
    api.put(f"{CRDS}/pools.t.dev", definition)
    return api


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(
    "there",
    [
        {},
        {"annotations": {}},
        {"annotations": {"theirs": "kept"}},
        {"annotations": as_notes(stamp(6), "pools.t.dev")},
        {"annotations": as_note(stamp(6), "pools.t.dev")},
        {"annotations": as_earlier(stamp(6))},
        {"annotations": as_earlier(stamp(60, lease="ns/other")) | as_note(stamp(60, lease="ns/other"), "pools.t.dev")},
    ],
    ids=["nothing", "an empty one", "others", "both forms", "this form", "the earlier form", "another Lease's"],
)
def test_a_note_however_fast_others_edit(bare: FakeApi, me: Process, there: dict[str, Any], known: bool) -> None:
    bare.put(POOL, {"metadata": copy.deepcopy(there), "spec": {}, "status": {"free": 3}})
    if known:
        me.fence.known.schemas["t.dev", "v1", "pools"] = False
        me.watch(POOL)
    busy(bare)
    assert me.patch(POOL, NOTE_ALONE).status == 200
    assert bare.recorded(POOL) == MINE
    now = bare.get(POOL)
    assert now["status"] == {"free": 3}
    notes = as_notes(MINE, "pools.t.dev")
    assert {**there.get("annotations", {}), **notes}.keys() == now["metadata"]["annotations"].keys() | notes.keys()
    assert all(r.json[0]["op"] == "test" for r in bare.sent("PATCH"))
    assert len(bare.sent("PATCH")) <= 2


@pytest.mark.parametrize("known", [False, True])
def test_a_note_leaves_the_stamps_of_another_lease_alone(bare: FakeApi, me: Process, known: bool) -> None:
    """I1: the other operator may be of an earlier release, and knows no other form."""
    theirs = as_notes(stamp(60, lease="ns/other"), "pools.t.dev")
    bare.put(POOL, {"metadata": {"annotations": dict(theirs)}, "spec": {}})
    if known:
        me.fence.known.schemas["t.dev", "v1", "pools"] = False
        me.watch(POOL)
    assert me.patch(POOL, NOTE_ALONE).status == 200
    assert bare.get(POOL)["metadata"]["annotations"] == theirs | as_note(MINE, "pools.t.dev")


@pytest.mark.parametrize("notes", [as_note(stamp(8), "pools.t.dev"), as_earlier(stamp(8))])
def test_a_later_term_keeps_its_note(bare: FakeApi, me: Process, notes: dict[str, str]) -> None:
    """I1."""
    bare.put(POOL, {"spec": {}}, stamp(6))
    attempt = me.attempt(patch(POOL, NOTE_ALONE))
    while attempt.pending is None or attempt.pending.method != "PATCH":
        attempt.step()
    bare.edit(POOL, lambda o: o["metadata"]["annotations"].update(notes))
    bare.elect(stamp(8))
    with pytest.raises(StaleLeader):
        attempt.finish()
    assert bare.recorded(POOL) == stamp(8)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ({"status": {"free": 1}}, MERGE),
        ({"metadata": {"annotations": {"kopf.dev/x": "y"}}, "status": {"free": 1}}, MERGE),
        ([{"op": "add", "path": "/status/free", "value": 1}], JSON_PATCH),
        ([{"op": "replace", "path": "/status", "value": {}}], JSON_PATCH),
        ([{"op": "replace", "path": "", "value": {}}], JSON_PATCH),
    ],
)
def test_a_status_that_is_written_with_the_object_decides_as_well(
    bare: FakeApi, me: Process, body: Any, content_type: str
) -> None:
    made = bare.put(POOL, {"spec": {}, "status": {"free": 3}}, stamp(6))
    with pytest.raises(Unfenced, match="the status of a deciding kind must carry the resourceVersion"):
        me.patch(POOL, body, content_type)
    me.saw = True
    me.grant.set_aside = frozenset({made["metadata"]["uid"]})
    with pytest.raises(SetAside):
        me.patch(POOL, body, content_type)
    assert bare.accepted == []
    # Its labels are no decision.
    assert me.patch(POOL, {"metadata": {"labels": {"a": "b"}}}).status == 200


def test_a_decision_is_not_sent_again(bare: FakeApi, me: Process) -> None:
    me.fence.known.schemas["t.dev", "v1", "pools"] = False
    bare.put(POOL, {"spec": {}, "status": {"free": 3}}, MINE)
    me.watch(POOL)
    me.saw = True
    bare.edit(POOL, lambda o: o["spec"].update(n=1))
    assert me.patch(POOL, {"status": {"free": 1}}).status == 409
    assert bare.get(POOL)["status"] == {"free": 3}
