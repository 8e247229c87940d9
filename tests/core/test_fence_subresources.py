"""Subresources: each is fenced by its object's revision, passes, or is refused in words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kopf_ha.core.wire import Request, Response
from kopf_ha.errors import NoTerm, StaleLeader
from tests.core.fake_api import (
    APPLY,
    DEPLOYMENT,
    JSON_PATCH,
    MINE,
    POD,
    STRATEGIC,
    WIDGET,
    FakeApi,
    Process,
    patch,
    stamp,
    status,
    write,
)

CSR = "/apis/certificates.k8s.io/v1/certificatesigningrequests/x"
ATTACHMENT = "/apis/storage.k8s.io/v1/volumeattachments/x"
NAMESPACE = "/api/v1/namespaces/a"
BINDINGS = "/api/v1/namespaces/a/bindings"
REPLICAS = {"spec": {"replicas": 3}}
EVICTION: dict[str, Any] = {"kind": "Eviction", "metadata": {"name": "x"}}
BINDING: dict[str, Any] = {"kind": "Binding", "metadata": {"name": "x"}, "target": {"kind": "Node", "name": "n"}}
EPHEMERAL = {"spec": {"ephemeralContainers": [{"name": "debug"}]}}


def scales(path: str) -> list[Request]:
    return [
        patch(path + "/scale", REPLICAS),
        patch(path + "/scale", [{"op": "replace", "path": "/spec/replicas", "value": 3}], JSON_PATCH),
        patch(path + "/scale", REPLICAS, APPLY),
        write("PUT", path + "/scale", {"metadata": {"name": "x"}, **REPLICAS}),
    ]


#: Requests, the object that they write, and what it is like then.
WRITES: list[tuple[Request, str, Any]] = [
    *((request, DEPLOYMENT, lambda o: o["spec"]["replicas"] == 3) for request in scales(DEPLOYMENT)),
    *((request, WIDGET, lambda o: o["spec"]["replicas"] == 3) for request in scales(WIDGET)),
    (write("POST", POD + "/eviction", EVICTION), POD, lambda o: o is None),
    (write("POST", POD + "/binding", BINDING), POD, lambda o: o["spec"]["nodeName"] == "n"),
    (write("POST", BINDINGS, BINDING), POD, lambda o: o["spec"]["nodeName"] == "n"),
    (patch(POD + "/ephemeralcontainers", EPHEMERAL, STRATEGIC), POD, lambda o: o["spec"]["ephemeralContainers"]),
    (patch(POD + "/resize", {"status": {"a": 1}}), POD, lambda o: o["status"] == {"a": 1}),
    (patch(POD + "/status", {"status": {"a": 1}}), POD, lambda o: o["status"] == {"a": 1}),
    (write("PUT", CSR + "/status", {"metadata": {}, "status": {"a": 1}}), CSR, lambda o: o["status"] == {"a": 1}),
    (
        write("PUT", ATTACHMENT + "/status", {"metadata": {}, "status": {"a": 1}}),
        ATTACHMENT,
        lambda o: o["status"] == {"a": 1},
    ),
    (write("PUT", CSR + "/approval", {"metadata": {}, "status": {"a": 1}}), CSR, lambda o: o["status"] == {"a": 1}),
    (write("PUT", NAMESPACE + "/finalize", {"metadata": {}, "status": {}}), NAMESPACE, lambda o: o["status"] == {}),
]
EVERY = pytest.mark.parametrize(
    ("asked", "path", "done"), WRITES, ids=[f"{r.method} {r.path} {r.content_type}" for r, _, _ in WRITES]
)


@pytest.fixture
def api(api: FakeApi) -> FakeApi:
    for path in (DEPLOYMENT, POD, CSR, ATTACHMENT, NAMESPACE, WIDGET):
        api.put(path, {"metadata": {"annotations": {"theirs": "kept"}}, "spec": {"old": 1}}, stamp(6))
    return api


def is_mine(api: FakeApi, path: str) -> bool:
    recorded = api.recorded(path)
    return recorded is not None and (recorded.token, recorded.pod_uid) == (MINE.token, MINE.pod_uid)


def now(api: FakeApi, path: str) -> Any:
    return api.objects.get(api.target(path).key)


@EVERY
def test_it_takes_effect_on_an_object_that_is_mine(
    api: FakeApi, me: Process, asked: Request, path: str, done: Any
) -> None:
    assert me.send(asked).ok
    assert done(now(api, path))
    last = [a for a in api.accepted if a.who == MINE.holder][-1]
    assert last.before is not None
    assert last.before["metadata"]["resourceVersion"].encode() in last.request.body
    if last.after is not None:
        assert is_mine(api, path)
        assert now(api, path)["spec"]["old"] == 1


@EVERY
def test_it_goes_again_after_another_edit(api: FakeApi, me: Process, asked: Request, path: str, done: Any) -> None:
    me.patch(path, {"metadata": {"labels": {"known": "1"}}})
    api.edit(path, lambda o: o["spec"].update(theirs=2))
    assert me.send(asked).ok
    assert done(now(api, path))
    assert now(api, path) is None or now(api, path)["spec"]["theirs"] == 2


@EVERY
@pytest.mark.parametrize("known", [True, False])
def test_a_stale_leader_changes_nothing(
    api: FakeApi, me: Process, asked: Request, path: str, done: Any, known: bool
) -> None:
    if known:
        me.patch(path, {"metadata": {"labels": {"known": "1"}}})
    made = api.put(path, {"spec": {"old": 1}}, stamp(8))
    api.elect(stamp(8))
    with pytest.raises(StaleLeader):
        me.send(asked)
    assert now(api, path) == made


@EVERY
def test_what_is_not_there_is_not_found(api: FakeApi, me: Process, asked: Request, path: str, done: Any) -> None:
    api.delete(path)
    assert me.send(asked).status == 404
    assert api.accepted == []


@EVERY
def test_what_is_known_after_it_is_right(api: FakeApi, me: Process, asked: Request, path: str, done: Any) -> None:
    """In the steady state the next write costs one request."""
    me.send(asked)
    if now(api, path) is None or asked.method == "POST":
        return
    api.log.clear()
    assert me.patch(path, {"metadata": {"labels": {"l": "1"}}}).status == 200
    assert len(api.sent()) == 1


def test_the_metadata_of_a_scale_is_not_that_of_its_object(api: FakeApi, me: Process) -> None:
    me.patch(DEPLOYMENT, {"metadata": {"labels": {"known": "1"}}})
    api.log.clear()
    assert me.patch(DEPLOYMENT + "/scale", {"metadata": {"annotations": None}, **REPLICAS}).status == 200
    assert api.get(DEPLOYMENT)["metadata"]["annotations"] == {"theirs": "kept"}
    assert len(api.sent()) == 1


@pytest.mark.parametrize("what", ["resourceVersion", "uid"])
@pytest.mark.parametrize("sub", ["eviction", "binding", "scale"])
def test_a_precondition_of_the_caller_stays_its_own(api: FakeApi, me: Process, sub: str, what: str) -> None:
    me.patch(POD, {"metadata": {"labels": {"known": "1"}}})
    given = api.get(POD)["metadata"][what]
    api.put(POD, {"spec": {"theirs": 1}}, MINE)
    body: Any = {
        "eviction": {**EVICTION, "deleteOptions": {"preconditions": {what: given}}},
        "binding": {**BINDING, "metadata": {"name": "x", what: given}},
        "scale": {"metadata": {"name": "x", what: given}, **REPLICAS},
    }[sub]
    asked = write("PUT" if sub == "scale" else "POST", f"{POD}/{sub}", body)
    plain = api.handle(Request(asked.method, asked.path, "dryRun=All", asked.content_type, asked.body))
    assert plain.status == 409
    api.accepted.clear()
    assert me.send(asked).status == 409
    assert api.accepted == []


def test_a_pod_that_is_bound_already_is_the_callers_conflict(api: FakeApi, me: Process) -> None:
    api.put(POD, {"spec": {"nodeName": "other"}}, MINE)
    assert me.send(write("POST", POD + "/binding", BINDING)).status == 409
    assert len(api.sent("POST")) == 1


@pytest.mark.parametrize("how", ["query", "body"])
def test_an_eviction_can_be_a_dry_run(api: FakeApi, me: Process, how: str) -> None:
    body = {**EVICTION, "deleteOptions": {"dryRun": ["All"]}} if how == "body" else EVICTION
    assert me.send(write("POST", POD + "/eviction", body, query="dryRun=All" if how == "query" else "")).ok
    assert api.accepted == []
    assert [r.method for r in api.sent()] == ["POST"]


def test_the_options_of_an_eviction_stay(api: FakeApi, me: Process) -> None:
    body = {**EVICTION, "deleteOptions": {"gracePeriodSeconds": 5, "preconditions": {"uid": ""}}}
    me.send(write("POST", POD + "/eviction", body))
    sent = api.sent("POST")[-1].json
    assert sent["deleteOptions"]["gracePeriodSeconds"] == 5
    assert set(sent["deleteOptions"]["preconditions"]) == {"uid", "resourceVersion"}


# --- what writes no object


PASSING = [
    write("POST", "/api/v1/namespaces/a/pods/x/exec", query="command=ls"),
    write("POST", "/api/v1/namespaces/a/pods/x/attach"),
    write("POST", "/api/v1/namespaces/a/pods/x/portforward"),
    Request("PUT", "/api/v1/namespaces/a/pods/x/proxy/any/path", body=b"\x00 what the application takes"),
    write("DELETE", "/api/v1/namespaces/a/services/x:80/proxy/apis/t.dev/v1/widgets/x"),
    write("POST", "/api/v1/nodes/x/proxy/run"),
    write("POST", "/api/v1/namespaces/a/serviceaccounts/x/token", {"spec": {"audiences": ["a"]}}),
]


@pytest.mark.parametrize("asked", PASSING)
def test_what_writes_no_object_passes_in_a_term(api: FakeApi, me: Process, asked: Request) -> None:
    said = status(201, "done")
    api.intercept = lambda request: said if request.path == asked.path else None
    assert me.send(asked) == said
    (sent,) = api.sent()
    assert (sent.method, sent.path, sent.query, sent.body) == (asked.method, asked.path, asked.query, asked.body)


@pytest.mark.parametrize("asked", PASSING)
def test_and_not_without_one(api: FakeApi, me: Process, asked: Request) -> None:
    flow = me.fence.flow(asked, None, lambda: me.clock)
    with pytest.raises(NoTerm):
        next(flow)
    me.grant.close("lost")
    with pytest.raises(Exception, match="term 7 is over"):
        me.send(asked)
    assert api.sent() == []


def test_a_subresource_that_keeps_no_annotations_ends_no_term(api: FakeApi, me: Process) -> None:
    """The stamp comes first, since the status of some kinds of Kubernetes' own resets the metadata."""
    assert me.send(write("PUT", ATTACHMENT + "/status", {"metadata": {}, "status": {"a": 1}})).status == 200
    assert api.recorded(ATTACHMENT) == MINE
    assert [r.method for r in api.sent("PATCH", "PUT") if "dryRun" not in r.query] == ["PATCH", "PUT"]


@pytest.mark.parametrize(
    "answer",
    [{"kind": "Scale"}, {"metadata": {"resourceVersion": "7"}}, {"metadata": {"uid": "u"}}, {"metadata": []}, [], None],
)
def test_a_scale_whose_answer_says_nothing_teaches_nothing(api: FakeApi, me: Process, answer: Any) -> None:
    me.patch(DEPLOYMENT, {"metadata": {"labels": {"known": "1"}}})
    api.intercept = lambda r: Response(200, json.dumps(answer).encode()) if "scale" in r.path else None
    assert me.send(patch(DEPLOYMENT + "/scale", REPLICAS)).status == 200
    assert me.fence.known.objects.get(api.target(DEPLOYMENT).key) is None
