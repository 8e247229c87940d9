"""What the operator's code can never write: the first attempt of each code path is told, and all are counted.

Operators catch every exception around their writes. A refusal that no later term would change would vanish
there, and with it what the operator was to do. So it is reported: in a metric, an event, the log, and the readiness
probe.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from kopf_ha.adapters import Outcome
from kopf_ha.core.wire import WRITES
from kopf_ha.run.metrics import kind_of

#: How many code paths are told apart. Code that builds API paths from its data must not flood anything.
PATHS = 20
#: What all others are called.
OTHERS = "others"


def is_never(outcome: Outcome) -> bool:
    """Return whether one attempt was a write that is refused in every term, because of the code that sends it."""
    return outcome.refused is not None and outcome.refused.never and outcome.request.method in WRITES


@dataclass(eq=False)
class Never:
    """The code paths of this process that can never write, each with the number of its attempts.

    A code path is told by the error, the client, the verb and the kind. Names of objects are left out.
    """

    counts: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, outcome: Outcome) -> bool:
        """Count one attempt; return whether it was the first of its code path. From any thread."""
        asked = outcome.request
        path = f"{type(outcome.refused).__name__}, {outcome.client}, {asked.method} {kind_of(asked.path)}"
        with self._lock:
            if path not in self.counts and len(self.counts) >= PATHS:
                path = OTHERS
            self.counts[path] = self.counts.get(path, 0) + 1
            return self.counts[path] == 1

    def lines(self) -> tuple[str, ...]:
        """Return a line for each code path: ``NoTerm, kubernetes, PATCH configmaps: 3 attempts``."""
        with self._lock:
            return tuple(f"{path}: {n} attempt{'s' if n > 1 else ''}" for path, n in self.counts.items())
