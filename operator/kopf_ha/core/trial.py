"""Dry runs of the client's own requests, to find out what the API server would do with them (I9).

A dry run changes nothing only where the API server knows of dry runs. Kubernetes' own kinds and custom resources do; a
server behind the aggregation layer may ignore the parameter, and write. So such kinds are never tried.
"""

from __future__ import annotations

from kopf_ha.core import change
from kopf_ha.core.asked import Asked
from kopf_ha.core.reading import Reader
from kopf_ha.core.refusal import Refusal, refusal_of
from kopf_ha.core.schema import definition_of
from kopf_ha.core.wire import Response, Steps

#: The groups that a kube-apiserver serves by itself, apart from those without a dot.
OWN_GROUPS = frozenset(
    f"{name}.k8s.io"
    for name in (
        "admissionregistration",
        "apiextensions",
        "apiregistration",
        "authentication",
        "authorization",
        "certificates",
        "coordination",
        "discovery",
        "events",
        "flowcontrol.apiserver",
        "internal.apiserver",
        "networking",
        "node",
        "rbac.authorization",
        "resource",
        "scheduling",
        "storage",
        "storagemigration",
    )
)


def can_be_tried(reader: Reader) -> Steps[bool]:
    """Return whether a dry run of a write to this kind certainly changes nothing."""
    target, known = reader.target, reader.known
    if "." not in target.group or target.group in OWN_GROUPS:
        return True
    if target.kind not in known.custom:
        known.custom[target.kind] = (yield from reader.gate.send(definition_of(target, reader.root))).ok
    return known.custom[target.kind]  # otherwise nobody can tell


def refusal(asked: Asked, reader: Reader) -> Steps[Response | None]:
    """Return the API server's refusal of a write, by a dry run of it; None if it would accept it.

    Our own policies may refuse the dry run, which names no revision. They say nothing about what is done without us.
    """
    answer = yield from reader.gate.send(change.dry(asked, reader.mine, stamped=reader.stamped))
    ours = refusal_of(answer, asked.target, reader.mine.lease) is not Refusal.NONE
    return None if answer.ok or ours else answer


def refusal_of_blind_put(asked: Asked, reader: Reader) -> Steps[Response | None]:
    """Return the API server's refusal of a PUT that names no resourceVersion; None if it would accept it.

    Custom resources and some kinds of Kubernetes' own need one. The fence adds one to be a compare-and-swap, and a
    write that the API server would refuse must not succeed by that.
    """
    kind = (*asked.target.kind_version, asked.target.subresource)
    if kind in reader.known.blind_puts:
        return None
    if (yield from can_be_tried(reader)) and (refused := (yield from refusal(asked, reader))):
        return refused
    reader.known.blind_puts.add(kind)
    return None
