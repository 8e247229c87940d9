"""Reports what happens to a replica's terms: in metrics, in events and in the log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from kopf_ha._context import boottime
from kopf_ha.adapters import Outcome
from kopf_ha.api import Api
from kopf_ha.core.grant import Grant
from kopf_ha.core.history import LOST, STOPPED, Taken
from kopf_ha.core.orders import reason_of
from kopf_ha.core.refusal import REFUSED
from kopf_ha.election import Elector
from kopf_ha.run.events import About, Events, own_pod
from kopf_ha.run.history import History
from kopf_ha.run.level import LEVELS
from kopf_ha.run.metrics import Metrics
from kopf_ha.run.never import Never, is_never
from kopf_ha.run.report import Report, log_refusal
from kopf_ha.settings import Settings

logger = logging.getLogger("kopf_ha.run")

#: Seconds to wait for events that were not sent yet, before the process ends.
FLUSH = 1.0
#: How many of the objects that are set aside are named.
SHOWN = 10


class Journal:
    """Reports about the terms of one runner. Nothing here may keep a term from beginning or ending.

    Args:
        settings: the replica's.
        make_api: makes an unfenced client, for events.
    """

    def __init__(self, settings: Settings, make_api: Callable[[], Api]) -> None:
        self._settings = settings
        self.metrics = Metrics(settings)
        self.events = Events(settings, make_api)
        self.history = History(settings, make_api)
        self.report = Report()
        self._lease_uid = ""
        self._missing: list[str] = []  #: what the API server does not enforce, as found in this term
        self.never = Never()
        self._aside = 0  #: how many objects are set aside in this term
        self._ended_at = 0.0
        self._held_at: float | None = None  #: since when the present term's grant is held; None while it is not
        self._pod = own_pod(settings)

    def watch(self, elector: Elector) -> None:
        """Let the metrics ask the election at each scrape, and a release say how the term ended."""
        self.metrics.watch(lambda: elector.grant, paused=lambda: elector.pause is not None)
        self.history.tell = elector.tell_end

    def began(self, grant: Grant, lease_uid: str, taken: Taken | None = None) -> None:
        """Report that a term began, by the Lease with this uid, which was taken in this state."""
        token, holder = grant.stamp.token, grant.stamp.holder
        self.report, self._lease_uid = Report(grant, boottime()), lease_uid
        self._missing, self._aside, self._held_at = [], 0, None
        after = self.history.began(grant, taken)
        self.metrics.leads(token, after)
        self._post("Leading", "BecameLeader", f"{holder} became leader with token {token}")

    def held(self, grant: Grant, cause: str) -> None:
        """Report that the present term's writes wait; the election's log has said so."""
        if grant is self.report.grant:
            self._held_at = boottime()

    def reopened(self, grant: Grant) -> None:
        """Report that they go on in the same term."""
        if grant is not self.report.grant or self._held_at is None:
            return
        seconds, self._held_at = boottime() - self._held_at, None
        self.metrics.recovered()
        waited = f"its Lease could not be renewed, and writes waited for {seconds:.1f} s"
        line = f"term {grant.stamp.token} goes on: {waited}"
        logger.info("%s", line)
        self._post("Recovered", "Recovered", line)

    def barrier_up(self, seconds: float, objects: int, behind: int = 0) -> None:
        """Report that the present term's barrier is up.

        Args:
            seconds: how long it took.
            objects: how many deciding objects it stamped.
            behind: how many are stamped while handlers run.
        """
        self.report.barrier = (seconds, objects + behind)
        self.metrics.barrier_took(seconds)
        self.history.barrier_up(seconds)
        token = self.report.grant.stamp.token if self.report.grant else 0
        more = f"; {behind} are stamped behind" if behind else ""
        logger.info("barrier: %d deciding objects stamped with token %d in %.3f s%s", objects, token, seconds, more)

    def caught_up(self, seconds: float, aside: int) -> None:
        """Report that no stamp of the present term is left behind.

        Args:
            seconds: how long handlers ran meanwhile.
            aside: how many objects could not be stamped.
        """
        but = f" but {aside}" if aside else ""
        logger.info("all deciding objects%s are stamped, %.1f s after the barrier", but, seconds)

    def set_aside(self, objects: Sequence[object]) -> None:
        """Report what is set aside in the present term: after its barrier, and when a later try stamped some of it."""
        before, self._aside = self._aside, len(objects)
        if not objects:
            logger.info("all deciding objects that were set aside are stamped now")
            return
        shown = "; ".join(str(one) for one in objects[:SHOWN])
        more = f"; and {len(objects) - SHOWN} more" if len(objects) > SHOWN else ""
        line = f"{len(objects)} deciding objects are set aside; nothing is decided from them until they are stamped"
        logger.error("%s: %s%s", line, shown, more)
        if not before:
            self._post("SetAside", "SetAside", f"{line}: {shown}{more}", warning=True)

    def not_listed(self, namespaces: Mapping[str, str]) -> None:
        """Report which namespaces could not be listed in the present term, each with the cause, or that all are."""
        if not namespaces:
            logger.info("all namespaces that could not be listed are looked at now")
        for name, cause in namespaces.items():
            logger.warning(
                "namespace %s is not looked at, and no status of its deciding objects is written until it is; it is"
                " tried again: a Role is missing, or the namespace does not exist yet: %s",
                name,
                cause,
            )

    def not_enforced(self, missing: Sequence[str]) -> None:
        """Report what the API server does not enforce; within a term only when that changed."""
        self.metrics.missing.set(len(missing))
        before, self._missing = self._missing, list(missing)
        if before and not missing:
            logger.info("the API server enforces the fence again")
        if before == self._missing:
            return
        for sentence in missing:
            logger.warning("not enforced by the API server: %s", sentence)
        if missing:
            self._post("NotEnforced", "NotEnforced", "; ".join(missing), warning=True)

    def enforced(self, level: str) -> None:
        """Report at which level the API server enforces the fence; in the log when it is known, or has changed."""
        self.metrics.enforces(level)
        if level != self.report.level:
            self.report.level = level
            token = self.report.grant.stamp.token if self.report.grant else 0
            logger.info("term %d: the API server enforces level %s: %s", token, level, LEVELS[level])

    def wrote(self, outcome: Outcome) -> None:
        """Report how one attempt to write ended. Called in the writer's thread."""
        self.metrics.count(outcome)
        if outcome.grant is None or outcome.grant is self.report.grant:
            self.report.add(outcome)
        log_refusal(outcome)
        if is_never(outcome):
            self._never_wrote(outcome)

    def _never_wrote(self, outcome: Outcome) -> None:
        """Report a write that is refused in every term: whoever sent it may have caught the error."""
        assert outcome.refused is not None  # noqa: S101  `is_never` says so
        self.metrics.count_never(outcome.refused)
        if self.never.add(outcome):
            error = f"{outcome.client}: {type(outcome.refused).__name__}: {outcome.refused}"
            line = "the operator's code tried a write that is refused in every term"
            logger.error("%s: %s", line, error)
            self._post("Unfenced", "Unfenced", f"{line}: {error}", warning=True)

    def ended(self, grant: Grant, cause: str, *, lost: bool) -> None:
        """Report that a term's grant is closed; its handlers may still run.

        Args:
            grant: of the term.
            cause: why it ended, in a sentence.
            lost: whether it ended against the replica's will.
        """
        self._ended_at = boottime()
        reason = reason_of(cause, LOST if lost else STOPPED)
        self.metrics.ended(reason)
        if self._held_at is not None:
            self._held_at = None
            self.metrics.not_recovered()
        stopped = f"{grant.stamp.holder} stopped leading, token {grant.stamp.token}: {cause}"
        self._post(reason.capitalize(), "StoppedLeading", stopped, warning=lost)

    def over(self, grant: Grant, cause: str) -> None:
        """Log one line that sums the term up, after its last handler ended."""
        now, report, stamp = self._ended_at, self.report, grant.stamp
        line = "term %d of %s is over: %s"
        extra = {"term": report.fields(cause, now)}
        logger.info(line, stamp.token, stamp.holder, report.summary(cause, now), extra=extra)
        if stale := dict(sorted(report.stale.items())):
            told = ", ".join(f"{line} {count}" for line, count in stale.items())
            said = f"{sum(stale.values())} writes of {stamp.holder}, token {stamp.token}, were refused as stale: "
            notes = {REFUSED: ",".join(f"{line}={count}" for line, count in stale.items())}
            self.events.post(self._lease, "StaleWrites", said + told, warning=True, notes=notes)

    def flush(self) -> None:
        """Wait for the events that are not sent yet, at most `FLUSH` seconds."""
        self.events.flush(FLUSH)

    @property
    def _lease(self) -> About:
        s = self._settings
        return About("coordination.k8s.io/v1", "Lease", s.lease_namespace, s.lease_name, self._lease_uid)

    def _post(self, on_lease: str, on_pod: str, message: str, *, warning: bool = False) -> None:
        s = self._settings
        self.events.post(self._lease, on_lease, message, warning=warning)
        if self._pod is not None:
            self.events.post(self._pod, on_pod, f"{message} (Lease {s.lease})", warning=warning)
