"""I9: whoever leads gets the answer, and leaves the object, that it would have without the fence, whoever else writes.

One write runs through the fence, a request at a time, while others edit, delete and make the object in between. Then
the same edits go to servers that began like the first one, and the plain write comes at some place between them. From
one of these places everything has to be the same.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kopf_ha.core.wire import Request, Response
from tests.core.fake_api import (
    APPLY,
    CHILD,
    DEPLOYMENT,
    JSON_PATCH,
    MINE,
    POD,
    SERVICE,
    STRATEGIC,
    WIDGET,
    Body,
    FakeApi,
    Process,
    patch,
    stamp,
    write,
)

PATHS = [WIDGET, CHILD, SERVICE, DEPLOYMENT, POD]
OBJECT: Body = {
    "metadata": {"labels": {"user": "0"}, "annotations": {"user": "0"}},
    "spec": {"list": [1, 2], "map": {"a": 1}, "replicas": 1},
    "status": {"s": 0},
}


def edit(body: Body) -> None:
    n = body["spec"].get("n", 0) + 1
    body["spec"].update(n=n, list=[*body["spec"].get("list", []), f"u{n}"])
    body["metadata"].setdefault("labels", {})["user"] = str(n)


def shorten(body: Body) -> None:
    body["spec"]["list"] = []
    body["spec"].pop("map", None)


def status(body: Body) -> None:
    body.setdefault("status", {})["s"] = body.get("status", {}).get("s", 0) + 1


def finalizer(body: Body) -> None:
    body["metadata"]["finalizers"] = ["theirs"]


def do(api: FakeApi, path: str, what: Callable[[Body], Any] | str) -> None:
    """Let somebody else write."""
    there = api.target(path).key in api.objects
    if what == "make":
        api.put(path, OBJECT)
    elif what == "delete" and there:
        api.delete(path)
    elif callable(what) and there:
        api.edit(path, what)


EDITS: list[Callable[[Body], Any] | str] = [edit, shorten, status, finalizer, "make", "delete"]

MAIN: dict[str, Callable[[str, Body], Request]] = {
    "merge": lambda path, body: patch(path, {"spec": {"mine": 1}}),
    "labels": lambda path, body: patch(path, {"metadata": {"labels": {"mine": "1"}}}),
    "list": lambda path, body: patch(path, {"spec": {"list": ["mine"]}}),
    "null": lambda path, body: patch(path, {"spec": {"map": None}}),
    "strategic": lambda path, body: patch(path, {"spec": {"$patch": "replace", "mine": 1}}, STRATEGIC),
    "apply": lambda path, body: patch(path, {"metadata": {"name": "x"}, "spec": {"mine": 1}}, APPLY),
    "index": lambda path, body: patch(path, [{"op": "replace", "path": "/spec/list/1", "value": 9}], JSON_PATCH),
    "remove": lambda path, body: patch(path, [{"op": "remove", "path": "/spec/map"}], JSON_PATCH),
    "test": lambda path, body: patch(
        path,
        [{"op": "test", "path": "/spec/list", "value": [1, 2]}, {"op": "add", "path": "/spec/mine", "value": 1}],
        JSON_PATCH,
    ),
    "test of the revision": lambda path, body: patch(
        path,
        [
            {"op": "test", "path": "/metadata/resourceVersion", "value": body["metadata"]["resourceVersion"]},
            {"op": "add", "path": "/spec/mine", "value": 1},
        ],
        JSON_PATCH,
    ),
    "put": lambda path, body: write("PUT", path, {**body, "spec": {"mine": 1}}),
    "blind put": lambda path, body: write("PUT", path, {"metadata": {"name": "x"}, "spec": {"mine": 1}}),
    "put of a uid": lambda path, body: write(
        "PUT", path, {"metadata": {"name": "x", "uid": body["metadata"]["uid"]}, "spec": {"mine": 1}}
    ),
    "own revision": lambda path, body: patch(
        path, {"metadata": {"resourceVersion": body["metadata"]["resourceVersion"]}, "spec": {"mine": 1}}
    ),
    "own uid": lambda path, body: patch(path, {"metadata": {"uid": body["metadata"]["uid"]}, "spec": {"mine": 1}}),
    "delete": lambda path, body: write("DELETE", path),
    "delete a uid": lambda path, body: write("DELETE", path, {"preconditions": {"uid": body["metadata"]["uid"]}}),
    "delete a revision": lambda path, body: write(
        "DELETE", path, {"preconditions": {"resourceVersion": body["metadata"]["resourceVersion"]}}
    ),
    "create": lambda path, body: write("POST", path.removesuffix("/x"), {"metadata": {"name": "x"}, "spec": {}}),
    "all": lambda path, body: write("DELETE", path.removesuffix("/x"), query="labelSelector=user"),
    "status": lambda path, body: patch(path + "/status", {"status": {"mine": [1]}}),
    "status put": lambda path, body: write("PUT", path + "/status", {**body, "status": {"mine": 1}}),
    "status json": lambda path, body: patch(
        path + "/status", [{"op": "add", "path": "/status/mine", "value": 1}], JSON_PATCH
    ),
    "scale": lambda path, body: patch(path + "/scale", {"spec": {"replicas": 3}}),
    "scale put": lambda path, body: write("PUT", path + "/scale", {"metadata": {"name": "x"}, "spec": {"replicas": 3}}),
    "scale at": lambda path, body: write(
        "PUT",
        path + "/scale",
        {"metadata": {"name": "x", "resourceVersion": body["metadata"]["resourceVersion"]}, "spec": {"replicas": 3}},
    ),
}
#: Those that may remove everything around the stamp; each test takes some of them.
BOTH = ("annotations", "labels")
PARTS: dict[str, list[Callable[[str, Body], Request]]] = {
    "a part is null": [
        lambda path, body: patch(path, {"metadata": dict.fromkeys(BOTH), "spec": {"mine": 1}}),
        lambda path, body: patch(path, {"metadata": dict.fromkeys(BOTH)}, STRATEGIC),
        lambda path, body: patch(
            path, {"metadata": {key: {"$patch": "replace", "mine": "1"} for key in BOTH}}, STRATEGIC
        ),
        lambda path, body: patch(
            path, {"metadata": {key: {"$patch": "delete", "mine": "1"} for key in BOTH}}, STRATEGIC
        ),
        lambda path, body: patch(path + "/status", {"status": None}),
        lambda path, body: write("PUT", path + "/status", {**body, "status": None}),
        lambda path, body: write("PUT", path + "/status", {k: v for k, v in body.items() if k != "status"}),
    ]
}


def json_patches(place: str, sub: str = "") -> list[Callable[[str, Body], Request]]:
    """Give JSON patches of a whole part of the object."""
    remove = {"op": "remove", "path": place}
    add = {"op": "add", "path": place, "value": {"mine": "1"}}
    many: list[list[Body]] = [
        [remove],
        [{**add, "op": "replace", "value": None}],
        [{**add, "value": {}}],
        [add],
        [remove, add],
    ]
    return [lambda path, body, ops=ops: patch(path + sub, ops, JSON_PATCH) for ops in many]  # type: ignore[misc]


PARTS["JSON patch of all annotations"] = json_patches("/metadata/annotations")
PARTS["JSON patch of all labels"] = json_patches("/metadata/labels")
PARTS["JSON patch of the whole status"] = json_patches("/status", "/status")

OF_PODS: dict[str, Callable[[str, Body], Request]] = {
    "evict": lambda path, body: write("POST", path + "/eviction", {"metadata": {"name": "x"}}),
    "bind": lambda path, body: write(
        "POST", path + "/binding", {"metadata": {"name": "x"}, "target": {"kind": "Node", "name": "n"}}
    ),
}


def plain(body: Any) -> Any:
    """Give an object as it is but for the stamp, and what differs from server to server."""
    if not isinstance(body, dict) or "metadata" not in body:
        return body
    body = copy.deepcopy(body)
    metadata = body["metadata"]
    for name in ("resourceVersion", "uid"):
        metadata.pop(name, None)
    for part, names in ((metadata, ("annotations", "labels")), (body, ("status",))):
        for name in names:
            kept = {k: v for k, v in (part.pop(name, None) or {}).items() if not is_stamp(k)}
            part |= {name: kept} if kept else {}
    return body


def is_stamp(name: str) -> bool:
    return name == "fencing" or name.startswith("kopf-ha.dev/")


def shown(answer: Body) -> Any:
    """Give what an answer says, but for words that name revisions."""
    if "items" in answer:
        return [plain(item) for item in answer["items"]]
    return (
        plain({k: v for k, v in answer.items() if k != "message"}) if answer.get("kind") == "Status" else plain(answer)
    )


@pytest.mark.parametrize("way", [*MAIN, *PARTS, *OF_PODS])
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_outcome_is_the_one_without_the_fence(way: str, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from([POD] if way in OF_PODS else PATHS), "path")
    make = data.draw(st.sampled_from(PARTS[way]), "request") if way in PARTS else {**MAIN, **OF_PODS}[way]
    fenced = FakeApi()
    fenced.put(path, OBJECT, data.draw(st.sampled_from([None, stamp(6), MINE]), "recorded"))
    me = Process(fenced, MINE)
    if data.draw(st.booleans(), "asked before"):  # so that kinds and revisions are known
        me.patch(path, {"metadata": {"labels": {"before": "1"}}})
        me.send(write("PUT", path, OBJECT))
    seen = copy.deepcopy(fenced.get(path))
    edits = st.lists(st.sampled_from(EDITS), max_size=2)
    for what in data.draw(edits, "edits before"):
        do(fenced, path, what)
    other = copy.deepcopy(fenced)
    asked = make(path, seen)

    attempt = me.attempt(asked)
    done: list[Callable[[Body], Any] | str] = []
    while not attempt.ended:
        for what in data.draw(edits, "edits") if len(done) < 8 else ():
            do(fenced, path, what)
            done.append(what)
        attempt.step()
    assert attempt.error is None, repr(attempt.error)
    assert attempt.result is not None

    outcome = seen_in(fenced, attempt.result)
    expected = [without_the_fence(copy.deepcopy(other), asked, path, done, place) for place in range(len(done) + 1)]
    assert outcome in expected
    if attempt.result.status == 200 and fenced.target(path).key in fenced.objects and asked.method in ("PUT", "PATCH"):
        mine = [a.after for a in fenced.accepted if a.who == MINE.holder]
        if mine:  # otherwise it had the stamp, and the write changed nothing
            assert mine[-1] is not None
            fenced.objects[fenced.target(path).key] = mine[-1]
        recorded = fenced.recorded(path)
        assert recorded is not None
        assert (recorded.token, recorded.pod_uid) == (MINE.token, MINE.pod_uid)


def without_the_fence(
    api: FakeApi, asked: Request, path: str, edits: Sequence[Callable[[Body], Any] | str], place: int
) -> Any:
    for what in edits[:place]:
        do(api, path, what)
    answer = api.handle(asked)
    for what in edits[place:]:
        do(api, path, what)
    return seen_in(api, answer)


def seen_in(api: FakeApi, answer: Response) -> Any:
    """Give what the caller and everybody else saw in the end."""
    return answer.status, shown(answer.json), {key: plain(body) for key, body in api.objects.items()}
