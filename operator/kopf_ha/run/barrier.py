"""The barrier: what a new leader does before any handler runs (I4).

An object's token protects that object, but not others: an old leader could still decide from a pool that the new one
has not written yet. So every object of the deciding kinds is stamped first. An object that cannot be stamped is set
aside. It never ends the term, and the others are served (I10). With `-n` that is done in these namespaces (`sweep`).

With `--barrier each` the objects are only listed, which is enough to find a lost floor (I2). The operator's code waits
for the stamps of those that it decides from, and `behind` stamps the rest.

Of a kind without `status.fencing` the stamps are in the metadata. Whoever may edit an object may edit those, unless a
policy protects them. So such a kind may be a deciding one only where the policies are in force (`preparation`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from kopf_ha.api import Api
from kopf_ha.core.fence import Fence
from kopf_ha.core.floor import check_listed
from kopf_ha.run.deciding import UNANSWERED, DecidingObject, stamp_all
from kopf_ha.run.kinds import ServedKind, find_kind, read
from kopf_ha.run.sweep import Sweep

#: Seconds before each further try of what could not be stamped, so that a short fault sets nothing aside. All of these
#: objects are tried at once, so that handlers wait as long for a thousand as for one.
PAUSES = (0.2, 0.5, 1.0)


@dataclass(frozen=True, slots=True)
class Raised:
    """A barrier that is up: how many objects were stamped, those that are set aside, and those whose stamps follow."""

    stamped: int
    aside: tuple[DecidingObject, ...]
    behind: tuple[DecidingObject, ...] = ()


def find_kinds(api: Api, fence: Fence) -> list[ServedKind]:
    """Ask the cluster about each deciding kind.

    Raises:
        ConfigurationError: one is not installed, or some of its served versions have no `status.fencing`.
        ApiError: the cluster did not say.
    """
    return [find_kind(api, name) for name in sorted(fence.known.deciding)]


def raise_barrier(sweep: Sweep, pause: Callable[[float], None] = time.sleep, *, each: bool = False) -> Raised:
    """Stamp every object of the deciding kinds, and set aside in the grant what cannot be stamped.

    Args:
        sweep: of the term; it lists them.
        pause: waits for so many seconds.
        each: stamp only objects of a kind whose schema is not known yet. Until the term's code has read another object
            after its stamp, the grant calls it unread.

    Raises:
        ConfigurationError: a kind's schema could not be read, and has no `status.fencing`.
        FloorLost: an object records a token at or above mine; the Lease has to be raised above it first.
        ApiRefused: a kind cannot be listed; another replica may be able to.
        Unreached: there is no answer at all; another replica may get one.
        TermEnded: the term ended meanwhile.
    """
    grant = sweep.grant
    listed = sweep.run()
    for kind, bodies in listed:
        check_listed(bodies, kind.name, grant.stamp, stamped=kind.stamped is not False)
    objects = sweep.learn(listed)
    behind = [one for one in objects if one.kind.stamped is not None] if each else []
    objects = [one for one in objects if one.kind.stamped is None] if each else objects
    grant.unread.update(one.uid for one in behind)
    left = stamp_patiently(sweep, objects, pause)
    if left and len(left) == len(objects) and all(one.trouble.startswith(UNANSWERED) for one in left):
        # Either each of them hangs, or the API server cannot be reached. One more request tells which.
        one = left[0]
        path = one.kind.collection_in(one.target.namespace) if one.target.namespace else one.kind.collection
        read(sweep.api, path + "?limit=1")
    sweep.finish(left)
    return Raised(len(objects) - len(left), tuple(left), tuple(behind))


def stamp_patiently(
    sweep: Sweep, objects: list[DecidingObject], pause: Callable[[float], None], *, failed: bool = False
) -> list[DecidingObject]:
    """Stamp objects, with a few tries for what fails; return what could not be stamped.

    Args:
        sweep: of the term.
        objects: the objects.
        pause: waits for so many seconds.
        failed: whether they were tried once already.

    Raises:
        ConfigurationError: a kind's schema has no stamp.
        TermEnded: the term is over.
    """
    left = objects if failed else stamp_all(sweep.api, sweep.fence, sweep.grant, objects)
    for seconds in PAUSES:
        if not left:
            break
        pause(seconds)
        left = stamp_all(sweep.api, sweep.fence, sweep.grant, left)
    return left
