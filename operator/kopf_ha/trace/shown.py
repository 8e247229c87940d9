"""What of requests and answers a trace shows. No I/O.

The fence reads names, versions, stamps, refusals, and which parts there are. That stands in the trace as it is. All
other values are replaced by marks: equal values by equal marks, under a key that lives in the process's memory alone.
So the fence decides about what is shown as it did about the original, and nobody can get the original back. Of Secrets
not even a mark is kept. Requests have no headers here, so no credentials.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2s
from typing import Any

from kopf_ha.core.asked import parse_body
from kopf_ha.core.definition import KIND as DEFINITIONS
from kopf_ha.core.fence import EXEMPT_GROUPS
from kopf_ha.core.hearing import TERMS
from kopf_ha.core.notes import is_stamp
from kopf_ha.core.refusal import FENCING, denial_of, said_by_rule
from kopf_ha.core.subresource import Part, part_of
from kopf_ha.core.target import Target, parse_path
from kopf_ha.core.wire import Request, Response
from kopf_ha.errors import Unfenced

#: Kinds that contain nothing of users, and that the fence reads whole.
_WHOLE = frozenset({DEFINITIONS, TERMS, "leases.coordination.k8s.io"})
#: Parts of an object, of options and of a list that are shown as they are.
_PLAIN = frozenset({"apiVersion", "kind", "preconditions", "dryRun", "propagationPolicy", "gracePeriodSeconds",
                    "orphanDependents"})  # fmt: skip
_METADATA = frozenset({"name", "namespace", "uid", "resourceVersion", "generateName", "generation", "finalizers",
                       "creationTimestamp", "deletionTimestamp", "continue"})  # fmt: skip
#: Stands for each value of a Secret.
HIDDEN = "#"
#: A body that neither JSON nor YAML can be read from.
UNREADABLE = b"\xff"


class Shown:
    """Makes JSON of requests and answers.

    Args:
        key: for the marks, random and never written down.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def request(self, request: Request) -> dict[str, Any]:
        """Return a request as the trace has it; `request_of` reads it."""
        target = parse_path(request.path)
        out: dict[str, Any] = {"method": request.method, "path": request.path}
        if request.query:  # what `exec` runs stands in the query
            out["query"] = self._mark(request.query) if _passes(target) else request.query
        if request.content_type:
            out["type"] = request.content_type
        if request.timeout is not None:
            out["timeout"] = request.timeout
        if request.after:
            out["after"] = request.after
        if request.body and not _passes(target):
            try:
                out["body"] = self._body(parse_body(request), target)
            except Unfenced:
                out["unreadable"] = True
        return out

    def answer(self, answer: Response, request: Request) -> dict[str, Any]:
        """Return the answer to a request as the trace has it; `answer_of` reads it."""
        target = parse_path(request.path)
        out: dict[str, Any] = {"status": answer.status}
        if answer.body and not (answer.ok and _passes(target)):
            body = answer.json
            if body is None and answer.body.strip() != b"null":
                out["unreadable"] = True
            elif isinstance(body, Mapping) and body.get("kind") == "Status" and not answer.ok:
                out["body"] = self._status(body)
            else:
                out["body"] = self._body(body, target)
        return out

    def _body(self, body: Any, target: Target | None) -> Any:
        if target is None or target.kind in _WHOLE:
            return body  # discovery and schemas are no objects
        secret = target.kind == "secrets"
        if isinstance(body, list):
            return [self._operation(op, secret) for op in body]
        if not isinstance(body, Mapping):
            return self._value(body, secret)
        return self._object(body, secret)

    def _object(self, body: Mapping[str, Any], secret: bool) -> dict[str, Any]:
        return {name: self._part(f"/{name}", value, secret) for name, value in body.items()}

    def _operation(self, op: Mapping[str, Any], secret: bool) -> dict[str, Any]:
        """Return one operation of a JSON patch."""
        path = str(op.get("path"))
        return {name: self._part(path, v, secret) if name == "value" else v for name, v in op.items()}

    def _part(self, path: str, value: Any, secret: bool) -> Any:
        """Return what stands at this JSON pointer of an object."""
        parts = [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]]
        match parts:
            case []:
                return self._object(value, secret) if isinstance(value, Mapping) else self._value(value, secret)
            case ["metadata"] if isinstance(value, Mapping):
                return {name: self._part(f"/metadata/{name}", v, secret) for name, v in value.items()}
            case ["metadata", "annotations" | "labels"] if isinstance(value, Mapping):
                return {k: v if _is_directive(k) or is_stamp(k) else self._value(v, secret) for k, v in value.items()}
            case ["metadata", "annotations" | "labels", name] if is_stamp(name):
                return value
            case ["metadata", name, *_] if name in _METADATA:
                return value
            case ["status"] if isinstance(value, Mapping):
                return {
                    k: v if _is_directive(k) or k == "fencing" else self._value(v, secret) for k, v in value.items()
                }
            case ["status", "fencing", *_]:
                return value
            case ["deleteOptions"] if isinstance(value, Mapping):
                return self._object(value, secret)
            case ["items"] if isinstance(value, list):
                return [self._object(one, secret) if isinstance(one, Mapping) else HIDDEN for one in value]
            case [name] | ["metadata", name] if name in _PLAIN or _is_directive(name):
                return value
        return self._value(value, secret)

    def _value(self, value: Any, secret: bool) -> Any:
        """Return a value with marks for all in it that says something, but what is empty, which the fence tells."""
        if isinstance(value, Mapping):
            return {k: v if _is_directive(k) else self._value(v, secret) for k, v in value.items()}
        if isinstance(value, list):
            return [self._value(one, secret) for one in value]
        if not value or value is True:
            return value
        return HIDDEN if secret else self._mark(value)

    def _mark(self, value: Any) -> str:
        return "#" + blake2s(json.dumps(value).encode(), digest_size=4, key=self._key).hexdigest()

    def _status(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return a refusal. The API server quotes in it what users wrote, so only sentences of ours are shown."""
        out = {k: body[k] for k in ("apiVersion", "kind", "status", "reason", "code") if k in body}
        if isinstance(message := body.get("message"), str):
            out["message"] = self._mark(message)
        if isinstance(details := body.get("details"), Mapping):
            named = {k: details[k] for k in ("name", "group", "kind", "uid", "retryAfterSeconds") if k in details}
            causes = details.get("causes")
            if isinstance(causes, list):
                named["causes"] = [self._cause(c, body) for c in causes if isinstance(c, Mapping)]
            out["details"] = named
        return out

    def _cause(self, cause: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
        out = {k: cause[k] for k in ("reason", "field") if k in cause}
        message = str(cause.get("message"))
        alone = {"kind": "Status", "details": {"causes": [cause]}}
        denial = denial_of(Response(403, json.dumps(alone).encode()))
        if said_by_rule(message):
            out["message"] = message
        elif denial is not None:
            said = denial.message if denial.is_ours and denial.message.startswith(FENCING) else self._mark(message)
            out["message"] = message.removesuffix(denial.message) + said
        else:
            out["message"] = self._mark(message)
        return out


def request_of(data: Mapping[str, Any]) -> Request:
    """Return the request that the trace shows."""
    return Request(
        data["method"],
        data["path"],
        data.get("query", ""),
        data.get("type", ""),
        _bytes_of(data),
        data.get("timeout"),
        data.get("after", 0.0),
    )


def answer_of(data: Mapping[str, Any]) -> Response:
    """Return the answer that the trace shows."""
    return Response(data["status"], _bytes_of(data))


def _bytes_of(data: Mapping[str, Any]) -> bytes:
    if data.get("unreadable"):
        return UNREADABLE
    return json.dumps(data["body"]).encode() if "body" in data else b""


def _is_directive(name: str) -> bool:
    """Whether this is a directive of a strategic merge patch (``$patch``), and none of the user's values."""
    return name.startswith("$")


def _passes(target: Target | None) -> bool:
    """Whether the fence looks at no body: there may be a command in it, or a token."""
    return target is not None and (part_of(target) is Part.PASSES or target.group in EXEMPT_GROUPS)


class Unmarked(Shown):
    """Makes the same JSON of requests that were made of what a trace shows: they are shown as they are."""

    def __init__(self) -> None:
        super().__init__(b"")

    def _body(self, body: Any, target: Target | None) -> Any:
        return body

    def _mark(self, value: Any) -> str:
        return str(value)
