"""Between the core's requests and answers, which are HTTP with JSON, and the model's, which are small tuples.

An object is a tuple, so that a state of the model can be hashed:

- a pool: ``(version, stamp, given)``; it gives its one address to its claim or to nobody
- a claim: ``(version, stamp, leaving)``; a finalizer keeps it while it is leaving
- a child: ``(uid, version, stamp, right)``; whether it says what its claim's pool says
- a stamp: ``(token, holder)``, the holder being the number of a replica; None for none

What the model cannot read is an error of the model, `NotModelled`: nothing that the core sends is passed over.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from kopf_ha.core.asked import VERSION_PATH
from kopf_ha.core.hearing import term_path
from kopf_ha.core.lease import lease_path
from kopf_ha.core.notes import ANNOTATION_HOLDER, ANNOTATION_TOKEN, as_metadata, notes_of
from kopf_ha.core.refusal import RULE_MESSAGE
from kopf_ha.core.token import Stamp
from kopf_ha.core.wire import JSON_PATCH, MERGE_PATCH, Request, Response

#: ``(token, replica)``.
Mark = tuple[int, int]
#: One request as the model's API server takes it: its verb, the object's name, and what it says.
Wire = tuple[Any, ...]
#: One answer: the HTTP status, and what it says.
Answer = tuple[Any, ...]

LEASE = "ns/op"
GROUP = "t.dev"
POOLS, CLAIMS, CHILDREN = f"pools.{GROUP}", f"claims.{GROUP}", "configmaps"
ADDRESS = "10.0.0.1"
#: The deciding objects, the claims and the children: the first of each belong together, and so do the second.
NAMES = ("pool1", "pool2", "claim1", "claim2", "child1", "child2")

LEASE_PATH, TERM_PATH = lease_path("ns", "op"), term_path("ns", "op")
PATHS = {
    **{name: f"/apis/{GROUP}/v1/pools/{name}" for name in NAMES[:2]},
    **{name: f"/apis/{GROUP}/v1/namespaces/a/claims/{name}" for name in NAMES[2:4]},
    **{name: f"/api/v1/namespaces/a/configmaps/{name}" for name in NAMES[4:]},
    "pools": f"/apis/{GROUP}/v1/pools",
    "claims": f"/apis/{GROUP}/v1/namespaces/a/claims",
    "lease": LEASE_PATH,
    "term": TERM_PATH,
}
_OF_PATH = {path: name for name, path in PATHS.items()}
_CREATES = "/api/v1/namespaces/a/configmaps"


class NotModelled(Exception):
    """The core sent a request that the model does not know."""


def holder(replica: int) -> str:
    """Return the holder identity of a replica."""
    return f"pod-{replica}_{pod_uid(replica)}_r"


def pod_uid(replica: int) -> str:
    """Return the uid of a replica's pod."""
    return f"uid-{replica}"


def replica_of(text: str) -> int:
    """Return the replica that a holder identity or a pod's uid names; -1 for nobody."""
    return int(text.split("_")[0].rpartition("-")[2]) if text else -1


def stamp_of(mark: Mark) -> Stamp:
    """Return a stamp as the core has it."""
    return Stamp(mark[0], holder(mark[1]), LEASE, pod_uid(mark[1]))


def mark_of(raw: Any) -> Mark | None:
    """Return a stamp of `status.fencing` as the model has it."""
    return (int(raw["token"]), replica_of(raw["holder"])) if raw else None


# --- answers


def body_of(name: str, one: tuple[Any, ...]) -> dict[str, Any]:
    """Return an object as the API server shows it."""
    metadata: dict[str, Any] = {"name": name, "uid": f"u-{name}"}
    if name.startswith("child"):
        uid, version, mark, right = one
        metadata |= {"uid": f"u-{name}-{uid}", "namespace": "a", "resourceVersion": str(version)}
        if mark:
            metadata |= as_metadata(notes_of(stamp_of(mark), CHILDREN))
        return {"metadata": metadata, "data": {"ADDRESS": ADDRESS if right else "?"}}
    version, mark, value = one
    metadata["resourceVersion"] = str(version)
    if name.startswith("claim"):
        metadata["namespace"] = "a"
        metadata["finalizers"] = [f"{GROUP}/operator"]
        if value:
            metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    body: dict[str, Any] = {"metadata": metadata}
    if mark:
        body["status"] = {"fencing": stamp_of(mark).as_status()}
    if value and name.startswith("pool"):
        body.setdefault("status", {})["allocations"] = {ADDRESS: name.replace("pool", "claim")}
    return body


