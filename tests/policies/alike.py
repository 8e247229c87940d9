"""The same requests for the model's API server, for the one of the fence's units, and for a real one.

The model's own words for a request (`model.wire`) are made HTTP here, by hand. Revisions and uids have other names on
each server, so only "the same as before" and "another one" are compared.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from kopf_ha.core.notes import as_metadata, notes_of
from kopf_ha.core.refusal import Refusal, refusal_of
from kopf_ha.core.target import parse_path
from kopf_ha.core.token import Stamp
from kopf_ha.core.wire import Request, Response
from model.server import Objects, Rules, World, is_there, mark_in, serve, version_of
from model.wire import CHILDREN, LEASE, NAMES, Mark, Wire, response
from tests.core.fake_api import CRDS, FakeApi, crd
from tests.kit.client import JSON_PATCH, MERGE, Answer, Client
from tests.policies.fenced import GROUP, LABEL, Fenced

#: What a pool gives to a claim.
GIVEN = {"10.0.0.2": "a/b/c"}
FINALIZER = "t.dev/operator"
#: The objects that take part: a pool, a claim that may leave, and a child.
POOL, CLAIM, CHILD = "pool1", "claim2", "child1"


@dataclass
class Seen:
    """What an answer and the object after it say, in the words that all servers share."""

    status: int
    refused: Refusal
    there: bool
    mark: Mark | None = None  #: token, and the number of the pod
    value: bool = False  #: whether a pool gives, a claim is leaving, a child is right
    changed: bool = False  #: whether the object has another revision than before


@dataclass
class Alike:
    """One pool, one claim and one child on all servers.

    Args:
        fenced: the real one, with the policies.
    """

    fenced: Fenced
    rules: Rules = field(default_factory=Rules)
    heard: tuple[Mark | None, ...] = (None,)  #: of which Terms the real server may have heard; None for none

    def __post_init__(self) -> None:
        fenced = self.fenced
        self.pods: tuple[Client, ...] = (fenced.old, fenced.new)
        pool, claim = fenced.pool(), fenced.claim(finalizers=[FINALIZER])
        self.paths = {POOL: pool, CLAIM: claim, CHILD: f"{fenced.children}/child-{fenced.number()}"}
        # The child's owner is a claim that nobody deletes: the real server's collector takes its time.
        self.objects: Objects = ((0, None, False), 0, (0, None, False), (0, None, False), 0, 0)
        self.versions: dict[str, dict[int, str]] = {POOL: {}, CLAIM: {}, CHILD: {}}
        self.uids: dict[int, str] = {}
        self.released = False  #: whether the claim's finalizer was removed; to remove it again is a 422, not modelled
        self.last: dict[str, dict[str, Any]] = {}  #: the metadata that each object had when it was read last
        self.fake = FakeApi()
        for plural in ("fencedpools", "fencedclaims"):
            self.fake.put(f"{CRDS}/{plural}.{GROUP}", crd(GROUP, plural))
        self.fake.put(pool, {})
        self.fake.put(claim, {"metadata": {"finalizers": [FINALIZER]}})
        for name in (POOL, CLAIM):
            self._learn(name, fenced.read(self.paths[name]))

    # --- one step

    def write(self, wire: Wire, writer: int) -> tuple[list[Seen], Seen, Seen | None]:
        """Send one request; return what the model, the real server and the units' server make of it.

        The model says what may come, for each Term of which the real server may have heard. The last server knows no
        rules of ours. So it is not asked what these refuse.
        """
        name, before, fake_before = wire[1], self._model(wire[1]), self._fake(wire[1])
        request = self._http(wire)
        fake_request = self._http_fake(request, name)
        made = [serve(self.objects, World(None, None, term), wire, writer, self.rules) for term in self.heard]
        # If line 4 refuses and another policy would, too, the API server names either.
        without = self.rules._replace(term=False)
        others = [serve(self.objects, World(None, None, term), wire, writer, without) for term in self.heard]
        made += [other for one, other in zip(made, others, strict=True) if one[2][0] == other[2][0] == 403]
        may = [self._seen(response(said), name, objects[NAMES.index(name)], before) for objects, _, said in made]
        answer = self.pods[writer](request.method, request.path, request.json, request.content_type)
        body = self.fenced.admin("GET", self.paths[name]).body
        real = self._real(name, answer, body)
        self.released |= wire[0] == "RELEASE" and answer.status == 200
        which = may.index(real) if real in may else 0
        self.objects = made[which][0]
        self._learn(name, body)
        fake = None
        if real.refused is Refusal.NONE:
            fake = self._fake_seen(name, self.fake.handle(fake_request), fake_before)
        return may, real, fake

    def user(self, what: str) -> None:
        """Let a user write, on all servers."""
        admin, at = self.fenced.admin, NAMES.index
        if what == "leave" and is_there(self.objects[at(CLAIM)]) and not self.released:
            admin.must("DELETE", self.paths[CLAIM])
            version, mark, _ = self.objects[at(CLAIM)]
            if not self.objects[at(CLAIM)][2]:
                self._put(CLAIM, (version + 1, mark, True))
            if self.fake.place(self.paths[CLAIM]).key in self.fake.objects:
                self.fake.edit(self.paths[CLAIM], lambda body: body["metadata"].update(deletionTimestamp="now"))
        elif what == "edit" and is_there(self.objects[at(POOL)]):
            version, mark, value = self.objects[at(POOL)]
            admin.must("PATCH", self.paths[POOL], {"metadata": {"labels": {"n": str(version)}}}, MERGE)
            self._put(POOL, (version + 1, mark, value))
            self.fake.edit(self.paths[POOL], lambda body: None)
        elif what == "spoil" and is_there(self.objects[at(CHILD)]):
            uid, version, mark, right = self.objects[at(CHILD)]
            admin.must("PATCH", self.paths[CHILD], {"data": {"ADDRESS": "?"}}, MERGE)
            self._put(CHILD, (uid, version + right, mark, False))
            self.fake.edit(self.paths[CHILD], lambda body: body.update(data={"ADDRESS": "?"}))
        elif what == "remove" and is_there(self.objects[at(CHILD)]):
            admin.must("DELETE", self.paths[CHILD])
            self._put(CHILD, self.objects[at(CHILD)][1])
            self.fake.delete(self.paths[CHILD])
        for name in (POOL, CLAIM, CHILD):
            self._learn(name, admin("GET", self.paths[name]).body)

    # --- requests

    def _http(self, wire: Wire) -> Request:
        """Return a request of the model's as the real server takes it."""
        name = wire[1]
        path = self.paths[name]
        match wire:
            case ("GET", _):
                return Request("GET", path)
            case ("STATUS", _, version, mark, value):
                status: dict[str, Any] = {"fencing": self._stamp(mark).as_status()} if mark else {}
                if value is not None:
                    # Entries nulled one by one would leave an empty map, a change that the model has no word for.
                    status["allocations"] = GIVEN if value else None
                return _request("PATCH", f"{path}/status", {**self._at(name, version), "status": status})
            case ("STAMP", _, was, mark, whole):
                new = self._stamp(mark).as_status()
                old = self._stamp(was).as_status() if was else None
                where, value = ("/status", {"fencing": new}) if whole else ("/status/fencing", new)
                test = {"op": "test", "path": where, "value": old}
                return _request("PATCH", f"{path}/status", [test, {"op": "add", "path": where, "value": value}])
            case ("POST", _, mark, right):
                body = self._child(name, mark, right)
                return Request("POST", path.rpartition("/")[0], "", "application/json", json.dumps(body).encode())
            case ("PATCH", _, version, mark, right):
                body = self._at(name, version)
                body.setdefault("metadata", {}).update(self._notes(mark))
                return _request("PATCH", path, body | ({} if right is None else {"data": _data(right)}))
            case ("DELETE", _, version, uid):
                given = {"resourceVersion": self._version(name, version), "uid": self._uid(uid)}
                options = {"preconditions": {k: v for k, v in given.items() if v}}
                body = {"kind": "DeleteOptions", "apiVersion": "v1", **options}
                return Request("DELETE", path, "", "application/json", json.dumps(body).encode())
            case ("RELEASE", _, version):
                ops: list[dict[str, Any]] = [{"op": "remove", "path": "/metadata/finalizers"}]
                if version is not None:
                    where = "/metadata/resourceVersion"
                    ops.append({"op": "add", "path": where, "value": self._version(name, version)})
                return _request("PATCH", path, ops)
        raise ValueError(wire)

    def _http_fake(self, request: Request, name: str) -> Request:
        """Return the same request with the names of revisions and uids that the units' server has."""
        text = request.body.decode()
        body = self.fake.objects.get(self.fake.place(self.paths[name]).key)
        current = self.last.get(name)
        if body is not None and current is not None:
            for field_ in ("resourceVersion", "uid"):
                text = text.replace(f'"{current[field_]}"', f'"{body["metadata"][field_]}"')
        return Request(request.method, request.path, request.query, request.content_type, text.encode())

    def _stamp(self, mark: Mark) -> Stamp:
        return self.pods[mark[1]].stamp(mark[0], self.fenced.lease)

    def _notes(self, mark: Mark | None) -> dict[str, Any]:
        return as_metadata(notes_of(self._stamp(mark), CHILDREN)) if mark else {}

    def _child(self, name: str, mark: Mark | None, right: bool) -> dict[str, Any]:
        meta = {"name": self.paths[name].rpartition("/")[2], "labels": dict([LABEL]), **self._notes(mark)}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": _data(right)}

    def _at(self, name: str, version: int | None) -> dict[str, Any]:
        return {} if version is None else {"metadata": {"resourceVersion": self._version(name, version)}}

    def _version(self, name: str, version: int | None) -> str:
        return "" if version is None else self.versions[name].get(version, "2")

    def _uid(self, uid: int | None) -> str:
        return "" if uid is None else self.uids.get(uid, "00000000-0000-0000-0000-000000000000")

    # --- what is seen

    def _model(self, name: str) -> Any:
        return self.objects[NAMES.index(name)]

    def _put(self, name: str, one: Any) -> None:
        at = NAMES.index(name)
        self.objects = (*self.objects[:at], one, *self.objects[at + 1 :])

    def _seen(self, answer: Response, name: str, one: Any, before: Any) -> Seen:
        target = parse_path(self.paths[name])
        assert target is not None
        seen = Seen(answer.status, refusal_of(answer, target, LEASE), is_there(one), changed=one != before)
        if is_there(one):
            seen.mark, seen.value = mark_in(name, one), bool(one[3] if name == CHILD else one[2])
        return seen

    def _real(self, name: str, answer: Answer, body: dict[str, Any]) -> Seen:
        target = parse_path(self.paths[name])
        assert target is not None
        said = Response(answer.status, json.dumps(answer.body).encode())
        before = self.last.get(name, {}).get("resourceVersion")
        there = body.get("kind") != "Status"
        seen = Seen(answer.status, refusal_of(said, target, self.fenced.lease), there)
        if there:
            seen.mark, seen.value = self._mark(body, name), _value(body, name)
        seen.changed = (body["metadata"]["resourceVersion"] if there else None) != before
        return seen

    def _learn(self, name: str, body: dict[str, Any]) -> None:
        """Note which revision and which uid of the real server are those of the model."""
        one = self._model(name)
        if body.get("kind") == "Status":
            self.last.pop(name, None)
        else:
            self.last[name] = body["metadata"]
            if is_there(one):
                self.versions[name].setdefault(version_of(name, one), body["metadata"]["resourceVersion"])
                if name == CHILD:
                    self.uids.setdefault(one[0], body["metadata"]["uid"])

    def _mark(self, body: dict[str, Any], name: str) -> Mark | None:
        if name == CHILD:
            notes = body["metadata"].get("annotations") or {}
            raw = (notes.get("kopf-ha.dev/token"), notes.get("kopf-ha.dev/pod-uid"))
        else:
            fencing = (body.get("status") or {}).get("fencing") or {}
            raw = (fencing.get("token"), fencing.get("podUID"))
        if raw[0] is None:
            return None
        return int(raw[0]), [pod.uid for pod in self.pods].index(str(raw[1]))

    def _fake(self, name: str) -> dict[str, Any] | None:
        return self.fake.objects.get(self.fake.place(self.paths[name]).key)

    def _fake_seen(self, name: str, answer: Response, before: dict[str, Any] | None) -> Seen:
        body = self._fake(name)
        seen = Seen(answer.status, Refusal.NONE, body is not None)
        if body is not None:
            seen.mark, seen.value = self._mark(body, name), _value(body, name)
        version = (before or {}).get("metadata", {}).get("resourceVersion")
        seen.changed = (body or {}).get("metadata", {}).get("resourceVersion") != version
        return seen


def _request(method: str, path: str, body: Any) -> Request:
    kind = JSON_PATCH if isinstance(body, list) else MERGE
    return Request(method, path, "", kind, json.dumps(body).encode())


def _data(right: bool) -> dict[str, str]:
    return {"ADDRESS": "10.0.0.1" if right else "?"}


def _value(body: dict[str, Any], name: str) -> bool:
    if name == POOL:
        return bool((body.get("status") or {}).get("allocations"))
    if name == CLAIM:
        return "deletionTimestamp" in body["metadata"]
    return bool((body.get("data") or {}).get("ADDRESS") == "10.0.0.1")
