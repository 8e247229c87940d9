"""The shapes of a write, and the cells: which write is made by which client from which place.

A cell is an object that the operator handles. Its spec names the shape, the client and the place. The write goes to the
object itself or to a child: a ConfigMap, a Deployment or a Pod of its name. The operator imports this module, so it
imports nothing of kopf-ha.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

GROUP = "parity.kopf-ha.test"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
#: The kinds by their plurals, and where they are.
KINDS = {
    "cells": ("Cell", f"{GROUP}/v1"),
    "looses": ("Loose", f"{GROUP}/v1"),
    "configmaps": ("ConfigMap", "v1"),
    "deployments": ("Deployment", "apps/v1"),
    "pods": ("Pod", "v1"),
}
#: The kinds that a controller of the cluster writes, too.
CONTROLLED = ("deployments", "pods")
#: What the operator changes in an object that it reads and sends back, what the rival changes, and how a child is made.
MINE: dict[str, Any] = {"configmaps": {"data": {"mine": "1"}}, "deployments": {"spec": {"minReadySeconds": 5}}}
THEIRS: dict[str, Any] = {
    "configmaps": {"data": {"theirs": "2"}},
    "deployments": {"spec": {"revisionHistoryLimit": 3}},
    "pods": {},
}
_CONTAINER = {"name": "a", "image": "a:1"}
_TEMPLATE = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [_CONTAINER, {"name": "b", "image": "b:1"}]}}
_DEPLOYMENT = {"replicas": 0, "selector": {"matchLabels": {"app": "a"}}, "template": _TEMPLATE}
CHILDREN: dict[str, Any] = {
    "configmaps": {"data": {"theirs": "1"}},
    "deployments": {"spec": _DEPLOYMENT},
    "pods": {"spec": {"automountServiceAccountToken": False, "schedulerName": "nobody", "containers": [_CONTAINER]}},
}


@dataclass(frozen=True)
class Write:
    """One request, as a client's user would put it.

    Args:
        verb: ``get``, ``create``, ``patch``, ``replace``, ``delete``, or ``collection`` for its deletion.
        plural: of the object.
        name: of the object; of a collection, the value of its label ``cell``.
        body: what is sent.
        content_type: of a patch.
        sub: the subresource.
        force: of an apply.
    """

    verb: str
    plural: str
    name: str
    body: Any = None
    content_type: str = ""
    sub: str = ""
    force: bool = False


@dataclass(frozen=True)
class Shape:
    """A shape of write.

    Args:
        verb, content_type, sub, force: as of `Write`.
        status: the API server's answer; for the kind without a status subresource, if that is another.
        loose: that other answer.
        change: what a patch contains; a merge patch unless it is a list.
        read: whether the object is read, ``before`` or ``after`` somebody else wrote it, and sent back changed.
        child: the child that it is a write to, by its plural.
        new: whether the child has a name that is not there.
        clients: those that do it, if not all but Kopf's patch do.
    """

    verb: str
    status: int = 200
    change: Any = None
    content_type: str = MERGE
    sub: str = ""
    force: bool = False
    read: str = ""
    child: str = ""
    new: bool = False
    loose: int = 0
    clients: tuple[str, ...] = ()

    def write(self, plural: str, name: str, body: Any = None) -> Write:
        """Give the request for a cell; `body` is what was read."""
        plural = self.child or plural
        name += "-new" if self.new else ""
        ((field, mine),) = MINE.get(plural, SPEC).items()
        content_type = self.content_type if self.verb == "patch" else ""
        if body is not None:
            body = {**body, field: {**body[field], **mine}}
        elif self.verb in ("create", "replace") or content_type == APPLY:
            kind, api = EVICTION if self.sub == "eviction" else KINDS[plural]
            body = {"apiVersion": api, "kind": kind, "metadata": {"name": name}, **(self.change or {field: mine})}
        elif self.verb == "patch":
            body = self.change
        return Write(self.verb, plural, name, body, content_type, self.sub, self.force)


SPEC: dict[str, Any] = {"spec": {"mine": "1"}}
DATA: dict[str, Any] = MINE["configmaps"]
FORCED: dict[str, Any] = {"spec": {"theirs": "0"}}
EVICTION = ("Eviction", "policy/v1")
CHILD: dict[str, Any] = {"child": "configmaps"}
#: The client's typed part has methods for all of these, and its subresources are no special case of any other client.
TYPED: dict[str, Any] = {"clients": ("typed",)}
DEPLOYMENT: dict[str, Any] = {"child": "deployments", **TYPED}
IMAGE: dict[str, Any] = {"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "a:2"}]}}}}

#: Whether they run in an event loop.
CLIENTS = {
    "kopf": False,
    "typed": False,
    "dynamic": False,
    "pykube": False,
    "lightkube": False,
    "kr8s": True,
    "kubernetes_asyncio": True,
}
ALL = tuple(CLIENTS)
OTHERS = ALL[1:]

SHAPES = {
    "merge": Shape("patch", change=SPEC, clients=ALL),
    "merge with a list": Shape("patch", change={"spec": {"list": [4, 5]}}, clients=ALL),
    "JSON patch": Shape(
        "patch", change=[{"op": "add", "path": "/spec/mine", "value": "1"}], content_type=JSON_PATCH, clients=ALL
    ),
    "PUT without a revision": Shape("replace", 422),
    "PUT of an older revision": Shape("replace", 409, read="before"),
    "PUT of the last revision": Shape("replace", read="after"),
    "apply": Shape("patch", change=SPEC, content_type=APPLY),
    "apply of another's field": Shape("patch", 409, change=FORCED, content_type=APPLY),
    "apply with force": Shape("patch", change=FORCED, content_type=APPLY, force=True),
    "status": Shape("patch", change={"status": {"phase": "1"}}, sub="status", loose=404),
    "status with the object": Shape("patch", change={"status": {"phase": "1"}}, clients=ALL),
    "strategic merge of what has no strategy": Shape("patch", 415, change=SPEC, content_type=STRATEGIC, **TYPED),
    "scale": Shape("patch", change={"spec": {"replicas": 3}}, sub="scale"),
    "child: merge": Shape("patch", change=DATA, **CHILD),
    "child: strategic merge": Shape("patch", change=DATA, content_type=STRATEGIC, **CHILD),
    "child: JSON patch": Shape(
        "patch", change=[{"op": "add", "path": "/data/mine", "value": "1"}], content_type=JSON_PATCH, **CHILD
    ),
    "child: PUT without a revision": Shape("replace", **CHILD),
    "child: PUT of an older revision": Shape("replace", 409, read="before", **CHILD),
    "child: apply": Shape("patch", change=DATA, content_type=APPLY, **CHILD),
    "child: apply that creates": Shape("patch", 201, change=DATA, content_type=APPLY, **CHILD, new=True),
    "child: create": Shape("create", 201, **CHILD, new=True),
    "child: create over an object": Shape("create", 409, **CHILD),
    "child: delete": Shape("delete", **CHILD),
    "child: deletecollection": Shape("collection", **CHILD),
    "deployment: strategic merge": Shape("patch", change=IMAGE, content_type=STRATEGIC, child="deployments"),
    "deployment: merge with a list": Shape("patch", change=IMAGE, **DEPLOYMENT),
    "deployment: JSON patch": Shape(
        "patch",
        change=[{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "a:2"}],
        content_type=JSON_PATCH,
        **DEPLOYMENT,
    ),
    "deployment: PUT without a revision": Shape(
        "replace", change={"spec": {**_DEPLOYMENT, "minReadySeconds": 5}}, **DEPLOYMENT
    ),
    "deployment: PUT of an older revision": Shape("replace", 409, read="before", **DEPLOYMENT),
    "deployment: scale": Shape("patch", change={"spec": {"replicas": 1}}, sub="scale", **DEPLOYMENT),
    "deployment: delete": Shape("delete", **DEPLOYMENT),
    "pod: eviction": Shape("create", 201, change={"deleteOptions": {}}, sub="eviction", child="pods", **TYPED),
    "pod: ephemeral container": Shape(
        "patch",
        change={"spec": {"ephemeralContainers": [{"name": "debug", "image": "d:1"}]}},
        content_type=STRATEGIC,
        sub="ephemeralcontainers",
        child="pods",
        **TYPED,
    ),
}

PLACES = ("handler", "async", "timer", "daemon", "thread", "executor", "task")
#: Kopf's patch is sent by Kopf, when the handler is over.
KOPFS_PLACES = ("handler", "async", "timer", "daemon")
#: From there a write is made when Kopf has recorded already that it handled the object.
LATER = ("timer", "daemon", "thread", "executor", "task")


@dataclass(frozen=True)
class Cell:
    """One write by one client from one place, to one kind."""

    client: str
    shape: str
    plural: str
    place: str

    @property
    def name(self) -> str:
        """The object's name."""
        return "-".join((self.client.replace("_", ""), str([*SHAPES].index(self.shape)), self.place))

    @property
    def status(self) -> int:
        """The API server's answer."""
        shape = SHAPES[self.shape]
        return (self.plural == "looses" and shape.loose) or shape.status

    def __str__(self) -> str:
        return f"{self.client}, {self.shape}, {self.plural}, {self.place}"


def _cells() -> list[Cell]:
    """Each client with each shape, on both kinds; and each client in each place, with one shape.

    From other places it is the merge patch: whose write it is does not depend on what is written. Writes to a child are
    made for one kind of parent.
    """
    cells = []
    for client, runs_in_loop in CLIENTS.items():
        usual = "async" if runs_in_loop else "handler"
        shapes = [name for name, shape in SHAPES.items() if client in (shape.clients or OTHERS)]
        for shape in shapes:
            if client == "lightkube" and shape == "child: deletecollection":
                continue  # it has no selector for that
            kinds = ["cells"] if SHAPES[shape].child else ["cells", "looses"]
            if client == "dynamic" and shape == "status":
                kinds = ["cells"]  # it looks for the subresource by itself
            cells += [Cell(client, shape, plural, usual) for plural in kinds]
        places = KOPFS_PLACES if client == "kopf" else PLACES
        cells += [Cell(client, "merge", "cells", place) for place in places if place != usual]
    return cells


CELLS = _cells()
