"""What a request is about: the API path, taken apart."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PATH = re.compile(
    r"/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+)/(?P<version>[^/]+))"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/[^/]+))?"
    r"/(?P<resource>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<sub>.+))?)?/?$"
)
# Of a Namespace itself, so that `/api/v1/namespaces/x/status` is no kind named "status" in namespace x.
_NAMESPACE = re.compile(r"/api/v1/namespaces/(?P<name>[^/]+)(?:/(?P<sub>status|finalize))?/?$")


@dataclass(frozen=True, slots=True)
class Target:
    """One collection or object. `group` is empty for the core group, `namespace` for cluster-scoped kinds."""

    group: str
    version: str
    resource: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def kind(self) -> str:
        """``plural.group``, or ``plural`` in the core group."""
        return f"{self.resource}.{self.group}" if self.group else self.resource

    @property
    def full_kind(self) -> str:
        """The kind with its subresource, as `exempt` names it."""
        return f"{self.kind}/{self.subresource}" if self.subresource else self.kind

    @property
    def key(self) -> tuple[str, str, str]:
        """What identifies the object in this cluster, whatever version it is asked for."""
        return (self.kind, self.namespace, self.name)

    @property
    def built_in(self) -> bool:
        """Whether Kubernetes itself owns the group; its kinds cannot have a stamp of ours."""
        return "." not in self.group or self.group.endswith(".k8s.io")

    def __str__(self) -> str:
        where = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.full_kind} {where}".rstrip()


def parse_path(path: str) -> Target | None:
    """Take an API path apart; None when it is none. A prefix before ``/api`` (a proxy's) is passed over."""
    start = min((i for i in (path.find("/api/v1/"), path.find("/apis/")) if i >= 0), default=-1)
    if start < 0:
        return None
    path = path[start:]
    if m := _NAMESPACE.fullmatch(path):
        return Target("", "v1", "namespaces", "", m["name"], m["sub"] or "")
    m = _PATH.fullmatch(path)
    if not m:
        return None
    return Target(
        group=m["group"] or "",
        version=m["version"] or m["core"],
        resource=m["resource"],
        namespace=m["namespace"] or "",
        name=m["name"] or "",
        subresource=m["sub"] or "",
    )


def object_path(path: str, target: Target) -> str:
    """Give the path of the object itself, for a path that may end in a subresource."""
    path = path.rstrip("/")
    return path.removesuffix("/" + target.subresource) if target.subresource else path


def api_root(path: str) -> str:
    """Give what comes before ``/api`` in a path: empty, or a proxy's prefix."""
    start = min((i for i in (path.find("/api/"), path.find("/apis/")) if i >= 0), default=0)
    return path[:start]
