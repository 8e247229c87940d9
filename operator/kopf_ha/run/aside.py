"""What a barrier set aside, tried again as long as its term lasts.

A role that was missing for a moment or a policy that somebody took back must not cost an object the whole term
(I7), and nobody has to restart anything for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from kopf_ha.api import Api
from kopf_ha.core.fence import Fence
from kopf_ha.core.grant import Grant
from kopf_ha.errors import ConfigurationError, TermEnded
from kopf_ha.run.deciding import Object, stamp_all

#: Seconds between tries: the first, and the longest.
DELAYS = (2.0, 60.0)


def delays() -> Iterator[float]:
    """Give the seconds before each try."""
    seconds, longest = DELAYS
    while True:
        yield seconds
        seconds = min(2 * seconds, longest)


def try_again(
    api: Api,
    fence: Fence,
    grant: Grant,
    aside: Sequence[Object],
    tell: Callable[[Sequence[Object]], None],
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Stamp what is set aside, until nothing is or the term is over.

    What got its stamp leaves `grant.set_aside`; from then on the fence lets its status be written.

    Args:
        api: of a fenced client.
        fence: of this process.
        grant: of the term.
        aside: what its barrier set aside.
        tell: is told of what is still set aside, whenever some of it was stamped.
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
            return  # whoever was refused has told, and the term ends; a kind without a stamp needs a new one
        grant.set_aside = frozenset(one.uid for one in still)
        fewer, left = len(still) < len(left), still
        if fewer:
            tell(left)
