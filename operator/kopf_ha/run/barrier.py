"""The barrier: what a new leader does before any handler runs (I4).

A token per object holds for that object, but not across objects: an old leader could still decide from a pool
that the new one has not touched yet. So every object of the deciding kinds is stamped first.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import urllib3

from kopf_ha._context import CurrentTerm
from kopf_ha.core.fence import Fence
from kopf_ha.core.grant import Grant
from kopf_ha.core.schema import Unanswered, ask_schema
from kopf_ha.core.target import Target
from kopf_ha.core.token import MalformedStamp, stamp_of
from kopf_ha.errors import ConfigurationError, Denied, FloorLost, ForeignStamp, Unfenced
from kopf_ha.run.api import Api

logger = logging.getLogger("kopf_ha.barrier")

#: Stamps under way at once. More would starve the renewal's priority level of a small API server.
PARALLEL = 8
ATTEMPTS = 5
#: Seconds between attempts at an object whose stamp got no lasting answer.
PAUSE = 0.2

_NO_STAMP = "deciding kind {} has no status.fencing in its schema; add it, or a new leader cannot stamp its objects"


def raise_barrier(api: Api, fence: Fence, grant: Grant) -> int:
    """Stamp every object of the deciding kinds; give how many were stamped.

    What cannot be stamped is set aside in the grant: its claims wait, the rest goes on.

    Raises:
        ConfigurationError: a deciding kind is not installed, or has no `status.fencing`.
        FloorLost: an object records a token at or above mine; the Lease has to be raised above it first.
        LookupError: a kind cannot be listed, or an object gets no answer that would last.
        TermEnded: the term ended meanwhile.
    """
    done, aside = 0, set()
    for kind in sorted(fence.deciding):
        base = find_kind(api, kind)
        objects = list(api.items(base.collection))
        check_floor(objects, grant)
        if base.stamped:
            # What was just read need not be asked for again, once an object: that would double the barrier.
            fence.schemas[base.group, base.version, base.plural] = True
            for body in objects:
                fence.learn(base.target(body), body)
        stamp = CurrentTerm(grant).bind(lambda body, base=base: stamp_one(api, fence, base, body))
        pool = ThreadPoolExecutor(PARALLEL, thread_name_prefix="kopf-ha-barrier")
        try:
            for body, trouble in zip(objects, pool.map(stamp, objects), strict=True):
                if trouble:
                    aside.add(str(body["metadata"]["uid"]))
                    logger.error(
                        "%s %s is set aside, nothing is decided from it in this term: %s", kind, _name(body), trouble
                    )
                else:
                    done += 1
        finally:
            # One refusal ends the term: the rest need not be refused one by one.
            pool.shutdown(cancel_futures=True)
    grant.set_aside = frozenset(aside)
    return done


def _name(body: dict[str, Any]) -> str:
    metadata = body["metadata"]
    return f"{metadata['namespace']}/{metadata['name']}" if metadata.get("namespace") else str(metadata["name"])


class Kind:
    """Where the objects of one kind live. `stamped` if its definition was seen to have `status.fencing`."""

    def __init__(self, group: str, version: str, plural: str, namespaced: bool, stamped: bool = False) -> None:
        self.group, self.version, self.plural, self.namespaced = group, version, plural, namespaced
        self.stamped = stamped
        self.collection = f"/apis/{group}/{version}/{plural}"

    @property
    def any(self) -> Target:
        """Give what the fence would call an object of it, whichever."""
        return Target(self.group, self.version, self.plural, "any" if self.namespaced else "", "any")

    def path(self, body: dict[str, Any]) -> str:
        """Give the path of one object."""
        metadata = body["metadata"]
        middle = f"/namespaces/{metadata['namespace']}" if self.namespaced else ""
        return f"/apis/{self.group}/{self.version}{middle}/{self.plural}/{metadata['name']}"

    def target(self, body: dict[str, Any]) -> Target:
        """Give what the fence calls one object."""
        metadata = body["metadata"]
        return Target(self.group, self.version, self.plural, metadata.get("namespace") or "", metadata["name"])


def find_kind(api: Api, kind: str) -> Kind:
    """Ask the cluster where the objects of deciding kind ``plural.group`` are, and whether they can be stamped.

    Raises:
        ConfigurationError: it is not installed, or a served version of it has no `status.fencing` (I1).
        LookupError: the cluster did not say.
    """
    found = locate(api, kind)
    try:
        stamped = schema_of(api, found.any)
    except Unfenced as error:
        raise ConfigurationError(f"deciding kind {error}") from error
    if stamped is False:
        raise ConfigurationError(_NO_STAMP.format(kind))
    found.stamped = bool(stamped)  # if nothing told, the first stamp finds out
    return found


def locate(api: Api, kind: str) -> Kind:
    """Ask the cluster for the served version and the scope of ``plural.group``.

    Raises:
        ConfigurationError: it is not installed.
        LookupError: the cluster did not say.
    """
    plural, _, group = kind.partition(".")
    found = _get(api, f"/apis/{group}")
    preferred = ((found or {}).get("preferredVersion") or {}).get("version")
    versions = [v["version"] for v in (found or {}).get("versions") or ()]
    for version in sorted(versions, key=lambda v: v != preferred):
        for resource in (_get(api, f"/apis/{group}/{version}") or {}).get("resources") or ():
            if resource["name"] == plural:
                return Kind(group, version, plural, bool(resource["namespaced"]))
    raise ConfigurationError(f"deciding kind {kind} is not installed in the cluster; apply its CRD first")


def schema_of(api: Api, target: Target) -> bool | None:
    """Ask the cluster whether a kind is stamped; None when nothing tells.

    Raises:
        Unfenced: some of its served versions are and some are not.
        LookupError: the cluster did not say.
    """
    asking = ask_schema(target)
    try:
        request = next(asking)
        while True:
            request = asking.send(api.request(request.method, request.path))
    except StopIteration as told:
        return None if told.value is None else bool(told.value)
    except Unanswered as error:
        raise LookupError(f"cannot read the schema of {target.kind}: {error}") from error


def _get(api: Api, path: str) -> Any:
    answer = api.request("GET", path)
    if not answer.ok and answer.status != 404:
        raise LookupError(f"cannot read {path}: {answer.status} {answer.message}")
    return answer.json if answer.ok else None


def check_floor(objects: list[dict[str, Any]], grant: Grant) -> None:
    """Make sure that my token is above every recorded one.

    Raises:
        FloorLost: it is not: the Lease was edited or recreated, or an identity is used twice (I2).
    """
    highest = 0
    for body in objects:
        try:
            recorded = stamp_of(body, stamped=True)
        except MalformedStamp:
            continue  # stamping it will say so and set it aside
        # Nothing was written in this term yet: even my own name and number are somebody else's, who had both.
        if recorded is not None and recorded.lease == grant.stamp.lease and recorded.token >= grant.stamp.token:
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
        LookupError: no answer, or one that will not last (429, 5xx): the whole term failed, and a later one will
            do better; set aside, the object would wait for as long as this leader lives (I7).
    """
    path, version = kind.path(body), body["metadata"]["resourceVersion"]
    trouble = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE * attempt)
        # The fence adds the stamp to any write of a status.
        patch = {"metadata": {"resourceVersion": version}, "status": {}}
        try:
            answer = api.request("PATCH", path + "/status", patch, "application/merge-patch+json")
            if answer.status == 409:
                # Somebody edited it after the list. The fence read it again and judged it; so do I.
                answer = api.request("GET", path)
                if answer.ok:
                    version, trouble = answer.json["metadata"]["resourceVersion"], "edited all the time"
                    continue
        except (ForeignStamp, Unfenced, Denied) as error:
            return str(error)
        except urllib3.exceptions.HTTPError as error:
            trouble = f"no answer: {error}"
            continue
        if answer.ok:
            if not fence.schemas.get((kind.group, kind.version, kind.plural)):
                raise ConfigurationError(_NO_STAMP.format(f"{kind.plural}.{kind.group}"))
            return ""
        if answer.status == 404:
            return ""  # deleted meanwhile: nothing is left to decide from
        trouble = f"{answer.status} {answer.message}"
        if answer.status < 500 and answer.status != 429:
            return trouble
    raise LookupError(f"cannot stamp {kind.plural}.{kind.group} {_name(body)}: {trouble}")