def response(answer: Answer) -> Response:
    """Return an answer of the model's API server as the core takes it."""
    code, *what = answer
    match what:
        case ["object", name, one]:
            return Response(code, json.dumps(body_of(name, one)).encode())
        case ["list", items]:
            return Response(code, json.dumps({"items": [body_of(name, one) for name, one in items]}).encode())
        case ["lease", who, token]:
            spec = {"holderIdentity": holder(who) if who >= 0 else "", "leaseTransitions": token}
            return Response(code, json.dumps({"spec": spec}).encode())
        case ["term", token, who]:
            spec = {"token": token, "holder": holder(who), "podUID": pod_uid(who)}
            return Response(code, json.dumps({"spec": spec}).encode())
        case ["rule"]:
            return _status(code, {"field": "<nil>", "message": f"Invalid value: {RULE_MESSAGE}"})
        case ["policy", name, message]:
            policy = f"kopf-ha-op-{name}"
            said = f"ValidatingAdmissionPolicy '{policy}' with binding '{policy}' denied request: {message}"
            return _status(code, {"message": said})
        case ["absent", name]:
            body = {"kind": "Status", "reason": "NotFound", "code": code, "details": {"name": name}}
            return Response(code, json.dumps(body).encode())
    return _status(code)


def _status(code: int, *causes: dict[str, str]) -> Response:
    body: dict[str, Any] = {"kind": "Status", "message": "refused", "code": code}
    return Response(code, json.dumps(body | ({"details": {"causes": causes}} if causes else {})).encode())


# --- requests


def patch(name: str, body: Any, *, status: bool = False) -> Request:
    """Return the request by which the model's operator changes an object."""
    kind = JSON_PATCH if isinstance(body, list) else MERGE_PATCH
    path = PATHS[name] + ("/status" if status else "")
    return Request("PATCH", path, content_type=kind, body=json.dumps(body).encode())


def wire_of(request: Request) -> Wire:
    """Return a request as the model's API server takes it.

    Raises:
        NotModelled: the model does not know such a request.
    """
    path, status = request.path.removesuffix("/status"), request.path.endswith("/status")
    body = request.json
    if request.method == "GET" and path in _OF_PATH:
        return ("GET", _OF_PATH[path])
    if request.method == "POST" and path == _CREATES:
        return ("POST", body["metadata"]["name"], _noted(body), _right(body))
    name = _OF_PATH.get(path, "")
    if request.method == "DELETE" and name:
        asked = body.get("preconditions") or {}
        return ("DELETE", name, _number(asked.get("resourceVersion")), _number(asked.get("uid")))
    if request.method == "PATCH" and name == "term":
        return ("TERM", name, (body["spec"]["token"], replica_of(body["spec"]["holder"])))
    if request.method == "PATCH" and status and request.is_json_patch:
        test, add = body
        whole = test["path"] == "/status"
        was = test["value"] if whole else mark_of(test["value"])
        new = add["value"]["fencing"] if whole else add["value"]
        if (test["op"], add["op"]) == ("test", "add") and not (whole and was):
            return ("STAMP", name, was, mark_of(new), whole)
    elif request.method == "PATCH" and status:
        given = body.get("status") or {}
        version = _number((body.get("metadata") or {}).get("resourceVersion"))
        value = bool(given["allocations"]) if "allocations" in given else None
        return ("STATUS", name, version, mark_of(given.get("fencing")), value)
    elif request.method == "PATCH" and name.startswith("child") and request.is_merge_patch:
        return ("PATCH", name, _number(body["metadata"].get("resourceVersion")), _noted(body), _right(body))
    elif request.method == "PATCH" and name.startswith("claim") and request.is_json_patch:
        removed = {"op": "remove", "path": "/metadata/finalizers"}
        rest = [op for op in body if op != removed]
        if len(rest) < len(body) and all(op["path"] == VERSION_PATH for op in rest):
            return ("RELEASE", name, _number(rest[0]["value"] if rest else None))
    raise NotModelled(f"{request.method} {request.path} {request.body!r}")


def _noted(body: dict[str, Any]) -> Mark | None:
    notes = body["metadata"].get("annotations") or {}
    return (int(notes[ANNOTATION_TOKEN]), replica_of(notes[ANNOTATION_HOLDER])) if ANNOTATION_TOKEN in notes else None


def _right(body: dict[str, Any]) -> bool | None:
    return body["data"]["ADDRESS"] == ADDRESS if "data" in body else None


def _number(text: Any) -> int | None:
    """Return the number of a resourceVersion or of a child's uid."""
    return int(str(text).rpartition("-")[2]) if text and str(text)[-1].isdigit() else None


@cache
def described(wire: Wire) -> str:
    """Return a request in words."""
    match wire:
        case ("GET", name):
            return f"read of {name}"
        case ("TERM", _, (token, _)):
            return f"write of the Term with token {token}"
        case ("STAMP", name, _, (token, _), _):
            return f"stamp of {name} with token {token}"
        case ("STATUS", name, _, mark, None):
            return f"stamp of {name}" + (f" with token {mark[0]}" if mark else "")
        case ("STATUS", name, _, mark, given):
            what = "gives the address" if given else "takes the address back"
            return f"write of {name} that {what}" + (f", token {mark[0]}" if mark else ", without a stamp")
        case ("POST", name, mark, _):
            return f"creation of {name}" + (f" with token {mark[0]}" if mark else "")
        case ("PATCH", name, _, mark, right):
            return f"{'change' if right is not None else 'stamp'} of {name}" + (f", token {mark[0]}" if mark else "")
        case ("DELETE", name, *_):
            return f"deletion of {name}"
        case ("RELEASE", name, _):
            return f"removal of {name}'s finalizer"
    return str(wire)
