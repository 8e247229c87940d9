"""What the listed objects of a deciding kind record, and whether a new term's token is above all of it (I2, I4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kopf_ha.core.notes import noted, stamp_in
from kopf_ha.core.token import MalformedStamp, Stamp, stamp_of
from kopf_ha.errors import FloorLost


def recorded_of(body: Mapping[str, Any], kind: str, lease: str, *, stamped: bool) -> Stamp | None:
    """Return what an object records: `status.fencing` or, in its metadata, the stamp of a Lease.

    Args:
        body: the whole object.
        kind: ``plural.group``.
        lease: ``namespace/name`` of the Lease.
        stamped: whether the kind may carry `status.fencing`.

    Raises:
        MalformedStamp: that is incomplete or invalid.
    """
    return stamp_of(body) if stamped else stamp_in(noted(body, kind), lease, kind)


def check_listed(objects: Iterable[Mapping[str, Any]], kind: str, mine: Stamp, *, stamped: bool) -> None:
    """Check that a term that has written nothing yet has a token above every one that objects of a kind record.

    Args:
        objects: as a consistent list shows them.
        kind: ``plural.group``.
        mine: the term's stamp.
        stamped: whether the kind may carry `status.fencing`.

    Raises:
        FloorLost: it has not: the Lease was edited or recreated, or an identity is used twice (I2).
    """
    highest = 0
    for body in objects:
        try:
            recorded = recorded_of(body, kind, mine.lease, stamped=stamped)
        except MalformedStamp:
            continue  # stamping it will say so and set it aside
        # This term wrote nothing yet. So a stamp with its own token and holder comes from another process, too.
        if recorded is not None and recorded.lease == mine.lease and recorded.token >= mine.token:
            highest = max(highest, recorded.token)
    if highest:
        raise FloorLost(f"an object records token {highest}, mine is {mine.token}: the Lease lost its count", highest)
