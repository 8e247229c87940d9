"""Writes the history of terms into the Term, once in a term, when the first objects were served.

It is written on the revision that was read, if that names this very process, and policies refuse any other pod's (I8).
Nothing waits for it: a takeover needs no request more, and a release says why in the request that it needs anyway.
"""

from __future__ import annotations

import datetime
import logging
import threading
from collections.abc import Callable
from dataclasses import replace

from kopf_ha._context import outside
from kopf_ha.api import Api
from kopf_ha.core.grant import Grant
from kopf_ha.core.hearing import term_path
from kopf_ha.core.history import Past, Taken, before, continued
from kopf_ha.core.refusal import outline
from kopf_ha.core.wire import MERGE_PATCH, Response, is_gone
from kopf_ha.errors import ApiError, ConfigurationError
from kopf_ha.run.threads import later as call_later
from kopf_ha.settings import Settings

logger = logging.getLogger("kopf_ha.run")

#: Seconds from the barrier until it is written: the first objects come first.
SOON = 2.0
#: Seconds for an answer.
TIMEOUT = 5.0
#: Seconds for which the end of a term waits, if its begin is not written yet.
AT_THE_END = 1.0
#: Attempts, if others change the Term at the same time.
_ATTEMPTS = 3


class History:
    """The history of one Lease. Its methods may be called from any thread, and raise nothing.

    Args:
        settings: name the Lease.
        make: makes an unfenced client: the fence lets nobody write a Term.
        later: calls a function after so many seconds, in a thread.
        wall: gives the time as RFC 3339.

    Attributes:
        tell: is told what the Lease has to say about the term's end when it is given back; empty for nothing.
    """

    def __init__(
        self,
        settings: Settings,
        make: Callable[[], Api],
        *,
        later: Callable[[float, Callable[[], None]], None] = call_later,
        wall: Callable[[], str] = lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
    ) -> None:
        self._off = settings.fence != "full"  # then there is no Term
        self._path = term_path(settings.lease_namespace, settings.lease_name)
        self._name = settings.lease_name
        self._term = f"Term {settings.lease}"
        self._make = make
        self._later = later
        self._wall = wall
        self._lock = threading.Lock()
        self._writing = threading.Lock()  #: of the requests, so that only one thread sends them
        self._api: Api | None = None
        self._grant: Grant | None = None
        self._mine: Past | None = None  #: the present or last term
        self._previous: Past | None = None
        self._written = True
        self._told = ""  #: what keeps it from being written, as the log said
        self.tell: Callable[[str], None] = lambda text: None

    def began(self, grant: Grant, taken: Taken | None) -> str:
        """Note that a term began; return how the one before ended, empty if there was none or if that is unknown.

        Args:
            grant: of the term.
            taken: the Lease as it was; None if that is unknown.
        """
        with self._lock:
            previous, own = before(taken) if taken else None, self._mine
            if previous is not None and own is not None and own.token == previous.token:
                previous = previous.over(replace(own, ended=previous.ended, gap=previous.gap))
            self._previous = previous
            acquired = taken.acquired if taken else self._wall()
            self._mine = Past(grant.stamp.token, holder=grant.stamp.holder, began=acquired)
            self._grant, self._written = grant, False
        self.tell("")
        return previous.reason if previous is not None else ""

    def barrier_up(self, seconds: float) -> None:
        """Note that the present term's barrier is up, and write soon."""
        with self._lock:
            if self._mine is None or self._grant is None:
                return
            self._mine, grant = replace(self._mine, barrier=seconds), self._grant
        self._later(SOON, lambda: self._write(grant))

    def ending(self, grant: Grant, reason: str, cause: str, *, wait: float = 0.0) -> None:
        """Note why a term ends, before its Lease is given back. The first call counts.

        Args:
            grant: of the term.
            reason: one of those in `core.history`.
            cause: a sentence.
            wait: seconds to wait until its begin is written, if it is not yet.
        """
        with self._lock:
            if grant is not self._grant or self._mine is None or self._mine.reason:
                return
            self._mine = self._mine.ended_by(reason, cause, self._wall())
            text, written = self._mine.as_text(), self._written
        self.tell(text)
        if not written and not self._off:
            thread = threading.Thread(target=self._write, args=(grant,), name="kopf-ha-history", daemon=True)
            with outside():
                thread.start()
            thread.join(wait)

    # --- writing

    def _write(self, grant: Grant) -> None:
        with self._writing:
            with self._lock:
                if grant is not self._grant or self._written or self._mine is None:
                    return
                self._written = True
                # If it ends already, the next leader hears how from the Lease.
                mine, previous = replace(self._mine, ended="", reason="", cause=""), self._previous
            try:
                with outside():  # the history of a term may be written when the term is over
                    trouble = self._send(grant, mine, previous)
            except (ApiError, ConfigurationError, OSError) as error:
                trouble = str(error)
            if trouble and trouble != self._told:
                logger.info("the history of terms is not written: %s. Only `kopf-ha history` needs it", trouble)
            self._told = trouble

    def _send(self, grant: Grant, mine: Past, previous: Past | None) -> str:
        """Read the Term and write its history; return why that cannot be."""
        self._api = api = self._api or self._make()
        answer = Response(0)
        for _ in range(_ATTEMPTS):
            answer = api.request("GET", self._path, timeout=TIMEOUT)
            term = answer.json if answer.ok else None
            if not isinstance(term, dict):
                break
            spec = term.get("spec") or {}
            if (spec.get("token"), spec.get("holder")) != (grant.stamp.token, grant.stamp.holder):
                return f"{self._term} is not this term's" if not grant.closed else ""
            made = continued(term.get("history"), previous, mine)
            version = (term.get("metadata") or {}).get("resourceVersion")
            body = {"metadata": {"resourceVersion": version}, "history": made}
            answer = api.request("PATCH", self._path, body, MERGE_PATCH, TIMEOUT)
            if answer.status != 409:
                break
        if not answer.ok:
            return self._why_not(answer)
        if isinstance(answer.json, dict) and "history" not in answer.json:
            return (
                "the definition of terms.kopf-ha.dev is of an earlier release, and keeps none; apply what"
                " `kopf-ha manifests --only term` writes"
            )
        return ""

    def _why_not(self, answer: Response) -> str:
        if is_gone(answer, self._name):
            return f"{self._term} does not exist (404); the next leader makes it, if it may"
        if answer.status == 404:
            return (
                f"{self._term} cannot be read (404), since the kind terms.kopf-ha.dev is not installed; apply what"
                " `kopf-ha manifests` writes, the policies among it"
            )
        help_ = "; `kopf-ha check` names what is missing" if answer.status == 403 else ""
        return f"{self._term} cannot be written ({outline(answer)}){help_}"
