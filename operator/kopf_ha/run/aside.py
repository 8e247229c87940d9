"""Tries what a barrier set aside again, as long as the term lasts: objects, and namespaces that could not be listed.

A role that is missing for a moment, or a policy that somebody withdraws, must not keep an object out for the whole
term (I7), and no restart is needed. A namespace that may not be listed is looked at when it may be, so also when it is
made later.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from kopf_ha.errors import ApiError, ConfigurationError, TermEnded
from kopf_ha.run.deciding import DecidingObject, stamp_all
from kopf_ha.run.sweep import Sweep

logger = logging.getLogger("kopf_ha.run")

#: Seconds between tries: the first, and the longest.
DELAYS = (2.0, 60.0)


def delays() -> Iterator[float]:
    """Return the seconds before each try."""
    seconds, longest = DELAYS
    while True:
        yield seconds
        seconds = min(2 * seconds, longest)


def try_again(
    sweep: Sweep,
    aside: Sequence[DecidingObject],
    tell: Callable[[Sequence[DecidingObject]], None],
    tell_namespaces: Callable[[Mapping[str, str]], None] = lambda left: None,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """List and stamp what is set aside, until nothing is left or the term is over.

    An object that got its stamp leaves `grant.set_aside`, and the fence lets its status be written from then on.

    Args:
        sweep: of the term.
        aside: the objects that its barrier set aside.
        tell: takes the objects that are still set aside, whenever that changed.
        tell_namespaces: takes the namespaces that still cannot be listed, with the cause, whenever some could be.
        wait: waits for so many seconds.
    """
    grant, left = sweep.grant, list(aside)
    for seconds in delays():
        if not (left or sweep.left or sweep.trouble):
            return
        wait(seconds)
        if grant.closed:
            return
        try:
            unlisted, more = sweep.left, _more(sweep)
            still = stamp_all(sweep.api, sweep.fence, grant, left + more)
        except (TermEnded, ConfigurationError):
            return  # the term ends, and the fence logged why; a kind that lost its stamp needs a new term
        sweep.finish(still)
        if len(sweep.left) != len(unlisted):
            tell_namespaces(sweep.left)
        changed, left = {one.uid for one in still} != {one.uid for one in left}, still
        if changed:
            tell(left)


def _more(sweep: Sweep) -> list[DecidingObject]:
    """Return the objects of namespaces that can be listed by now.

    Their stamps are judged when they are stamped, and a higher token ends the term then (I1).
    """
    if not (sweep.left or sweep.trouble):
        return []
    try:
        return sweep.learn(sweep.run())
    except ApiError as error:
        logger.debug("cannot look into more namespaces: %s", error)
        return []
