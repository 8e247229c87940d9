"""An API server of a few dictionaries: compare-and-swap, ways to write, `/status`; and a clock turned by hand.

It behaves as the real one was seen to (tests/fencing/test_api_server_facts.py), and enforces nothing of the
fence's: no rule, no policy, unless a test adds one with `intercept`.

It takes paths apart and reads and writes stamps by code of its own, written from the API's documentation and from
docs/fencing.md: with the fence's own code both would be wrong in the same way, and no test would see it.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote

import jsonpatch
import jsonpointer

from kopf_ha.core.fence import Fence
from kopf_ha.core.grant import Grant
from kopf_ha.core.target import Target
from kopf_ha.core.token import Stamp
from kopf_ha.core.wire import AT_GATE, WAITED, Request, Response

Body = dict[str, Any]
Key = tuple[str, str, str]

LEASE = "ns/op"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"

REASONS = {403: "Forbidden", 422: "Invalid"}
FENCING = {k: {"type": "string"} for k in ("lease", "holder", "podUID")} | {"token": {"type": "integer"}}
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/ns/leases"
SERVICE = "/api/v1/namespaces/a/services/x"
POD = "/api/v1/namespaces/a/pods/x"
DEPLOYMENT = "/apis/apps/v1/namespaces/a/deployments/x"
WIDGET = "/apis/t.dev/v1/namespaces/a/widgets/x"
CHILD = "/api/v1/namespaces/a/configmaps/x"


def stamp(token: int, holder: str = "", lease: str = LEASE) -> Stamp:
    holder = holder or f"pod{token}"
    return Stamp(token, holder, lease, f"uid-{holder}")


def crd(group: str = "t.dev", plural: str = "widgets", **versions: Any) -> Body:
    """Make a definition; each version's value is the properties of its `status.fencing`, None for no such field."""
    made = []
    for name, fencing in (versions or {"v1": FENCING}).items():
        status = {"type": "object", "properties": {}}
        if fencing is not None:
            status = {"type": "object", "properties": {"fencing": {"type": "object", "properties": fencing}}}
        schema = {"openAPIV3Schema": {"type": "object", "properties": {"status": status}}}
        made.append({"name": name, "served": True, "subresources": {"status": {}}, "schema": schema})
    return {"metadata": {"name": f"{plural}.{group}"}, "spec": {"group": group, "versions": made}}


@dataclass(frozen=True)
class Place:
    """What a path is about, as the API server's RequestInfo has it."""

    group: str
    version: str
    resource: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @classmethod
    def of(cls, path: str) -> Place | None:
        """Take a path apart, which is decoded first; None for what is no resource's."""
        parts = unquote(path).strip("/").split("/")
        while parts and parts[0] not in ("api", "apis", "openapi"):
            del parts[0]  # a proxy's prefix
        match parts:
            case ["api", version, *rest]:
                group = ""
            case ["apis", group, version, *rest]:
                pass
            case _:
                return None
        namespace = ""
        if rest[:1] == ["namespaces"] and len(rest) > 2 and rest[2] not in ("status", "finalize"):
            namespace, rest = rest[1], rest[2:]
        if not rest:
            return None
        resource, name, subresource = (*rest, "", "")[:3]
        return cls(group, version, resource, namespace, name, subresource)

    @property
    def crd(self) -> str:
        return f"{self.resource}.{self.group}" if self.group else self.resource

    @property
    def key(self) -> Key:
        return self.crd, self.namespace, self.name


def as_status(mine: Stamp) -> Body:
    """Write `status.fencing`."""
    return {"lease": mine.lease, "token": mine.token, "holder": mine.holder, "podUID": mine.pod_uid}


def as_earlier(mine: Stamp) -> dict[str, str]:
    """Write the annotations of a child as earlier releases did."""
    texts = {"lease": mine.lease, "token": str(mine.token), "holder": mine.holder, "pod-uid": mine.pod_uid}
    return {f"kopf-ha.dev/{name}": text for name, text in texts.items()}


def note(lease: str, kind: str) -> str:
    """Name the annotation of one Lease on one kind."""
    return "kopf-ha.dev/stamp-" + hashlib.sha256(f"{lease} {kind}".encode()).hexdigest()[:16]


