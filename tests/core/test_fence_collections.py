"""The deletion of a collection: each object is judged and deleted as one, and the answer is the API server's (I9)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kopf_ha.core.wire import Request, Response
from kopf_ha.errors import ForeignStamp, StaleLeader, TermEnded, Unfenced
from tests.core.fake_api import CHILD, LEASES, MINE, WIDGET, FakeApi, Process, denied, stamp, status, write

COLLECTIONS = [WIDGET.removesuffix("/x"), CHILD.removesuffix("/x")]
EVERY = pytest.mark.parametrize("collection", COLLECTIONS)


@pytest.fixture
def api() -> FakeApi:
    api = FakeApi()
    for collection in COLLECTIONS:
        for name in "abcd":
            labels = {"app": "yes" if name in "abc" else "no"}
            recorded = {"a": None, "b": stamp(6), "c": MINE, "d": stamp(6)}[name]
            api.put(f"{collection}/{name}", {"metadata": {"labels": labels}, "spec": {}}, recorded)
    return api


def left(api: FakeApi, collection: str) -> list[str]:
    place = api.target(f"{collection}/x")
    return sorted(name for kind, _, name in api.objects if kind == place.kind)


def deleted(api: FakeApi) -> list[Any]:
    return [a for a in api.accepted if a.request.method == "DELETE"]


@EVERY
@pytest.mark.parametrize("body", [None, {"propagationPolicy": "Foreground"}])
def test_what_the_selectors_name_is_deleted_each_at_its_revision(
    api: FakeApi, me: Process, collection: str, body: Any
) -> None:
    query = "labelSelector=app%3Dyes&gracePeriodSeconds=5"
    plain = api.handle(write("DELETE", collection, {"dryRun": ["All"]}, query="labelSelector=app%3Dyes"))
    answer = me.send(write("DELETE", collection, body, query=query))
    assert answer.status == 200
    assert [o["metadata"]["name"] for o in answer.json["items"]] == ["a", "b", "c"]
    assert answer.json["kind"] == plain.json["kind"]
    assert left(api, collection) == ["d"]
    for accepted in deleted(api):
        options = accepted.request.json
        assert accepted.request.path.rpartition("/")[0] == collection
        assert options["preconditions"]["resourceVersion"] == accepted.before["metadata"]["resourceVersion"]
        assert options.get("propagationPolicy") == (body or {}).get("propagationPolicy")
        assert options.get("gracePeriodSeconds") == (None if body else 5)
        assert "dryRun" not in options
    assert {r.query for r in api.sent("DELETE") if r.path != collection} == {""}


@EVERY
def test_an_empty_collection(api: FakeApi, me: Process, collection: str) -> None:
    answer = me.send(write("DELETE", collection, query="labelSelector=app%3Dnone"))
    assert (answer.status, answer.json["items"]) == (200, [])
    assert api.accepted == []


@EVERY
def test_a_dry_run_stays_one(api: FakeApi, me: Process, collection: str) -> None:
    assert len(me.send(write("DELETE", collection, query="dryRun=All")).json["items"]) == 4
    assert api.accepted == []
    assert len(api.sent()) == 1


@EVERY
def test_a_refusal_is_the_api_servers(api: FakeApi, me: Process, collection: str) -> None:
    said = status(403, "cannot deletecollection", "Forbidden")
    api.intercept = lambda r: said if r.path == collection else None
    assert me.send(write("DELETE", collection)) == said
    assert api.accepted == []


@EVERY
def test_our_own_policy_refuses_the_dry_run_and_not_the_deletion(api: FakeApi, me: Process, collection: str) -> None:
    """The dry run names no revision, which the policy demands of deletions."""
    said = denied("kopf-ha-op-stamped", "fencing: an object is deleted only with preconditions.resourceVersion")
    api.intercept = lambda r: said if r.method == "DELETE" and r.path == collection else None
    assert me.send(write("DELETE", collection)).status == 200
    assert left(api, collection) == []


@EVERY
def test_a_right_to_list_is_needed(api: FakeApi, me: Process, collection: str) -> None:
    said = status(403, "cannot list", "Forbidden")
    api.intercept = lambda r: said if r.method == "GET" and r.path == collection else None
    assert me.send(write("DELETE", collection)) == said
    assert api.accepted == []


@EVERY
def test_an_answer_that_is_no_list_deletes_nothing_and_is_no_success(
    api: FakeApi, me: Process, collection: str
) -> None:
    api.intercept = lambda r: status(200, "") if r.path == collection and r.method == "GET" else None
    with pytest.raises(Unfenced, match="no list"):
        me.send(write("DELETE", collection))
    assert api.accepted == []


@EVERY
def test_an_object_that_changes_or_goes_in_between(api: FakeApi, me: Process, collection: str) -> None:
    late = me.attempt(write("DELETE", collection))
    while not any(r.path == collection for r in api.sent("GET")):
        late.step()
    api.edit(f"{collection}/c", lambda o: o["spec"].update(theirs=2))
    api.delete(f"{collection}/d")
    assert late.finish().status == 200
    assert left(api, collection) == []


@EVERY
def test_a_newer_leaders_object_ends_the_term(api: FakeApi, me: Process, collection: str) -> None:
    api.put(f"{collection}/b", {"spec": {}}, stamp(8))
    api.elect(stamp(8))
    with pytest.raises(StaleLeader):
        me.send(write("DELETE", collection))
    assert left(api, collection) == ["b", "c", "d"], "what is after it was not touched"


def test_one_that_cannot_be_deleted_keeps_no_other(api: FakeApi, me: Process) -> None:
    """I10: whoever may edit one object of the collection does not stop the deletion of the others."""
    collection = COLLECTIONS[0]
    api.put(f"{collection}/b", {"spec": {}}, stamp(3, lease="ns/other"))
    with pytest.raises(ForeignStamp) as refused:
        me.send(write("DELETE", collection))
    assert not isinstance(refused.value, TermEnded)
    assert left(api, collection) == ["b"]


def test_nor_does_one_whose_stamp_is_none(api: FakeApi, me: Process) -> None:
    collection = COLLECTIONS[1]
    api.edit(f"{collection}/a", lambda o: o["metadata"].update(annotations={"kopf-ha.dev/token": "x"}))
    with pytest.raises(Unfenced, match="repair it by hand"):
        me.send(write("DELETE", collection))
    assert left(api, collection) == ["a"]


@EVERY
def test_what_the_server_says_to_one_is_the_answer(api: FakeApi, me: Process, collection: str) -> None:
    said = status(500, "etcd is gone")
    api.intercept = lambda r: said if r.method == "DELETE" and r.path.endswith("/b") else None
    assert me.send(write("DELETE", collection)) == said
    assert left(api, collection) == ["b", "c", "d"]


def test_the_elections_lease_is_spared(api: FakeApi, me: Process) -> None:
    api.put(LEASES + "/another", {"spec": {}})
    with pytest.raises(Unfenced, match="written by the election alone"):
        me.send(write("DELETE", LEASES))
    assert left(api, LEASES) == ["op"]


def test_a_server_that_may_know_no_dry_runs_is_not_asked(api: FakeApi, me: Process) -> None:
    collection = "/apis/a.example.com/v1/namespaces/a/things"
    gvk = {"kind": "Thing"}
    paths = {
        "/apis/a.example.com/v1/namespaces/{namespace}/things/{name}": {"get": {"x-kubernetes-group-version-kind": gvk}}
    }
    schemas = {"Thing": {"x-kubernetes-group-version-kind": [gvk]}}
    document = json.dumps({"paths": paths, "components": {"schemas": schemas}}).encode()

    def served(request: Request) -> Response | None:
        return Response(200, document) if request.path.startswith("/openapi") else None

    api.intercept = served
    with pytest.raises(Unfenced, match="delete its objects one by one"):
        me.send(write("DELETE", collection))
    assert api.sent("DELETE") == []
