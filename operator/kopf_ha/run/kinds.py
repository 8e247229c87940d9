"""What the cluster says of a kind: where its objects live, and whether they can be stamped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from kopf_ha.api import Api, refusal
from kopf_ha.core.schema import ask_schema
from kopf_ha.core.target import Target
from kopf_ha.core.wire import OwnRequestRefused
from kopf_ha.errors import ConfigurationError, Unfenced

#: For a deciding kind whose schema could not be read before.
NO_STAMP = "deciding kind {} has no status.fencing in its schema; allow this service account to read its definition"


class ServedKind:
    """Where the objects of one kind live.

    Args:
        group: its API group; never the core group.
        version: a served one.
        plural: the name in paths.
        namespaced: whether its objects live in namespaces.
        stamped: whether its definition has `status.fencing`; None if this is not known. If it has none, its objects
            have their stamp in the metadata.
        kind: what objects of it name as their `kind`.
    """

    def __init__(
        self, group: str, version: str, plural: str, namespaced: bool, stamped: bool | None = None, kind: str = ""
    ) -> None:
        self.group, self.version, self.plural, self.namespaced = group, version, plural, namespaced
        self.stamped = stamped
        self.kind = kind
        self.collection = f"/apis/{group}/{version}/{plural}"

    @property
    def name(self) -> str:
        """``plural.group``."""
        return f"{self.plural}.{self.group}"

    def collection_in(self, namespace: str) -> str:
        """Return the path of the objects in one namespace."""
        return f"/apis/{self.group}/{self.version}/namespaces/{quote(namespace, safe='')}/{self.plural}"

    @property
    def any(self) -> Target:
        """The target of some object of this kind, for questions about the kind."""
        return Target(self.group, self.version, self.plural, "any" if self.namespaced else "", "any")

    def is_of(self, body: Mapping[str, Any]) -> bool:
        """Return whether an object is of this kind, in whichever version."""
        group = str(body.get("apiVersion") or "").rpartition("/")[0]
        return bool(self.kind) and (group, body.get("kind")) == (self.group, self.kind)

    def target(self, body: Mapping[str, Any]) -> Target:
        """Return what the fence calls an object of this kind."""
        metadata = body["metadata"]
        return Target(self.group, self.version, self.plural, metadata.get("namespace") or "", metadata["name"])


def find_kind(api: Api, kind: str) -> ServedKind:
    """Ask the cluster where the objects of deciding kind ``plural.group`` are, and where they carry their stamp.

    Raises:
        ConfigurationError: it is not installed, or some of its served versions have no `status.fencing` (I1).
        ApiError: the cluster did not say.
    """
    found = locate(api, kind)
    try:
        found.stamped = schema_of(api, found.any)  # if this is unknown, the first stamp finds out
    except Unfenced as error:
        raise ConfigurationError(f"deciding kind {error}") from error
    return found


def locate(api: Api, kind: str) -> ServedKind:
    """Ask the cluster for the served version and the scope of ``plural.group``.

    Raises:
        ConfigurationError: it is not installed.
        ApiError: the cluster did not say.
    """
    plural, _, group = kind.partition(".")
    found = read(api, f"/apis/{group}")
    preferred = ((found or {}).get("preferredVersion") or {}).get("version")
    versions = [v["version"] for v in (found or {}).get("versions") or ()]
    for version in sorted(versions, key=lambda v: v != preferred):
        for resource in (read(api, f"/apis/{group}/{version}") or {}).get("resources") or ():
            if resource["name"] == plural:
                named = str(resource.get("kind") or "")
                return ServedKind(group, version, plural, bool(resource["namespaced"]), kind=named)
    raise ConfigurationError(f"deciding kind {kind} is not installed in the cluster; apply its CRD first")


def schema_of(api: Api, target: Target) -> bool | None:
    """Ask the cluster whether a kind's schema has a stamp; None when it publishes no schema.

    Raises:
        Unfenced: some of its served versions have one, and some have not.
        ApiError: the cluster did not say.
    """
    asking = ask_schema(target)
    try:
        request = next(asking)
        while True:
            request = asking.send(api.request(request.method, request.path))
    except StopIteration as told:
        return None if told.value is None else bool(told.value)
    except OwnRequestRefused as error:
        raise refusal(f"cannot read the schema of {target.kind}", error.answer) from error


def read(api: Api, path: str) -> Any:
    """Read the JSON at a path; None when there is none.

    Raises:
        ApiError: the cluster did not say.
    """
    answer = api.request("GET", path)
    if not answer.ok and answer.status != 404:
        raise refusal(f"cannot read {path}", answer)
    return answer.json if answer.ok else None
