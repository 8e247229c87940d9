"""Tries the objects that a barrier set aside again, as long as the term lasts.

A role that is missing for a moment, or a policy that somebody withdraws, must not keep an object out for the whole
term (I7), and no restart is needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from kopf_ha.api import Api
from kopf_ha.core.fence import Fence
from kopf_ha.core.grant import Grant
from kopf_ha.errors import ConfigurationError, TermEnded
from kopf_ha.run.deciding import DecidingObject, stamp_all

#: Seconds between tries: the first, and the longest.
DELAYS = (2.0, 60.0)


def delays() -> Iterator[float]:
    """Return the seconds before each try."""
    seconds, longest = DELAYS
    while True:
        yield seconds
        seconds = min(2 * seconds, longest)


def try_again(
    api: Api,
    fence: Fence,
    grant: Grant,
    aside: Sequence[DecidingObject],
    tell: Callable[[Sequence[DecidingObject]], None],
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Stamp the objects that are set aside, until none is left or the term is over.

    An object that got its stamp leaves `grant.set_aside`, and the fence lets its status be written from then on.

    Args:
        api: of a fenced client.
        fence: of this process.
        grant: of the term.
        aside: the objects that its barrier set aside.
        tell: takes the objects that are still set aside, whenever some were stamped.
        wait: waits for so many seconds.
    """
    left = list(aside)
    for seconds in delays():
        if not left:
            return
        wait(seconds)
        if grant.closed:
            return
        try:
            still = stamp_all(api, fence, grant, left)
        except (TermEnded, ConfigurationError):
            return  # the term ends, and the fence logged why; a kind that lost its stamp needs a new term
        grant.set_aside = frozenset(one.uid for one in still)
        fewer, left = len(still) < len(left), still
        if fewer:
            tell(left)
