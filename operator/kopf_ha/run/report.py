"""What became of a term's writes: counts for the summary at its end, and a log line for each refusal."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from typing import Any

from kopf_ha.adapters import Outcome
from kopf_ha.core.asked import carried
from kopf_ha.core.grant import Grant
from kopf_ha.core.refusal import outline
from kopf_ha.core.wire import WRITES
from kopf_ha.errors import TermEnded

logger = logging.getLogger("kopf_ha.fence")


class Report:
    """Counts the writes of one term.

    Args:
        grant: of the term; None for writes outside any term.
        began: when it began, in seconds on the machine's boot-time clock.
    """

    def __init__(self, grant: Grant | None = None, began: float = 0.0) -> None:
        self.grant = grant
        self.began = began
        self.barrier: tuple[float, int] | None = None  #: seconds it took, objects it stamped
        self.level = ""  #: at which the API server enforces the fence; empty while that is unknown
        self._lock = threading.Lock()
        self.counts: Counter[tuple[str, str]] = Counter()  #: by client, and status class or line that refused
        self.stale: Counter[str] = Counter()  #: by line: those refused because the term was over, or had to end
        self.never: Counter[str] = Counter()  #: by error: those that are refused in every term

    def add(self, outcome: Outcome) -> None:
        """Count one attempt."""
        if outcome.request.method in WRITES:
            with self._lock:
                self.counts[outcome.client, outcome.result] += 1
                if isinstance(outcome.refused, TermEnded):
                    self.stale[outcome.refused.line] += 1
                if outcome.refused is not None and outcome.refused.never:
                    self.never[type(outcome.refused).__name__] += 1

    def fields(self, cause: str, now: float) -> dict[str, Any]:
        """Return the summary as fields for JSON.

        Args:
            cause: why the term ended, in a sentence.
            now: when it ended, on the same clock as `began`.
        """
        with self._lock:
            counts, never = sorted(self.counts.items()), dict(self.never)
        found: dict[str, Any] = {"cause": cause, "led_seconds": round(now - self.began, 3)}
        if self.barrier is not None:
            seconds, objects = self.barrier
            found |= {"barrier_seconds": round(seconds, 3), "barrier_objects": objects}
        if self.level:
            found["level"] = self.level
        writes: dict[str, dict[str, int]] = {}
        refused: dict[str, int] = {}
        for (client, result), number in counts:
            writes.setdefault(client, {})[result] = number
            if not result.endswith("xx"):
                refused[result] = refused.get(result, 0) + number
        found |= {"writes": writes, "refused": refused}
        return found | ({"refused_in_every_term": never} if never else {})

    def summary(self, cause: str, now: float) -> str:
        """Return the summary as a line for people: ``led 12.3 s; barrier 0.1 s, 40 objects; kopf 2xx 31; …``."""
        f = self.fields(cause, now)
        barrier = "barrier not up"
        if self.barrier is not None:
            barrier = f"barrier {f['barrier_seconds']:.3f} s, {f['barrier_objects']} objects"
        writes = ", ".join(f"{c} {w} {n}" for c, by in f["writes"].items() for w, n in by.items())
        refused = ", ".join(f"{line} {n}" for line, n in f["refused"].items())
        never = ", ".join(f"{error} {n}" for error, n in f.get("refused_in_every_term", {}).items())
        return (
            f"led {f['led_seconds']:.1f} s; {barrier}; writes: {writes or 'none'};"
            f" refused: {refused or 'none'}{f', in every term: {never}' if never else ''}; cause: {cause}"
        )


def log_refusal(outcome: Outcome) -> None:
    """Log one attempt if it was refused: the request and the answer.

    Only names, verbs and tokens: bodies may hold passwords, and an API server's message may quote them.
    """
    refused = outcome.refused
    if refused is None or outcome.request.method not in WRITES:
        return
    token = outcome.grant.stamp.token if outcome.grant else None
    logger.warning(
        "refused by %s, token %s, %s: %s: %s", refused.line, token, outcome.client, type(refused).__name__, refused
    )
    if refused.sent is not None:
        lease = outcome.grant.stamp.lease if outcome.grant else ""
        sent, (stamp, version) = refused.sent, carried(refused.sent, lease)
        told = f", with token {stamp.token}" if stamp else ""
        told += f", if resourceVersion is {version}" if version else ""
        logger.info("refused request: %s %s%s", sent.method, sent.path, told)
    if refused.answer is not None:
        logger.info("refused answer: %s", outline(refused.answer))
