"""Kopf's peering has no effect here: the Lease elects the leader. Each thing that asks for it gets a warning.

Peering elects by wall clocks and writes objects. So it stays off even if the operator's code switches it on.
"""

from __future__ import annotations

import dataclasses
import logging

import kopf

logger = logging.getLogger("kopf_ha.run")


def name_ignored(peering_name: str | None, priority: int | None, *, dev: bool = False) -> None:
    """Log what `kopf run` or `kopf.operator()` would have heeded."""
    if peering_name is not None:
        logger.warning("peering %r has no effect: the Lease elects the leader; see --lease-name", peering_name)
    if priority is not None:
        logger.warning(
            "priority %d has no effect: the Lease elects the leader, and it has no priorities: the first replica that"
            " acquires it leads",
            priority,
        )
    if dev:
        logger.warning(
            "--dev has no effect: it raises the priority in a peering, and a Lease has none; scale the deployed"
            " operator down first"
        )


def switch_off(settings: kopf.OperatorSettings) -> None:
    """Switch peering off after startup handlers, before Kopf looks at it."""
    given, default = settings.peering, type(settings.peering)()
    # Kopf itself sets the first one, and the second one is what holds here anyway.
    default.clusterwide, default.standalone = given.clusterwide, given.standalone
    if changed := [f.name for f in dataclasses.fields(given) if getattr(given, f.name) != getattr(default, f.name)]:
        logger.warning(
            "settings.peering.%s has no effect: the Lease elects the leader; see --lease-name",
            " and settings.peering.".join(changed),
        )
    # A peering that is mandatory pauses a standalone operator for ever, since it looks for none.
    given.standalone, given.mandatory = True, False
