"""What became of the writes: counted, and each refusal in one readable line."""

from __future__ import annotations

import logging
import threading
from collections import Counter

from kopf_ha.adapters import Outcome
from kopf_ha.core.wire import WRITES

logger = logging.getLogger("kopf_ha.fence")

#: How much of a request or an answer a line shows.
SHOWN = 1000


class Report:
    """Counts by (client, outcome), where the outcome is a status class or the line that refused."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts: Counter[tuple[str, str]] = Counter()

    def add(self, outcome: Outcome) -> None:
        """Count one attempt, and log it if it was refused."""
        if outcome.request.method not in WRITES:
            return
        refused = outcome.refused
        with self._lock:
            self.counts[outcome.client, outcome.result] += 1
        if refused is None:
            return
        token = outcome.grant.stamp.token if outcome.grant else None
        logger.warning(
            "refused by %s, token %s, %s: %s: %s", refused.line, token, outcome.client, type(refused).__name__, refused
        )
        if refused.sent is not None:
            sent = refused.sent
            logger.info("refused request: %s %s %s", sent.method, sent.path, _text(sent.body))
        if refused.answer is not None:
            logger.info("refused answer: %s %s", refused.answer.status, _text(refused.answer.body))

    def summary(self) -> str:
        """Give the counts in one line: ``kopf 2xx 31, pykube precondition 1``."""
        with self._lock:
            return ", ".join(f"{c} {w} {n}" for (c, w), n in sorted(self.counts.items())) or "no writes"


def _text(body: bytes) -> str:
    text = body[:SHOWN].decode("utf-8", "replace").replace("\n", " ")
    return text + ("…" if len(body) > SHOWN else "")
