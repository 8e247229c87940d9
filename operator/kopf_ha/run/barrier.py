"""The barrier: what a new leader does before any handler runs (I4).

A token per object holds for that object, but not across objects: an old leader could still decide from a pool
that the new one has not touched yet. So every object of the deciding kinds is stamped first. One that cannot be
stamped is set aside; it never costs the term, and the others are served (I10).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import urllib3

from kopf_ha._context import CurrentTerm
from kopf_ha.core.asked import ONLY_STAMP
from kopf_ha.core.fence import Fence
from kopf_ha.core.grant import Grant
from kopf_ha.core.refusal import outline
from kopf_ha.core.schema import ask_schema
from kopf_ha.core.target import Target
from kopf_ha.core.token import MalformedStamp, stamp_of
from kopf_ha.core.wire import Response, Unanswered
from kopf_ha.errors import ConfigurationError, FloorLost, Refused, TermEnded, Unfenced
from kopf_ha.run.api import Api

#: Stamps under way at once. More would starve the renewal's priority level of a small API server.
PARALLEL = 8
#: Seconds before each further try of what could not be stamped: a passing fault shall set nothing aside. All of them
#: are tried at once, so that handlers wait as long for a thousand as for one.
PAUSES = (0.2, 0.5, 1.0)
#: Seconds that one stamp may take: one that hangs must not keep handlers waiting for long.
TIMEOUT = 10.0
#: How much of an object's trouble a line shows.
SHOWN = 300
#: What an object's trouble begins with when there was no answer at all.
UNANSWERED = "no answer: "

_NO_STAMP = "deciding kind {} has no status.fencing in its schema; add it, or a new leader cannot stamp its objects"


@dataclass(frozen=True, slots=True)
class Raised:
    """A barrier that is up: how many objects were stamped, and those that are set aside."""

    stamped: int
    aside: tuple[Object, ...]


@dataclass(frozen=True, slots=True)
class Object:
    """One object of a deciding kind.

    Args:
        kind: where it lives.
        namespace: empty for a cluster-scoped kind.
        name: its name.
        uid: its uid.
        trouble: why it could not be stamped, in a sentence; empty while nothing is known.
        refused: it was the fence that refused: for what the object records, which somebody has to mend.
    """

    kind: Kind
    namespace: str
    name: str
    uid: str
    trouble: str = ""
    refused: bool = False

    @classmethod
    def of(cls, kind: Kind, body: Mapping[str, Any]) -> Object:
        """Take it from a list."""
        metadata = body["metadata"]
        return cls(kind, metadata.get("namespace") or "", metadata["name"], str(metadata["uid"]))

    @property
    def target(self) -> Target:
        """What the fence calls it."""
        return Target(self.kind.group, self.kind.version, self.kind.plural, self.namespace, self.name)

    def __str__(self) -> str:
        return f"{self.target}" + (f" ({' '.join(self.trouble.split())[:SHOWN]})" if self.trouble else "")


def raise_barrier(api: Api, fence: Fence, grant: Grant, pause: Callable[[float], None] = time.sleep) -> Raised:
    """Stamp every object of the deciding kinds, and set aside in the grant what cannot be stamped.

    Args:
        api: of a fenced client.
        fence: what the objects are learnt by.
        grant: of the term.
        pause: waits for so many seconds.

    Raises:
        ConfigurationError: a deciding kind is not installed, or has no `status.fencing`.
        FloorLost: an object records a token at or above mine; the Lease has to be raised above it first.
        LookupError: a kind cannot be listed, or nothing at all is answered: another replica may do better.
        TermEnded: the term ended meanwhile.
    """
    objects: list[Object] = []
    for name in sorted(fence.known.deciding):
        kind = find_kind(api, name)
        bodies = list(api.items(kind.collection))
        check_floor(bodies, grant)
        if kind.stamped:
            # What was just read need not be asked for again, once an object: that would double the barrier.
            fence.known.schemas[kind.group, kind.version, kind.plural] = True
            for body in bodies:
                fence.known.learn(Object.of(kind, body).target, body)
        objects += [Object.of(kind, body) for body in bodies]
    left = stamp_all(api, fence, grant, objects)
    for seconds in PAUSES:
        if not left:
            break
        pause(seconds)
        left = stamp_all(api, fence, grant, left)
    if left and len(left) == len(objects) and all(one.trouble.startswith(UNANSWERED) for one in left):
        # Either they hang, each of them, or there is no way to the API server. One more request tells.
        _get(api, left[0].kind.collection + "?limit=1")
    grant.set_aside = frozenset(one.uid for one in left)
    return Raised(len(objects) - len(left), tuple(left))


def stamp_all(api: Api, fence: Fence, grant: Grant, objects: list[Object]) -> list[Object]:
    """Try each once; give those that could not be stamped, with their trouble.

    Raises:
        ConfigurationError: a kind's schema has no stamp, so it cannot be fenced across objects.
        TermEnded: the term is over; nothing is set aside for that.
    """
    stamp = CurrentTerm(grant).bind(lambda one: stamp_one(api, fence, one))
    pool = ThreadPoolExecutor(PARALLEL, thread_name_prefix="kopf-ha-barrier")
    try:
        return [one for one in pool.map(stamp, objects) if one is not None]
    finally:
        # One refusal ends the term: the rest need not be refused one by one.
        pool.shutdown(cancel_futures=True)


def stamp_one(api: Api, fence: Fence, one: Object) -> Object | None:
    """Stamp one object through the fence; give it with its trouble, None when it is stamped or gone.

    Read and write follow each other at once, in the fence, and no edit of the object keeps the stamp out.

    Raises:
        ConfigurationError: the kind's schema has no stamp.
        TermEnded: the term is over.
    """
    kind, refused, trouble = one.kind, False, ""
    try:
        if one.trouble:
            fence.known.objects.forget(one.target.key)
        if one.refused and _records_the_same(api.request("GET", one.target.path, timeout=TIMEOUT), fence.known.lease):
            return one  # not a refusal more in the log, each time
        path = one.target.path + "/status"
        answer = api.request("PATCH", path, ONLY_STAMP, "application/merge-patch+json", timeout=TIMEOUT)
        if not answer.ok and not _is_gone(answer, one.name):
            trouble = outline(answer)
    except TermEnded:
        raise
    except Refused as error:
        refused, trouble = True, str(error)
    except urllib3.exceptions.HTTPError as error:
        trouble = f"{UNANSWERED}{error}"
    if fence.known.schemas.get((kind.group, kind.version, kind.plural)) is False:
        raise ConfigurationError(_NO_STAMP.format(f"{kind.plural}.{kind.group}"))
    return replace(one, trouble=trouble, refused=refused) if trouble else None


def _records_the_same(answer: Response, lease: str) -> bool:
    """Whether the object still records what the fence refuses: another Lease's stamp, or half of one."""
    try:
        recorded = stamp_of(answer.json, stamped=True) if answer.ok else None
    except MalformedStamp:
        return True
    return recorded is not None and recorded.lease != lease


def _is_gone(answer: Response, name: str) -> bool:
    """Whether the object does not exist. A 404 without its name means that the path is not served at the moment."""
    details = (answer.json or {}).get("details") if answer.status == 404 else None
    return isinstance(details, Mapping) and details.get("name") == name


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
    except (Unanswered, urllib3.exceptions.HTTPError) as error:
        raise LookupError(f"cannot read the schema of {target.kind}: {error}") from error


def _get(api: Api, path: str) -> Any:
    try:
        answer = api.request("GET", path)
    except urllib3.exceptions.HTTPError as error:
        raise LookupError(f"cannot read {path}: {UNANSWERED}{error}") from error
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
