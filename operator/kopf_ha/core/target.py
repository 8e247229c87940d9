"""What a request is about: its API path, parsed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

_PATH = re.compile(
    r"/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+)/(?P<version>[^/]+))"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/[^/]+))?"
    r"/(?P<resource>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<sub>.+))?)?/?$"
)
# A Namespace itself: `/api/v1/namespaces/x/status` is no kind named "status" in namespace x.
_NAMESPACE = re.compile(r"/api/v1/namespaces/(?P<name>[^/]+)(?:/(?P<sub>status|finalize))?/?$")


#: Kind, namespace and name of an object.
Key = tuple[str, str, str]
#: Group, version and plural of a kind.
KindVersion = tuple[str, str, str]


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
    def kind_version(self) -> KindVersion:
        """The kind in the version that the path names; each version has a schema."""
        return (self.group, self.version, self.resource)

    @property
    def key(self) -> Key:
        """What identifies the object in this cluster, whichever version the path names."""
        return (self.kind, self.namespace, self.name)

    @property
    def built_in(self) -> bool:
        """Whether Kubernetes itself owns the group; its kinds cannot have a stamp of ours."""
        return "." not in self.group or self.group.endswith(".k8s.io")

    @property
    def path(self) -> str:
        """The path of the object itself, without the subresource."""
        start = f"/apis/{self.group}" if self.group else "/api"
        middle = f"/namespaces/{quote(self.namespace)}" if self.namespace else ""
        return f"{start}/{self.version}{middle}/{self.resource}/{quote(self.name)}"

    def __str__(self) -> str:
        where = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.full_kind} {where}".rstrip()


def parse_path(path: str) -> Target | None:
    """Parse an API path as it is sent; None when it names no object and no collection.

    A prefix before ``/api`` (a proxy's) is skipped.
    """
    start = _start(path)
    if start < 0:
        return None
    path = path[start:]
    if any(unquote(part) in ("", ".", "..") for part in path.strip("/").split("/")):
        return None  # a proxy or a client may resolve this to another path
    if m := _NAMESPACE.fullmatch(path):
        return Target("", "v1", "namespaces", "", unquote(m["name"]), m["sub"] or "")
    m = _PATH.fullmatch(path)
    if not m:
        return None
    return Target(
        group=m["group"] or "",
        version=m["version"] or m["core"],
        # The API server decodes the path first: a kind, a name or "status" may be percent-encoded.
        resource=unquote(m["resource"]),
        namespace=unquote(m["namespace"] or ""),
        name=unquote(m["name"] or ""),
        subresource=unquote(m["sub"] or ""),
    )


def api_root(path: str) -> str:
    """Return what comes before ``/api`` in a path: empty, or a proxy's prefix."""
    return path[: max(0, _start(path))]


def _start(path: str) -> int:
    return min((i for i in (path.find("/api/v1/"), path.find("/apis/")) if i >= 0), default=-1)
