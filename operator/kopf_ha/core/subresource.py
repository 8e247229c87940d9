"""What a path below an object is, and how a write to it is fenced.

Every subresource that can be written needs an entry. A write to one that has none is refused in words (I8), and a test
walks the discovery of a real API server and fails at it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from kopf_ha.core.target import Target


class Part(enum.Enum):
    """What is written: the object, or which part of it."""

    MAIN = "the object"
    #: Body and answer are the object, and its resourceVersion is a precondition as on the main resource. What else of
    #: its metadata is kept differs from kind to kind.
    WHOLE = "the object, of which only a part changes"
    #: The body and the answer are a Scale. It has uid and resourceVersion of its object, but no annotations.
    SCALE = "the replicas"
    #: A POST that deletes its object, by the preconditions in `deleteOptions`.
    EVICTION = "an eviction"
    #: A POST that changes its object, by uid and resourceVersion in the Binding's own metadata.
    BINDING = "a binding"
    #: Nothing is written to the object, so there is no revision to compare: only the gate (line 1) holds.
    PASSES = "no object"

    @property
    def shows_stamp(self) -> bool:
        """Whether a policy sees the stamp of the object in such a write: only where the body is the object."""
        return self in (Part.MAIN, Part.WHOLE)


_OF_ANY_KIND: Mapping[str, Part] = {"": Part.MAIN, "status": Part.WHOLE, "scale": Part.SCALE}

#: By kind and subresource, as `exempt` names them.
_OF_ONE_KIND: Mapping[str, Part] = {
    "certificatesigningrequests.certificates.k8s.io/approval": Part.WHOLE,
    "namespaces/finalize": Part.WHOLE,
    "pods/ephemeralcontainers": Part.WHOLE,
    "pods/resize": Part.WHOLE,
    "pods/eviction": Part.EVICTION,
    "pods/binding": Part.BINDING,
    "pods/attach": Part.PASSES,
    "pods/exec": Part.PASSES,
    "pods/portforward": Part.PASSES,
    "pods/proxy": Part.PASSES,
    "services/proxy": Part.PASSES,
    "nodes/proxy": Part.PASSES,
    "serviceaccounts/token": Part.PASSES,
}


def part_of(target: Target) -> Part | None:
    """Return what a path is about; None for a subresource that nobody decided about."""
    first = target.subresource.partition("/")[0]  # a proxy's path goes on
    return _OF_ANY_KIND.get(target.subresource) or _OF_ONE_KIND.get(f"{target.kind}/{first}")


def subresources_of(kind: str) -> dict[str, Part]:
    """Return the subresources that a kind may have, by name.

    Args:
        kind: ``plural.group``, or ``plural`` in the core group.
    """
    own = (entry.rpartition("/") for entry in _OF_ONE_KIND)
    names = (*filter(None, _OF_ANY_KIND), *(name for of, _, name in own if of == kind))
    return {name: _OF_ANY_KIND.get(name) or _OF_ONE_KIND[f"{kind}/{name}"] for name in names}