def as_note(mine: Stamp, kind: str = "configmaps") -> dict[str, str]:
    """Write that annotation."""
    return {note(mine.lease, kind): f"{mine.token} {mine.lease} {mine.pod_uid} {mine.holder}"}


def as_notes(mine: Stamp, kind: str = "configmaps") -> dict[str, str]:
    """Write the annotations of a child, in both forms."""
    return as_earlier(mine) | as_note(mine, kind)


def digest(holder: str) -> str:
    """Shorten a holder for a label."""
    return hashlib.sha256(holder.encode()).hexdigest()[:12]


def as_label(mine: Stamp) -> dict[str, str]:
    """Write the label of a Deployment."""
    return {note(mine.lease, "deployments.apps"): f"{mine.token}.{mine.pod_uid}.{digest(mine.holder)}"}


def recorded_in(body: Body, stamped: bool, kind: str = "", lease: str = LEASE) -> Stamp | None:
    """Read a stamp; None when there is none. One that is not whole is an error. A label has the holder's digest."""
    if stamped:
        raw = (body.get("status") or {}).get("fencing")
        return Stamp(raw["token"], raw["holder"], raw["lease"], raw["podUID"]) if raw is not None else None
    raw = {k: v for k, v in (body["metadata"].get("annotations") or {}).items() if k.startswith("kopf-ha.dev/")}
    found = []
    if text := (body["metadata"].get("labels") or {}).get(note(lease, "deployments.apps")):
        token, pod_uid, holder = text.split(".")
        found.append(Stamp(int(token), holder, lease, pod_uid))
    if text := raw.get(note(lease, kind)):
        token, named, pod_uid, holder = text.split(" ", 3)
        found.append(Stamp(int(token), holder, named, pod_uid))
    if "kopf-ha.dev/lease" in raw:
        earlier = (raw[f"kopf-ha.dev/{name}"] for name in ("token", "holder", "lease", "pod-uid"))
        token, holder, named, pod_uid = earlier
        found += [Stamp(int(token), holder, named, pod_uid)] if named == lease else []
    return max(found, key=lambda one: one.token, default=None)


class Conflict(Exception):
    """409."""


class Invalid(Exception):
    """422."""


@dataclass
class Accepted:
    """One write that took effect."""

    who: str
    request: Request
    before: Body | None
    after: Body | None


