"""I9 on a real API server: each write's status and object, with the fence and without, while somebody else writes, too.

Each case has two objects that are alike. One is written through the fence, the other past it.
"""

from __future__ import annotations

import base64
import copy
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from kopf_ha.core.subresource import Part, part_of
from kopf_ha.core.target import Target, parse_path
from kopf_ha.core.trial import OWN_GROUPS
from kopf_ha.core.wire import WRITES
from kopf_ha.errors import StaleLeader, Unfenced
from tests.fencing.clients import MERGE, Send, by_kubernetes
from tests.fencing.conftest import Terms, World
from tests.fencing.kinds import GROUP
from tests.kit.client import administrator

APPLY = "application/apply-patch+yaml"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
POD = {"containers": [{"name": "c", "image": "i"}]}
TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": POD}
VERBS = {"create", "update", "patch", "delete", "deletecollection"}


class Pair:
    """A client through the fence, one past it, and the same objects for both."""

    def __init__(self, world: World, terms: Terms) -> None:
        self.world, self.terms = world, terms
        terms.lease = terms.fence.known.lease = f"{world.namespace}/op"
        self.client = by_kubernetes(world.kubeconfig)

    @contextmanager
    def past(self) -> Iterator[Send]:
        """Give the client past the fence."""
        self.terms.fence.mode = "none"
        try:
            yield self.client
        finally:
            self.terms.fence.mode = "full"

    def plain(self, *request: Any) -> tuple[int, Any]:
        with self.past() as send:
            return send(*request)

    def both(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Any:
        """Send a write to object f through the fence, and to object u past it; both have to be the same.

        ``{}`` in the path and in the body stands for the name.
        """
        with self.terms.term(7):
            fenced = self.client(method, path.format("f"), named(body, "f"), content_type)
        unfenced = self.plain(method, path.format("u"), named(body, "u"), content_type)
        assert fenced[0] == unfenced[0], f"{fenced[1]}\n{unfenced[1]}"
        assert alike(fenced[1]) == alike(unfenced[1])
        return fenced

    def create(self, collection: str, body: Any) -> None:
        for name in "fu":
            status, answer = self.plain("POST", collection, named(body, name))
            assert status == 201, answer

    def edit(self, path: str, patch: Any, content_type: str = MERGE) -> None:
        """Write both as somebody else, after the fence has got to know the first one."""
        for name in "fu":
            status, answer = self.plain("PATCH", path.format(name), patch, content_type)
            assert status == 200, answer

    def known(self, path: str) -> None:
        """Let the fence stamp an object and know its revision."""
        with self.terms.term(7):
            assert self.client("PATCH", path.format("f"), {"metadata": {"labels": {"known": "1"}}}, MERGE)[0] == 200
        assert self.plain("PATCH", path.format("u"), {"metadata": {"labels": {"known": "1"}}}, MERGE)[0] == 200

    def same(self, path: str, *, there: bool = True) -> Any:
        """Compare what is there now; give the fenced one."""
        (status, fenced), (other, unfenced) = (self.plain("GET", path.format(name)) for name in "fu")
        assert status == other == (200 if there else 404)
        assert alike(fenced) == alike(unfenced)
        return fenced

    def stamped(self, path: str) -> bool:
        body = self.plain("GET", path.format("f"))[1]
        notes = body["metadata"].get("annotations") or {}
        labels = body["metadata"].get("labels") or {}
        of_a_deployment = next((v.split(".")[0] for k, v in labels.items() if k.startswith("kopf-ha.dev/stamp-")), None)
        token = ((body.get("status") or {}).get("fencing") or {}).get("token") or notes.get("kopf-ha.dev/token")
        return str(token or of_a_deployment) == "7"


@pytest.fixture
def pair(world: World, terms: Terms) -> Pair:
    return Pair(world, terms)


def named(body: Any, name: str) -> Any:
    if isinstance(body, str):
        return body.replace("{}", name)
    if isinstance(body, dict):
        return {key: named(value, name) for key, value in body.items()}
    return [named(value, name) for value in body] if isinstance(body, list) else body


#: What differs from object to object, or from time to time.
OWN = {"uid", "resourceVersion", "creationTimestamp", "managedFields", "generation", "name", "message", "clusterIP"}
OWN |= {"clusterIPs", "lastTransitionTime", "lastUpdateTime", "observedGeneration", "conditions", "token"}
OWN |= {"expirationTimestamp", "deletionTimestamp", "selfLink", "details", "fencing", "nodePort"}
OWN |= {"kubernetes.io/metadata.name", "deployment.kubernetes.io/revision"}


def alike(body: Any) -> Any:
    """Give a body without stamps, and without what is each object's own."""
    if isinstance(body, list):
        return [alike(item) for item in body]
    if not isinstance(body, dict):
        return body
    own = OWN | {"status"} if "strategy" in (body.get("spec") or {}) else OWN  # a Deployment's controller is at work
    out = {k: alike(v) for k, v in body.items() if k not in own and not k.startswith("kopf-ha.dev/")}
    return {k: v for k, v in out.items() if v != {}}


def at(world: World, plural: str, group: str = "") -> str:
    start = f"/apis/{group}/v1" if group else "/api/v1"
    return f"{start}/namespaces/{world.namespace}/{plural}"


def kinds(world: World) -> dict[str, tuple[str, Any]]:
    """Give the collection and an object of several kinds."""
    return {
        "configmap": (at(world, "configmaps"), {"metadata": {"name": "{}"}, "data": {"a": "1"}}),
        "secret": (at(world, "secrets"), {"metadata": {"name": "{}"}, "data": {"a": "MQ=="}}),
        "service": (
            at(world, "services"),
            {"metadata": {"name": "{}"}, "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}},
        ),
        "deployment": (
            at(world, "deployments", "apps"),
            {
                "metadata": {"name": "{}"},
                "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE},
            },
        ),
        "lease": (
            at(world, "leases", "coordination.k8s.io"),
            {"metadata": {"name": "{}"}, "spec": {"holderIdentity": "x"}},
        ),
        "role": (at(world, "roles", "rbac.authorization.k8s.io"), {"metadata": {"name": "{}"}, "rules": []}),
        "gadget": (
            at(world, "gadgets", GROUP),
            {"apiVersion": f"{GROUP}/v1", "kind": "Gadget", "metadata": {"name": "{}"}, "spec": {"list": [1, 2]}},
        ),
        "plain": (
            at(world, "plains", GROUP),
            {"apiVersion": f"{GROUP}/v1", "kind": "Plain", "metadata": {"name": "{}"}, "spec": {"list": [1, 2]}},
        ),
    }


KINDS = ["configmap", "secret", "service", "deployment", "lease", "role", "gadget", "plain"]
LABEL = {"metadata": {"labels": {"theirs": "1"}}}

#: A write to an object of any kind that names no revision.
WAYS: dict[str, tuple[str, Any, str]] = {
    "merge": ("PATCH", {"metadata": {"labels": {"mine": "1"}}}, MERGE),
    "list": ("PATCH", {"metadata": {"finalizers": ["test.dev/mine"]}}, MERGE),
    "json": ("PATCH", [{"op": "add", "path": "/metadata/labels/mine", "value": "1"}], JSON_PATCH),
    "json of what is not there": ("PATCH", [{"op": "remove", "path": "/metadata/labels/gone"}], JSON_PATCH),
    "json whose test fails": ("PATCH", [{"op": "test", "path": "/metadata/labels/theirs", "value": "9"}], JSON_PATCH),
    "json whose test holds": (
        "PATCH",
        [
            {"op": "test", "path": "/metadata/labels/theirs", "value": "1"},
            {"op": "replace", "path": "/metadata/labels/theirs", "value": "2"},
        ],
        JSON_PATCH,
    ),
    "json of another revision": (
        "PATCH",
        [
            {"op": "test", "path": "/metadata/resourceVersion", "value": "1"},
            {"op": "add", "path": "/metadata/labels/mine", "value": "1"},
        ],
        JSON_PATCH,
    ),
    "another revision": ("PATCH", {"metadata": {"resourceVersion": "1", "labels": {"mine": "1"}}}, MERGE),
    "another uid": ("PATCH", {"metadata": {"uid": "u", "labels": {"mine": "1"}}}, MERGE),
    "not valid": ("PATCH", {"metadata": {"labels": {"mine": "not valid!"}}}, MERGE),
    "delete": ("DELETE", None, "application/json"),
    "delete another uid": ("DELETE", {"preconditions": {"uid": "u"}}, "application/json"),
    "delete another revision": ("DELETE", {"preconditions": {"resourceVersion": "1"}}, "application/json"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_write_after_somebody_elses(world: World, pair: Pair, kind: str, way: str) -> None:
    collection, body = kinds(world)[kind]
    path = collection + "/{}"
    pair.create(collection, body)
    pair.known(path)
    pair.edit(path, LABEL)
    method, asked, content_type = WAYS[way]
    status, _ = pair.both(method, path, asked, content_type)
    pair.same(path, there=not (method == "DELETE" and status == 200))
    pair.edit(path, {"metadata": {"finalizers": None}}) if way == "list" else None


FULL = {"metadata": {"annotations": {"a": "1"}, "labels": {"a": "1"}}}
#: Writes that remove all annotations and labels, and the stamp would be among them.
EMPTYING: list[tuple[Any, str]] = [
    ({"metadata": {"annotations": None, "labels": None}}, MERGE),
    ({"metadata": {"annotations": {"$patch": "delete"}, "labels": {"$patch": "replace", "mine": "1"}}}, STRATEGIC),
    ([{"op": "remove", "path": f"/metadata/{part}"} for part in ("annotations", "labels")], JSON_PATCH),
    ([{"op": "replace", "path": "/metadata/annotations", "value": {"mine": "1"}}], JSON_PATCH),
]


@pytest.mark.parametrize("kind", ["configmap", "deployment", "gadget", "plain"])
def test_what_removes_all_leaves_the_stamp(world: World, pair: Pair, kind: str) -> None:
    collection, body = kinds(world)[kind]
    path = collection + "/{}"
    pair.create(collection, body)
    for asked, content_type in EMPTYING:
        pair.edit(path, FULL)
        status, _ = pair.both("PATCH", path, asked, content_type)
        assert status == (415 if content_type == STRATEGIC and kind in ("gadget", "plain") else 200)
        pair.same(path)
        assert pair.stamped(path)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [({"status": None}, MERGE), ([{"op": "remove", "path": "/status"}], JSON_PATCH)],
    ids=["merge", "json"],
)
def test_a_status_without_anything(world: World, pair: Pair, body: Any, content_type: str) -> None:
    collection, gadget = kinds(world)["gadget"]
    path = collection + "/{}"
    pair.create(collection, gadget)
    pair.known(path)
    with pair.terms.term(7):
        pair.client("PATCH", path.format("f") + "/status", {"status": {"phase": "a"}}, MERGE)
    pair.plain("PATCH", path.format("u") + "/status", {"status": {"phase": "a"}}, MERGE)
    assert pair.both("PATCH", path + "/status", body, content_type)[0] == 200
    assert "phase" not in pair.same(path)["status"]
    assert pair.stamped(path)


@pytest.mark.parametrize("version", [None, "", "0"])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_put_without_a_revision(world: World, pair: Pair, kind: str, known: bool, version: str | None) -> None:
    collection, body = kinds(world)[kind]
    path = collection + "/{}"
    pair.create(collection, body)
    if known:
        pair.known(path)
    pair.edit(path, LABEL)
    new = copy.deepcopy(body)
    new["metadata"] |= {"labels": {"new": "1"}, "resourceVersion": version}
    status, answer = pair.both("PUT", path, new)
    pair.same(path)
    assert status == (422 if kind in ("lease", "gadget", "plain") else 200), answer
    assert status == 422 or pair.stamped(path)


@pytest.mark.parametrize("version", [None, "5"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_put_of_what_is_not_there(world: World, pair: Pair, kind: str, version: str | None) -> None:
    """Services, Leases and Roles are made by it."""
    collection, body = kinds(world)[kind]
    body = copy.deepcopy(body)
    body["metadata"]["resourceVersion"] = version
    status, answer = pair.both("PUT", collection + "/{}", body)
    assert status == (201 if kind in ("service", "lease", "role") else 404), answer
    if status == 201:
        pair.same(collection + "/{}")
        assert pair.stamped(collection + "/{}")


@pytest.mark.parametrize("kind", ["configmap", "deployment", "gadget", "plain"])
def test_the_deletion_of_a_collection(world: World, pair: Pair, kind: str) -> None:
    collection, body = kinds(world)[kind]
    lists = {}
    for client in ("fenced", "plain"):
        for name in "abcd":
            made = named(body, name)
            made["metadata"]["labels"] = {"app": "no" if name == "d" else "yes"}
            made["metadata"]["finalizers"] = ["test.dev/kept"] if name == "c" else []
            assert pair.plain("POST", collection, made)[0] == 201
        asked = ("DELETE", collection + "?labelSelector=app%3Dyes&propagationPolicy=Background", None)
        if client == "fenced":
            with pair.terms.term(7):
                lists[client] = pair.client(*asked)
        else:
            lists[client] = pair.plain(*asked)
        left = pair.plain("GET", collection)[1]["items"]
        assert [o["metadata"]["name"] for o in left if o["metadata"]["name"] in "abcd"] == ["c", "d"]
        for name in "cd":
            pair.plain("PATCH", f"{collection}/{name}", {"metadata": {"finalizers": None}}, MERGE)
            pair.plain("DELETE", f"{collection}/{name}")
    (status, fenced), (other, plain) = lists["fenced"], lists["plain"]
    assert status == other == 200
    assert [o["metadata"]["name"] for o in fenced["items"]] == ["a", "b", "c"]
    assert alike(fenced) == alike(plain)


def test_a_deletion_of_a_collection_that_no_server_does(world: World, pair: Pair) -> None:
    """Namespaces have none: to delete them one by one would be no service."""
    with pair.terms.term(7):
        assert pair.client("DELETE", "/api/v1/namespaces?labelSelector=no%3Dsuch")[0] == 405


@pytest.mark.parametrize("kind", ["configmap", "gadget"])
def test_a_writer_that_never_rests_delays_and_keeps_nothing(world: World, pair: Pair, kind: str) -> None:
    collection, body = kinds(world)[kind]
    pair.create(collection, body)
    path, done = collection + "/f", threading.Event()
    api = administrator(world.cluster)
    edits: list[int] = []

    def edit() -> None:
        while not done.is_set():
            assert api("PATCH", path, {"metadata": {"labels": {"theirs": str(len(edits))}}}, MERGE).ok
            edits.append(1)

    other = threading.Thread(target=edit)
    other.start()
    try:
        with pair.terms.term(7):
            for n in range(20):
                body = {"metadata": {"annotations": {"mine": "x"}, "ownerReferences": []}}
                assert pair.client("PATCH", path, body, MERGE)[0] == 200
                ops = [{"op": "add", "path": "/metadata/annotations/mine", "value": str(n)}]
                assert pair.client("PATCH", path, ops, JSON_PATCH)[0] == 200
    finally:
        done.set()
        other.join()
    assert len(edits) > 20


# --- apply, generateName


@pytest.mark.parametrize("force", ["", "&force=true"])
@pytest.mark.parametrize("kind", ["configmap", "deployment", "gadget", "plain"])
def test_an_apply_with_and_without_force(world: World, pair: Pair, kind: str, force: str) -> None:
    collection, body = kinds(world)[kind]
    api = {"configmap": ("v1", "ConfigMap"), "deployment": ("apps/v1", "Deployment")}
    version, name = api.get(kind, (f"{GROUP}/v1", kind.capitalize()))
    path = collection + "/{}"
    mine = {"apiVersion": version, "kind": name, "metadata": {"name": "{}", "labels": {"a": "1"}}}
    made = {**copy.deepcopy(body), **mine}
    assert pair.both("PATCH", path + f"?fieldManager=mine{force}", made, APPLY)[0] == 201
    pair.edit(path, {"metadata": {"labels": {"a": "theirs"}}})
    status, answer = pair.both("PATCH", path + f"?fieldManager=mine{force}", made, APPLY)
    assert status == (200 if force else 409), answer
    pair.same(path)
    assert pair.both("PATCH", path + "?fieldManager=other&force=true", mine, APPLY)[0] == 200
    pair.same(path)


@pytest.mark.parametrize("kind", ["configmap", "gadget"])
def test_a_generated_name(world: World, pair: Pair, kind: str) -> None:
    collection, body = kinds(world)[kind]
    body = {**body, "metadata": {"generateName": "made-"}}
    status, answer = pair.both("POST", collection, body)
    assert status == 201
    name = answer["metadata"]["name"]
    assert name.startswith("made-")
    with pair.terms.term(7):
        assert pair.client("PATCH", f"{collection}/{name}", LABEL, MERGE)[0] == 200
    with pair.terms.term(6), pytest.raises(StaleLeader):
        pair.client("DELETE", f"{collection}/{name}")


@pytest.mark.parametrize("kind", ["configmap", "gadget"])
def test_a_creation_over_an_object_that_exists(world: World, pair: Pair, kind: str) -> None:
    collection, body = kinds(world)[kind]
    pair.create(collection, body)
    assert pair.both("POST", collection, body)[0] == 409
    pair.same(collection + "/{}")


@pytest.mark.parametrize("content_type", ["application/vnd.kubernetes.protobuf", "application/cbor"])
def test_what_cannot_be_read_is_refused_in_words(world: World, pair: Pair, content_type: str) -> None:
    with pair.terms.term(7), pytest.raises(Unfenced, match="send JSON"):
        pair.client("POST", at(world, "configmaps"), "k8s\x00", content_type)


# --- subresources


def test_every_subresource_of_the_api_server_is_decided_about(world: World, pair: Pair) -> None:
    """One that is new in a version of Kubernetes needs an entry in core/subresource.py."""
    undecided, groups = [], []
    roots = [("", "v1", "/api/v1")]
    for group in pair.plain("GET", "/apis")[1]["groups"]:
        roots += [(group["name"], v["version"], f"/apis/{v['groupVersion']}") for v in group["versions"]]
    definitions = pair.plain("GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions")[1]["items"]
    custom = {definition["spec"]["group"] for definition in definitions}
    for group, version, path in roots:
        if group not in custom and "." in group and group not in OWN_GROUPS:
            groups.append(group)
        for resource in pair.plain("GET", path)[1]["resources"]:
            plural, _, sub = resource["name"].partition("/")
            target = Target(group, version, plural, "a", "x", sub)
            if sub and VERBS & set(resource["verbs"]) and part_of(target) is None:
                undecided.append(target.full_kind)
    assert undecided == []
    assert groups == [], "groups of Kubernetes' own that core/trial.py does not know"


@pytest.mark.parametrize("way", ["merge", "json", "put", "blind put", "apply"])
@pytest.mark.parametrize("known", [True, False])
def test_scale(world: World, pair: Pair, way: str, known: bool) -> None:
    collection, body = kinds(world)["deployment"]
    path = collection + "/{}"
    pair.create(collection, body)
    if known:
        pair.known(path)
    pair.edit(path, LABEL)
    scale: Any = {"metadata": {"name": "{}", "namespace": world.namespace}, "spec": {"replicas": 3}}
    applied = {"apiVersion": "autoscaling/v1", "kind": "Scale", **scale}
    method, asked, content_type = {
        "merge": ("PATCH", {"spec": {"replicas": 3}}, MERGE),
        "json": ("PATCH", [{"op": "replace", "path": "/spec/replicas", "value": 3}], JSON_PATCH),
        "put": ("PUT", scale, "application/json"),
        "blind put": ("PUT", {**scale, "metadata": {"name": "{}"}}, "application/json"),
        "apply": ("PATCH", applied, APPLY),
    }[way]
    query = "?fieldManager=mine&force=true" if way == "apply" else ""
    status, answer = pair.both(method, path + "/scale" + query, asked, content_type)
    assert (status, answer["spec"]["replicas"]) == (200, 3)
    assert pair.same(path)["spec"]["replicas"] == 3
    assert pair.stamped(path)
    pair.edit(path, LABEL)
    with pair.terms.term(6), pytest.raises(StaleLeader):
        pair.client("PATCH", path.format("f") + "/scale", {"spec": {"replicas": 1}}, MERGE)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    "sub", ["eviction", "binding", "bindings", "ephemeralcontainers", "resize", "status", "delete"]
)
def test_pods(world: World, pair: Pair, sub: str, known: bool) -> None:
    collection = at(world, "pods")
    path = collection + "/{}"
    pair.create(collection, {"metadata": {"name": "{}"}, "spec": {**POD, "schedulerName": "nobody"}})
    if known:
        pair.known(path)
    pair.edit(path, LABEL)
    binding = {"metadata": {"name": "{}"}, "target": {"kind": "Node", "name": "n"}}
    debug = {"name": "debug", "image": "i", "terminationMessagePolicy": "File"}
    resources = {"requests": {"cpu": "1"}}
    method, where, asked, content_type = {
        "eviction": ("POST", path + "/eviction", {"metadata": {"name": "{}"}}, "application/json"),
        "binding": ("POST", path + "/binding", binding, "application/json"),
        "bindings": ("POST", at(world, "bindings"), binding, "application/json"),
        "ephemeralcontainers": (
            "PATCH",
            path + "/ephemeralcontainers",
            {"spec": {"ephemeralContainers": [debug]}},
            STRATEGIC,
        ),
        "resize": (
            "PATCH",
            path + "/resize",
            {"spec": {"containers": [{"name": "c", "resources": resources}]}},
            STRATEGIC,
        ),
        "status": ("PATCH", path + "/status", {"status": {"message": "mine", "reason": "mine"}}, MERGE),
        "delete": ("DELETE", path + "?gracePeriodSeconds=0", None, "application/json"),
    }[sub]
    status, answer = pair.both(method, where, asked, content_type)
    assert status in (200, 201) or sub == "resize", answer
    gone = sub in ("eviction", "delete")
    pair.same(path, there=not gone)
    if not gone:
        with pair.terms.term(6), pytest.raises(StaleLeader):
            pair.client(method, where.format("f"), named(asked, "f"), content_type)


def test_the_approval_of_a_signing_request(world: World, pair: Pair) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody")])
    made = x509.CertificateSigningRequestBuilder().subject_name(name)
    pem = made.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    start = f"/apis/certificates.k8s.io/v1/certificatesigningrequests/{secrets.token_hex(4)}-"
    spec = {"request": base64.b64encode(pem).decode(), "signerName": "test.dev/x", "usages": ["client auth"]}
    collection, _, prefix = start.rpartition("/")
    pair.create(collection, {"metadata": {"name": prefix + "{}"}, "spec": spec})
    path = start + "{}"
    try:
        condition = {"type": "Approved", "status": "True", "reason": "r", "message": "m"}
        pair.edit(path, LABEL)
        for sub in ("approval", "status"):
            asked = {"status": {"conditions": [condition]}}
            assert pair.both("PATCH", f"{path}/{sub}", asked, MERGE)[0] == 200
        assert pair.stamped(path)
        pair.same(path)
    finally:
        for which in "fu":
            pair.plain("DELETE", path.format(which))


def test_the_end_of_a_namespace(world: World, pair: Pair) -> None:
    start = f"/api/v1/namespaces/{secrets.token_hex(4)}-"
    prefix = start.rpartition("/")[2]
    pair.create("/api/v1/namespaces", {"metadata": {"name": prefix + "{}"}, "spec": {"finalizers": ["test.dev/x"]}})
    path = start + "{}"
    pair.edit(path, LABEL)
    assert (
        pair.both("PUT", path + "/finalize", {"metadata": {"name": prefix + "{}"}, "spec": {"finalizers": []}})[0]
        == 200
    )
    for name in "fu":
        pair.plain("DELETE", path.format(name))


def test_a_token_of_a_service_account(world: World, pair: Pair) -> None:
    pair.create(at(world, "serviceaccounts"), {"metadata": {"name": "{}"}})
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": ["a"]}}
    assert pair.both("POST", at(world, "serviceaccounts") + "/{}/token", asked)[0] == 201
    assert not pair.stamped(at(world, "serviceaccounts") + "/{}")


def test_what_passes_writes_no_object() -> None:
    for path in (
        "/api/v1/namespaces/a/pods/x/exec",
        "/api/v1/nodes/x/proxy/run",
        "/api/v1/namespaces/a/services/x/proxy",
    ):
        target = parse_path(path)
        assert target is not None
        assert part_of(target) is Part.PASSES
    assert "GET" not in WRITES, "so what is opened with a GET is not asked about"


# --- facts


def test_the_precondition_of_a_json_patch_at_its_end(world: World, pair: Pair) -> None:
    """The operations are tried on the newest revision first; then the revision is compared."""
    path = at(world, "configmaps") + "/{}"
    pair.create(at(world, "configmaps"), {"metadata": {"name": "{}"}, "data": {"a": "1"}})
    outdated = {"op": "add", "path": "/metadata/resourceVersion", "value": "1"}
    add, fails = {"op": "add", "path": "/data/b", "value": "1"}, {"op": "remove", "path": "/data/gone"}
    assert pair.plain("PATCH", path.format("u"), [add, outdated], JSON_PATCH)[0] == 409
    assert pair.plain("PATCH", path.format("u"), [fails, outdated], JSON_PATCH)[0] == 422
    now = pair.plain("GET", path.format("u"))[1]["metadata"]["resourceVersion"]
    assert pair.plain("PATCH", path.format("u"), [add, {**outdated, "value": now}], JSON_PATCH)[0] == 200


def test_a_put_of_a_uid_makes_nothing(world: World, pair: Pair) -> None:
    collection, body = kinds(world)["service"]
    body = named(body, "u")
    body["metadata"] |= {"uid": "u", "resourceVersion": "5"}
    assert pair.plain("PUT", collection + "/u", body)[0] == 409
    del body["metadata"]["uid"]
    assert pair.plain("PUT", collection + "/u", body)[0] == 201, "with the revision alone it would"
