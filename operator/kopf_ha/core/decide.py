"""What is decided about a write from the request alone, before anything is sent."""

from __future__ import annotations

from kopf_ha.core.asked import Asked
from kopf_ha.errors import Unfenced


def check_fenceable(asked: Asked, lease: str) -> None:
    """Refuse a request that no precondition and no stamp could fence.

    Raises:
        Unfenced: it is one.
    """
    target = asked.target
    if target.subresource not in ("", "status"):
        raise Unfenced(
            f"{asked}: the fence does not know this subresource; if its effect needs no fence,"
            f" declare it with --exempt {target.full_kind}"
        )
    if (target.kind, f"{target.namespace}/{asked.name}") == ("leases.coordination.k8s.io", lease):
        raise Unfenced(f"Lease {lease} is written by the election alone")
    if asked.is_dry_run:
        return
    if asked.request.method == "POST" and target.name:
        raise Unfenced(f"{asked}: a POST creates in a collection, and this path names an object")
    if not target.name and not asked.creates:
        raise Unfenced(f"{asked}: a whole collection cannot be fenced; write its objects one by one")
    if asked.body is None and not asked.deletes:
        raise Unfenced(f"{asked}: the body is empty")


def check_revision_named(asked: Asked, deciding: bool, saw: bool) -> None:
    """Refuse an update that must name the revision that it was decided from, and does not.

    Raises:
        Unfenced: it is one.
    """
    if asked.version is not None:
        return
    if asked.request.method == "PUT":
        raise Unfenced(f"{asked}: without metadata.resourceVersion it would overwrite changes that it never saw")
    if deciding and asked.is_status and not saw:
        raise Unfenced(
            f"{asked}: the status of a deciding kind must carry the resourceVersion that it was decided from"
        )


def may_repeat(asked: Asked, deciding: bool) -> bool:
    """Whether the fence may send the same change again on a newer revision.

    A precondition that the caller named stays the caller's conflict. For a deciding kind, the status and a deletion
    were decided from what the object said, so they have to be decided again. Annotations and labels are no decisions.
    """
    decision = deciding and (asked.is_status or asked.deletes)
    return asked.version is None and not decision and asked.fits_any_revision


def must_stamp_first(asked: Asked, stamped: bool) -> bool:
    """Whether an object that this term has not stamped yet needs a stamp of its own before this write (I3)."""
    if asked.request.is_apply:
        return True  # an apply would fight with the last term's over the ownership of the stamp
    if asked.request.is_json_patch:
        return True  # "add" needs an existing parent, and a JSON patch that makes it may remove what others wrote
    if asked.deletes:
        return True  # it carries no stamp, and finalizers or a grace period may keep the object
    return stamped and not asked.is_status