@dataclass
class FakeApi:
    """The server. `intercept` may answer in its place."""

    objects: dict[Key, Body] = field(default_factory=dict)
    log: list[tuple[str, Request]] = field(default_factory=list)
    accepted: list[Accepted] = field(default_factory=list)
    intercept: Callable[[Request], Response | None] = lambda request: None
    version: int = 100
    uids: int = 0

    def __post_init__(self) -> None:
        self.put(f"{CRDS}/widgets.t.dev", crd())
        self.elect(stamp(7))

    # --- the world outside of the fence

    def elect(self, leader: Stamp) -> None:
        self.put(f"{LEASES}/op", {"spec": {"holderIdentity": leader.holder, "leaseTransitions": leader.token}})

    def put(self, path: str, body: Body, recorded: Stamp | None = None) -> Body:
        """Make an object, or put another in its place, stamped as the test says."""
        place = self.place(path)
        body = copy.deepcopy(body)
        metadata = body.setdefault("metadata", {})
        metadata["name"] = place.name
        if place.namespace:
            metadata["namespace"] = place.namespace
        if recorded is not None and self.stamped(place):
            body.setdefault("status", {})["fencing"] = as_status(recorded)
        elif recorded is not None:
            deployed = place.crd == "deployments.apps"
            notes = as_label(recorded) if deployed else as_notes(recorded, place.crd)
            metadata.setdefault("labels" if deployed else "annotations", {}).update(notes)
        self.uids += 1
        metadata["uid"] = f"u{self.uids}"
        return self.store(place, body)

    def edit(self, path: str, change: Callable[[Body], Any]) -> None:
        """Change an object as a user does, conditions or not."""
        place = self.place(path)
        body = copy.deepcopy(self.objects[place.key])
        change(body)
        self.store(place, body)

    def delete(self, path: str) -> None:
        del self.objects[self.place(path).key]

    def get(self, path: str) -> Body:
        return self.objects[self.place(path).key]

    def recorded(self, path: str) -> Stamp | None:
        place = self.place(path)
        return recorded_in(self.get(path), self.stamped(place), place.crd)

    def sent(self, *methods: str) -> list[Request]:
        return [r for _, r in self.log if not methods or r.method in methods]

    # --- what a client sees

    def handle(self, request: Request, who: str = "") -> Response:
        self.log.append((who, request))
        answer = self.intercept(request)
        if answer is not None:
            return answer
        place = Place.of(request.path)
        if place is None:
            return status(404, "the server could not find the requested resource")
        try:
            return self.serve(place, request, who)
        except Conflict as e:
            return status(409, f"Operation cannot be fulfilled: {e}", "Conflict")
        except (Invalid, jsonpatch.JsonPatchException, jsonpointer.JsonPointerException) as e:
            return status(422, f"the server rejected our request: {e}", "Invalid")

    def serve(self, place: Place, request: Request, who: str) -> Response:
        old = self.objects.get(place.key) if place.name else None
        if request.method in ("DELETE", "GET") and not place.name:
            return self.all(place, request, who)
        if request.method == "POST" and place.subresource and old is not None:
            return self.act(place, old, request, who)
        if request.method == "POST" and not place.subresource:
            body = request.json
            name = body["metadata"].get("name") or f"{body['metadata']['generateName']}{self.uids + 1}"
            made = Place(place.group, place.version, place.resource, place.namespace, name)
            if made.key in self.objects:
                return status(409, "already exists", "AlreadyExists")
            if body["metadata"].get("resourceVersion"):
                return status(500, "resourceVersion should not be set on objects to be created")
            if self.has_status(made):
                body.pop("status", None)
            return self.create(made, body, request, who)
        applies = request.content_type == APPLY
        if old is None:
            if place.subresource:
                return status(404, "not found", "NotFound")
            put_creates = request.method == "PUT" and place.resource in ("services", "leases")
            if applies or put_creates:
                if request.json["metadata"].get("uid"):
                    raise Conflict("uid mismatch: no existing object was found")
                return self.create(place, request.json, request, who)
            return status(404, "not found", "NotFound")
        if request.method == "GET":
            return json_of(200, old)
        if request.method == "DELETE":
            return self.remove(place, old, request, who)
        if place.subresource == "scale":
            return self.scale(place, old, request, who)
        asked = self.changed(request, old)
        ignores_uid = request.method == "PATCH" and self.custom(place) and place.subresource == "status"
        self.check_preconditions(place, asked, old, uid=not ignores_uid)
        new = self.by_subresource(place, old, asked)
        if is_dry(request):
            return json_of(200, new)
        return json_of(200, self.accept(place, request, who, new))

    def all(self, place: Place, request: Request, who: str) -> Response:
        """List or delete a collection, as far as `labelSelector` with one label says."""
        label, _, value = parse_qs(request.query).get("labelSelector", [""])[0].partition("=")
        if request.json is not None:
            assert "labelSelector" not in request.json
        listed = []
        for (kind, namespace, name), body in sorted(self.objects.items()):
            here = (kind, namespace) == (place.crd, place.namespace)
            if here and (not label or (body["metadata"].get("labels") or {}).get(label) == value):
                listed.append(copy.deepcopy(body))
                if request.method == "DELETE" and not is_dry(request):
                    one = Place(place.group, place.version, place.resource, namespace, name)
                    self.remove(one, body, request, who)
        return json_of(200, {"kind": "List", "metadata": {"resourceVersion": str(self.version)}, "items": listed})

    def act(self, place: Place, old: Body, request: Request, who: str) -> Response:
        """Evict or bind a pod."""
        body = request.json
        if place.subresource == "eviction":
            options = {**request_options(request), **(body.get("deleteOptions") or {})}
            return self.remove(place, old, write("DELETE", request.path, options), who, request)
        assert place.subresource == "binding"
        for name in ("uid", "resourceVersion"):
            if (body.get("metadata") or {}).get(name) not in (None, old["metadata"][name]):
                raise Conflict(f"{name} in precondition")
        if old["spec"].get("nodeName"):
            raise Conflict("already assigned")
        new = copy.deepcopy(old)
        new["spec"]["nodeName"] = body["target"]["name"]
        if not is_dry(request):
            self.accept(place, request, who, new)
        return status(201, "")

    def scale(self, place: Place, old: Body, request: Request, who: str) -> Response:
        """Read or write the Scale of an object."""
        named = {name: old["metadata"][name] for name in ("name", "uid", "resourceVersion")}
        before = {"kind": "Scale", "metadata": named, "spec": {"replicas": old["spec"].get("replicas", 0)}}
        asked = self.changed(request, before)
        metadata = asked.get("metadata") or {}
        for name in ("uid", "resourceVersion"):
            if metadata.get(name) not in (None, named[name]):
                raise Conflict(f"{name} in precondition")
        new = copy.deepcopy(old)
        new["spec"]["replicas"] = asked["spec"]["replicas"]
        if not is_dry(request):
            new = self.accept(place, request, who, new)
        metadata = {name: new["metadata"][name] for name in named}
        return json_of(200, {"kind": "Scale", "metadata": metadata, "spec": {"replicas": new["spec"]["replicas"]}})

    def create(self, place: Place, body: Body, request: Request, who: str) -> Response:
        if is_dry(request):
            return json_of(201, body)
        self.uids += 1
        body["metadata"] |= {"uid": f"u{self.uids}", "name": place.name}
        return json_of(201, self.accept(place, request, who, body))

    def remove(self, place: Place, old: Body, request: Request, who: str, sent: Request | None = None) -> Response:
        """Delete an object, or mark it for that; `sent` is the request that a client sent for it."""
        options = request_options(request)
        request = sent or request
        for name, value in (options.get("preconditions") or {}).items():
            if old["metadata"][name] != value:
                raise Conflict(f"{name} in precondition")
        if options.get("dryRun") == ["All"]:
            return json_of(200, old)
        if old["metadata"].get("finalizers"):
            return json_of(200, self.accept(place, request, who, self.by_finalizers(old)))
        self.accepted.append(Accepted(who, request, old, None))
        del self.objects[place.key]
        return status(200, "")

    def by_finalizers(self, old: Body) -> Body:
        new = copy.deepcopy(old)
        new["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        return new

    def changed(self, request: Request, old: Body) -> Body:
        if request.method == "PUT":
            return dict(request.json)
        if request.content_type == JSON_PATCH:
            return dict(jsonpatch.apply_patch(copy.deepcopy(old), tested(old, request.json)))
        return dict(merged(copy.deepcopy(old), request.json, request.content_type == STRATEGIC))

    def check_preconditions(self, place: Place, asked: Body, old: Body, *, uid: bool) -> None:
        metadata = asked.get("metadata") or {}
        version = int(metadata.get("resourceVersion") or 0)
        if version == 0 and (self.custom(place) or place.resource == "leases"):
            raise Invalid("metadata.resourceVersion: must be specified for an update")
        if version not in (0, int(old["metadata"]["resourceVersion"])):
            raise Conflict("the object has been modified")
        if uid and metadata.get("uid") not in (None, old["metadata"]["uid"]):
            raise Conflict("uid mismatch")

    def by_subresource(self, place: Place, old: Body, asked: Body) -> Body:
        new = copy.deepcopy(asked if not place.subresource else old)
        if place.subresource == "ephemeralcontainers":
            new["spec"]["ephemeralContainers"] = asked["spec"].get("ephemeralContainers")
            return new
        if place.subresource:
            new["status"] = asked.get("status")
            # That of a VolumeAttachment keeps what was there.
            if not self.custom(place) and place.resource != "volumeattachments":
                new["metadata"]["annotations"] = (asked.get("metadata") or {}).get("annotations")
        elif self.has_status(place):
            new["status"] = copy.deepcopy(old.get("status"))
        new["metadata"] = {**(new.get("metadata") or {}), **{k: old["metadata"][k] for k in ("uid", "name")}}
        for part, name in ((new, "status"), (new["metadata"], "annotations"), (new["metadata"], "labels")):
            if part.get(name) is None:
                part.pop(name, None)
        return new

    def accept(self, place: Place, request: Request, who: str, new: Body) -> Body:
        old = copy.deepcopy(self.objects.get(place.key))
        if old is not None and self.is_same(place, old, new):
            return old  # a write that changes nothing makes no revision
        if new["metadata"].get("deletionTimestamp") and not new["metadata"].get("finalizers"):
            self.accepted.append(Accepted(who, request, old, None))
            del self.objects[place.key]
            return new
        stored = self.store(place, new)
        self.accepted.append(Accepted(who, request, old, copy.deepcopy(stored)))
        return stored

    def is_same(self, place: Place, old: Body, new: Body) -> bool:
        """Whether two revisions differ in nothing but their names."""
        new = copy.deepcopy(new)
        self.prune(place, new)
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
        return new == old

    def store(self, place: Place, body: Body) -> Body:
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        self.prune(place, body)
        self.objects[place.key] = body
        return body

    # --- schemas

    def versions(self, place: Place) -> Any:
        made = self.objects.get(("customresourcedefinitions.apiextensions.k8s.io", "", place.crd))
        return made["spec"]["versions"] if made else []

    def custom(self, place: Place) -> bool:
        return "." in place.group and not place.group.endswith(".k8s.io")

    def has_status(self, place: Place) -> bool:
        """Whether the status is written through a path of its own."""
        return not self.custom(place) or all("status" in v["subresources"] for v in self.versions(place))

    def stamped(self, place: Place) -> bool:
        fields = (v["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"] for v in self.versions(place))
        return self.custom(place) and self.has_status(place) and all("fencing" in f for f in fields)

    def prune(self, place: Place, body: Body) -> None:
        """Drop from `status.fencing` what the version's schema does not have."""
        for version in self.versions(place):
            fencing = (body.get("status") or {}).get("fencing")
            if version["name"] != place.version or fencing is None:
                continue
            kept = version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"].get("fencing")
            if kept is None:
                del body["status"]["fencing"]
            else:
                body["status"]["fencing"] = {k: v for k, v in fencing.items() if k in kept["properties"]}

    @staticmethod
    def place(path: str) -> Place:
        place = Place.of(path)
        assert place is not None
        return place

    @staticmethod
    def target(path: str) -> Target:
        """Give the fence's own type, for tests that tell it of an object."""
        return Target(**asdict(FakeApi.place(path)))


def is_dry(request: Request) -> bool:
    """Whether nothing is to be changed; a DELETE says so in its body, if it has one."""
    if request.method == "DELETE" and request.json is not None:
        return bool(request.json.get("dryRun"))
    return "All" in parse_qs(request.query).get("dryRun", [])


def request_options(request: Request) -> Body:
    """Give the options of a DELETE, from its body or else its query."""
    if request.method == "DELETE" and request.json is not None:
        return dict(request.json)
    return {"dryRun": ["All"]} if is_dry(request) else {}


def tested(old: Body, patch: list[Body]) -> list[Body]:
    """Leave out the tests that nothing is there and that hold: for an API server null is what is not there."""
    nothing = object()
    return [
        op
        for op in patch
        if not (
            op["op"] == "test"
            and op["value"] is None
            and jsonpointer.resolve_pointer(old, op["path"], nothing) is nothing
        )
    ]


def merged(value: Any, patch: Any, strategic: bool) -> Any:
    """Apply a merge patch (RFC 7386), with the `$patch` of a strategic one."""
    if not isinstance(patch, dict):
        return patch
    value = value if isinstance(value, dict) else {}
    directive = patch.get("$patch") if strategic else None
    if directive == "delete":
        return {}
    if directive == "replace":
        value = {}
    for k, v in patch.items():
        if v is None:
            value.pop(k, None)
        elif not (strategic and k == "$patch"):
            value[k] = merged(value.get(k), v, strategic)
    return value


def json_of(code: int, body: Any) -> Response:
    return Response(code, json.dumps(body).encode())


def status(code: int, message: str, reason: str = "", *causes: Body) -> Response:
    body = {"kind": "Status", "metadata": {}, "message": message, "reason": reason, "code": code}
    return json_of(code, body | ({"details": {"causes": list(causes)}} if causes else {}))


def denied(policy: str, message: str, *, code: int = 403, binding: str = "") -> Response:
    """What the API server answers when a policy refuses (tests/policies/test_policies_answers.py)."""
    said = f"ValidatingAdmissionPolicy '{policy}' with binding '{binding or policy}' denied request: {message}"
    return status(code, f'widgets.t.dev "x" is forbidden: {said}', REASONS[code], {"message": said})


def invalid(field: str, message: str) -> Response:
    """What it answers when a schema, or a rule in it, refuses; of a rule at the root the field is ``<nil>``."""
    cause = {"reason": "FieldValueInvalid", "message": f"Invalid value: {message}", "field": field}
    return status(422, f'Widget.t.dev "x" is invalid: {field}: Invalid value: {message}', REASONS[422], cause)


# --- those who write


class Attempt:
    """One flow, a request at a time."""

    def __init__(self, api: FakeApi, flow: Generator[Request, Response, Response], who: str) -> None:
        self.api, self.flow, self.who = api, flow, who
        self.result: Response | None = None
        self.error: Exception | None = None
        self.pending: Request | None = None
        self.waited = 0
        self._advance(lambda: next(self.flow))

    @property
    def ended(self) -> bool:
        return self.pending is None

    @property
    def waits(self) -> bool:
        """Whether it waits in front of the gate."""
        return self.pending is AT_GATE

    def step(self) -> None:
        """Let the server answer what is under way."""
        assert self.pending is not None
        self.waited += self.waits
        assert self.waited < 1000, "it waits at the gate, and nobody opens or closes it"
        answer = WAITED if self.waits else self.api.handle(self.pending, self.who)
        self._advance(lambda: self.flow.send(answer))

    def _advance(self, go: Callable[[], Request]) -> None:
        self.pending = None
        try:
            self.pending = go()
        except StopIteration as end:
            self.result = end.value
        except Exception as error:
            self.error = error

    def finish(self) -> Response:
        while not self.ended:
            self.step()
        if self.error is not None:
            raise self.error
        assert self.result is not None
        return self.result


class Process:
    """One process: its fence, its grant, its clock."""

    def __init__(self, api: FakeApi, mine: Stamp, *, left: float = 10.0, **fence: Any) -> None:
        self.api = api
        self.clock = 1000.0
        self.fence = Fence(mine.lease, **fence)
        self.grant = Grant(mine, self.clock + left)
        self.saw = False

    def attempt(self, request: Request) -> Attempt:
        flow = self.fence.flow(request, self.grant, lambda: self.clock, saw=self.saw)
        return Attempt(self.api, flow, self.grant.stamp.holder)

    def send(self, request: Request) -> Response:
        return self.attempt(request).finish()

    def patch(self, path: str, body: Any, content_type: str = MERGE, query: str = "") -> Response:
        return self.send(patch(path, body, content_type, query))

    def watch(self, path: str) -> None:
        """Let the fence know of an object what a watch would tell."""
        self.fence.known.learn(self.api.target(path), copy.deepcopy(self.api.get(path)))

    def new_term(self, mine: Stamp) -> None:
        self.grant.close("lost")
        self.grant = Grant(mine, self.clock + 10)
        self.fence.known.new_term()


def patch(path: str, body: Any, content_type: str = MERGE, query: str = "") -> Request:
    return Request("PATCH", path, query=query, content_type=content_type, body=json.dumps(body).encode())


def write(method: str, path: str, body: Any = None, query: str = "") -> Request:
    raw = b"" if body is None else json.dumps(body).encode()
    return Request(method, path, query=query, content_type="application/json", body=raw)


# What most tests of the fence begin with.

MINE = stamp(7)
EDIT = {"spec": {"mine": 1}}


def nothing_changed(api: FakeApi) -> bool:
    return api.accepted == [] and not api.sent("PATCH", "PUT", "POST", "DELETE")
