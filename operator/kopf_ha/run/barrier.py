"""The barrier: what a new leader does before any handler runs (I4).

A token per object holds for that object, but not across objects: an old leader could still decide from a pool
that the new one has not touched yet. So every object of the deciding kinds is stamped first.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import urllib3

from kopf_ha._context import CurrentTerm
from kopf_ha.core.fence import Fence
from kopf_ha.core.grant import Grant
from kopf_ha.core.token import MalformedStamp, Verdict, judge, stamp_of
from kopf_ha.errors import ConfigurationError, FloorLost, ForeignStamp, Unfenced
from kopf_ha.run.api import Api

logger = logging.getLogger("kopf_ha.barrier")

#: Stamps under way at once. More would starve the renewal's priority level of a small API server.
PARALLEL = 8
ATTEMPTS = 5


def raise_barrier(api: Api, fence: Fence, grant: Grant) -> int:
    """Stamp every object of the deciding kinds; give how many were stamped.

    What cannot be stamped is set aside in the grant: its claims wait, the rest goes on.

    Raises:
        ConfigurationError: a deciding kind is not installed, or has no `status.fencing`.
        FloorLost: an object records a token at or above mine; the Lease has to be raised above it first.
        LookupError: a kind cannot be listed.
        TermEnded: the term ended meanwhile.
    """
    done, aside = 0, set()
    for kind in sorted(fence.deciding):
        base = find_kind(api, kind)
        objects = list(api.items(base.collection))
        check_floor(objects, grant)
        stamp = CurrentTerm(grant).bind(lambda body, base=base: stamp_one(api, fence, base, body))
        with ThreadPoolExecutor(PARALLEL, thread_name_prefix="kopf-ha-barrier") as pool:
            for body, trouble in zip(objects, pool.map(stamp, objects), strict=True):
                if trouble:
                    aside.add(str(body["metadata"]["uid"]))
                    name = body["metadata"]["name"]
                    logger.error("%s %s is set aside, nothing is decided from it: %s", kind, name, trouble)
                else:
                    done += 1
    grant.set_aside = frozenset(aside)
    return done


class Kind:
    """Where the objects of one kind live."""

    def __init__(self, group: str, version: str, plural: str, namespaced: bool) -> None:
        self.group, self.version, self.plural, self.namespaced = group, version, plural, namespaced
        self.collection = f"/apis/{group}/{version}/{plural}"

    def path(self, body: dict[str, Any]) -> str:
        """Give the path of one object."""
        metadata = body["metadata"]
        middle = f"/namespaces/{metadata['namespace']}" if self.namespaced else ""
        return f"/apis/{self.group}/{self.version}{middle}/{self.plural}/{metadata['name']}"


def find_kind(api: Api, kind: str) -> Kind:
    """Ask the cluster for the served version and the scope of ``plural.group``.

    Raises:
        ConfigurationError: it is not installed.
    """
    plural, _, group = kind.partition(".")
    found = api.request("GET", f"/apis/{group}")
    if found.ok:
        version = found.json["preferredVersion"]["version"]
        listed = api.request("GET", f"/apis/{group}/{version}")
        for resource in (listed.json or {}).get("resources") or ():
            if resource["name"] == plural:
                return Kind(group, version, plural, bool(resource["namespaced"]))
    elif found.status != 404:
        raise LookupError(f"cannot ask for API group {group}: {found.status} {found.message}")
    raise ConfigurationError(f"deciding kind {kind} is not installed in the cluster; apply its CRD first")


def check_floor(objects: list[dict[str, Any]], grant: Grant) -> None:
    """Make sure that my token is above every recorded one.

    Raises:
        FloorLost: it is not: the Lease was edited or recreated (I2).
    """
    highest = 0
    for body in objects:
        try:
            recorded = stamp_of(body, stamped=True)
        except MalformedStamp:
            continue  # stamping it will say so and set it aside
        if recorded is not None and judge(recorded, grant.stamp) is Verdict.STALE:
            highest = max(highest, recorded.token)
    if highest:
        raise FloorLost(
            f"an object records token {highest}, mine is {grant.stamp.token}: the Lease lost its count", highest
        )


def stamp_one(api: Api, fence: Fence, kind: Kind, body: dict[str, Any]) -> str:
    """Stamp one object through the fence; give the trouble, empty when there was none.

    Raises:
        TermEnded: the term is over; nothing is set aside for that.
        ConfigurationError: the kind's schema has no stamp, so it cannot be fenced across objects.
    """
    path, version = kind.path(body), body["metadata"]["resourceVersion"]
    for _ in range(ATTEMPTS):
        # The fence adds the stamp to any write of a status.
        patch = {"metadata": {"resourceVersion": version}, "status": {}}
        try:
            answer = api.request("PATCH", path + "/status", patch, "application/merge-patch+json")
        except (ForeignStamp, Unfenced) as error:
            return str(error)
        except urllib3.exceptions.HTTPError as error:
            return f"no answer: {error}"
        if answer.ok:
            if not fence.schemas.get((kind.group, kind.version, kind.plural)):
                raise ConfigurationError(
                    f"deciding kind {kind.plural}.{kind.group} has no status.fencing in its schema; add it"
                )
            return ""
        if answer.status == 404:
            return ""  # deleted meanwhile: nothing is left to decide from
        if answer.status != 409:
            break
        # The caller's own conflict: somebody edited it after the list. The fence read it again and judged it.
        version = (api.request("GET", path).json or {}).get("metadata", {}).get("resourceVersion", "")
        if not version:
            return ""
    return f"{answer.status} {answer.message}"
