"""The API server that the fence's units use answers as the real one: conditions, ways to write, `/status`, finalizers.

The same requests go to both, by an account that no policy knows. Revisions and uids have other names on each, so "the
one of now" and "an earlier one" is what a request says. FAKE_API_EXAMPLES=1000 tries more lists than the default.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from kopf_ha.core.wire import Request, Response
from tests.core.fake_api import CRDS, FakeApi, crd
from tests.fencing.conftest import World
from tests.fencing.kinds import GROUP
from tests.kit.client import APPLY, JSON_PATCH, MERGE, administrator

EXAMPLES = int(os.environ.get("FAKE_API_EXAMPLES", "25"))
VERSION = "/metadata/resourceVersion"

Body = dict[str, Any]
#: Makes the body of a request, with a resourceVersion and a uid; None for none.
Make = Callable[[str | None, str | None], Any]


def meta(version: str | None, uid: str | None, **more: Any) -> Body:
    given = {"name": "x", "resourceVersion": version, "uid": uid}
    return {"metadata": {k: v for k, v in given.items() if v is not None} | more}


#: By name: the method, the subresource, the content type, and the body.
WRITES: dict[str, tuple[str, str, str, Make]] = {
    "create": ("POST", "", "application/json", lambda v, u: meta(None, None, labels={"a": "1"})),
    "merge": ("PATCH", "", MERGE, lambda v, u: meta(v, u, labels={"a": "2", "b": "1"})),
    "the same merge": ("PATCH", "", MERGE, lambda v, u: meta(v, u, labels={"a": "2", "b": "1"})),
    "null": ("PATCH", "", MERGE, lambda v, u: meta(v, u, labels={"a": None})),
    "nothing": ("PATCH", "", MERGE, lambda v, u: meta(v, u)),
    "apply": ("PATCH", "", APPLY, lambda v, u: meta(v, u, labels={"c": "1"})),
    "add": ("PATCH", "", JSON_PATCH, lambda v, u: [{"op": "add", "path": "/metadata/labels", "value": {"a": "3"}}]),
    "add at": (
        "PATCH", "", JSON_PATCH,
        lambda v, u: [{"op": "add", "path": "/metadata/labels", "value": {"a": "4"}}, *revision("add", v)],
    ),
    "test": (
        "PATCH", "", JSON_PATCH,
        lambda v, u: [*revision("test", v), {"op": "add", "path": "/metadata/labels", "value": {"a": "5"}}],
    ),
    "test of a label": (
        "PATCH", "", JSON_PATCH,
        lambda v, u: [
            {"op": "test", "path": "/metadata/labels/a", "value": "2"},
            {"op": "replace", "path": "/metadata/labels/a", "value": "6"},
        ],
    ),
    "remove": ("PATCH", "", JSON_PATCH, lambda v, u: [{"op": "remove", "path": "/metadata/labels/a"}]),
    "put": ("PUT", "", "application/json", lambda v, u: meta(v, u, labels={"put": "1"})),
    "delete": ("DELETE", "", "application/json", lambda v, u: preconditions(v, u)),
    "finalizer": ("PATCH", "", MERGE, lambda v, u: meta(v, u, finalizers=["t.dev/x"])),
    "no finalizer": ("PATCH", "", MERGE, lambda v, u: meta(v, u, finalizers=None)),
    "status": ("PATCH", "/status", MERGE, lambda v, u: {**meta(v, u), "status": {"a": "1"}}),
    "status by the object": ("PATCH", "", MERGE, lambda v, u: {**meta(v, u), "status": {"a": "2"}}),
    "annotations by the status": ("PATCH", "/status", MERGE, lambda v, u: meta(v, u, annotations={"a": "9"})),
    "stamp": (
        "PATCH", "/status", MERGE,
        lambda v, u: {**meta(v, u), "status": {"fencing": {"lease": "n/l", "token": 7, "holder": "h", "podUID": "p"}}},
    ),
    "status put": ("PUT", "/status", "application/json", lambda v, u: {**meta(v, u), "status": {"a": "3"}}),
}  # fmt: skip
#: Of a custom resource nothing is left of these.
DROPPED = ("annotations by the status", "status by the object")
OF_STATUS = tuple(name for name, write in WRITES.items() if "status" in name or write[1])


def revision(op: str, version: str | None) -> list[Body]:
    return [] if version is None else [{"op": op, "path": VERSION, "value": version}]


def preconditions(version: str | None, uid: str | None) -> Body:
    named = {"resourceVersion": version, "uid": uid}
    given = {k: v for k, v in named.items() if v is not None}
    return {"kind": "DeleteOptions", "apiVersion": "v1"} | ({"preconditions": given} if given else {})


class Side:
    """One of the two servers, with one object.

    Args:
        send: sends a request.
        path: of the object.
        kind: its API version and kind.
    """

    def __init__(self, send: Callable[[Request], Response], path: str, kind: Body) -> None:
        self.send, self.path, self.kind = send, path, kind
        self.versions, self.uids = ["1"], ["00000000-0000-0000-0000-000000000000"]

    def write(self, name: str, version: str, uid: str) -> Body:
        """Send a write; tell what came of it in words that both servers have."""
        method, subresource, content_type, make = WRITES[name]
        body = make(self.named(self.versions, version), self.named(self.uids, uid))
        if isinstance(body, dict) and method != "DELETE":
            body = self.kind | body
            body["metadata"]["name"] = self.path.rpartition("/")[2]
        path = self.path.rpartition("/")[0] if method == "POST" else self.path + subresource
        query = "fieldManager=f&force=true" if content_type == APPLY else ""
        before = self.read()
        answer = self.send(Request(method, path, query, content_type, json.dumps(body).encode()))
        after = self.read()
        return {"status": answer.status, **told(before, after)}

    def read(self) -> Body | None:
        answer = self.send(Request("GET", self.path))
        if answer.status == 404:
            return None
        found: Body = answer.json
        for names, key in ((self.versions, "resourceVersion"), (self.uids, "uid")):
            if found["metadata"][key] != names[-1]:
                names.append(found["metadata"][key])
        return found

    @staticmethod
    def named(names: list[str], which: str) -> str | None:
        return {"none": None, "now": names[-1], "earlier": names[-2] if len(names) > 1 else "1"}[which]


def told(before: Body | None, after: Body | None) -> Body:
    """Tell of an object what both servers have to agree about."""
    if after is None:
        return {"there": False}
    metadata, old = after["metadata"], (before or {}).get("metadata", {})
    return {
        "there": True,
        "changed": metadata["resourceVersion"] != old.get("resourceVersion"),
        "another": metadata["uid"] != old.get("uid"),
        "leaving": "deletionTimestamp" in metadata,
        "finalizers": metadata.get("finalizers") or [],
        "labels": metadata.get("labels") or {},
        "annotations": metadata.get("annotations") or {},
        "status": after.get("status") or {},
    }


def run(world: World, custom: bool, steps: list[tuple[str, str, str]]) -> None:
    name = f"x-{secrets.token_hex(4)}"
    path = world.path("gadgets", name) if custom else world.maps(name)
    api_version, kind = (f"{GROUP}/v1", "Gadget") if custom else ("v1", "ConfigMap")
    admin, fake = administrator(world.cluster), FakeApi()
    fake.put(f"{CRDS}/gadgets.{GROUP}", crd(GROUP, "gadgets"))

    def really(request: Request) -> Response:
        query = f"?{request.query}" if request.query else ""
        body = request.json if request.body else None
        answer = admin(request.method, request.path + query, body, request.content_type or "application/json")
        return Response(answer.status, json.dumps(answer.body).encode())

    sides = [Side(send, path, {"apiVersion": api_version, "kind": kind}) for send in (really, fake.handle)]
    for step in [("create", "none", "none"), *steps]:
        real, units = (side.write(*step) for side in sides)
        if step[0] in DROPPED:
            # The real one notes who wrote last, although it drops what they wrote.
            units["changed"] = real["changed"]
        assert units == real, f"{step} of {kind}: the units' server has {units}, the API server {real}"


WHICH = st.sampled_from(["none", "none", "now", "earlier"])
STEP = st.tuples(st.sampled_from(sorted(WRITES)), WHICH, st.sampled_from(["none", "none", "none", "now", "earlier"]))


@settings(
    max_examples=EXAMPLES, derandomize=True, database=None, deadline=None, phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(custom=st.booleans(), steps=st.lists(STEP, min_size=3, max_size=10))
def test_the_same_requests_have_the_same_answers(world: World, custom: bool, steps: list[tuple[str, str, str]]) -> None:
    run(world, custom, [step for step in steps if custom or step[0] not in OF_STATUS])


#: docs/facts.md, a list for each.
FACTS: dict[str, list[tuple[str, str, str]]] = {
    "a conditional write": [("merge", "now", "none"), ("merge", "earlier", "none"), ("null", "earlier", "now")],
    "an apply at a revision or a uid": [
        ("apply", "now", "now"), ("apply", "earlier", "none"), ("apply", "none", "earlier"),
    ],
    "an apply makes what is not there": [
        ("delete", "none", "none"), ("apply", "none", "none"), ("apply", "now", "now"),
    ],
    "an apply with a uid makes nothing": [("delete", "none", "none"), ("apply", "none", "now")],
    "a PUT without a revision": [("put", "none", "none"), ("put", "now", "none"), ("put", "earlier", "none")],
    "a PUT of what is not there": [("delete", "none", "none"), ("put", "none", "none"), ("put", "now", "none")],
    "preconditions of a deletion": [
        ("delete", "earlier", "none"), ("delete", "now", "earlier"), ("delete", "earlier", "now"),
        ("delete", "now", "now"), ("delete", "now", "now"),
    ],
    "JSON patches and revisions": [
        ("test", "earlier", "none"), ("add at", "earlier", "none"), ("add at", "now", "none"), ("test", "now", "none"),
        ("remove", "none", "none"), ("remove", "none", "none"), ("test of a label", "none", "none"),
    ],
    "finalizers": [
        ("finalizer", "now", "none"), ("delete", "now", "none"), ("merge", "none", "none"), ("delete", "none", "none"),
        ("no finalizer", "earlier", "none"), ("no finalizer", "now", "none"), ("create", "none", "none"),
    ],
    "nothing changes": [("merge", "none", "none"), ("the same merge", "none", "none"), ("nothing", "now", "now")],
    "a new object of the name": [("delete", "none", "none"), ("create", "none", "none"), ("delete", "none", "earlier")],
}  # fmt: skip
FACTS_OF_STATUS: dict[str, list[tuple[str, str, str]]] = {
    "the status has a path of its own": [
        ("status by the object", "none", "none"), ("status", "now", "none"), ("status", "earlier", "none"),
        ("annotations by the status", "none", "none"), ("status put", "now", "none"), ("status put", "none", "none"),
        ("put", "now", "none"),
    ],
    "a stamp stays beside other fields": [("stamp", "now", "none"), ("status", "none", "none"), ("put", "now", "none")],
}  # fmt: skip


@pytest.mark.parametrize("custom", [True, False], ids=["custom", "ConfigMap"])
@pytest.mark.parametrize("steps", FACTS.values(), ids=FACTS)
def test_facts(world: World, custom: bool, steps: list[tuple[str, str, str]]) -> None:
    run(world, custom, steps)


@pytest.mark.parametrize("steps", FACTS_OF_STATUS.values(), ids=FACTS_OF_STATUS)
def test_facts_of_the_status(world: World, steps: list[tuple[str, str, str]]) -> None:
    run(world, True, steps)
