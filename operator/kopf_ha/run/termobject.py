"""The Term: by it the API server knows who leads, for the policy that lets only the leader's pod write (line 4).

A new leader writes it once, before its barrier. The rule of its definition is the compare-and-swap: the token rises, or
nothing changes. So a write that is late changes nothing, and a token that was given before is found out (I2).

An API server hears of it some milliseconds later, so the leader asks the one that it is connected to, by a dry run that
changes nothing, before any handler runs. The other API servers behind a load balancer cannot be asked one by one. The
fence waits where one of them has not heard (`core.hearing`); programs without an adapter meet its refusal there.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from typing import Any

from kopf_ha._context import boottime
from kopf_ha.api import WAITS, Api, refusal
from kopf_ha.core.grant import Grant
from kopf_ha.core.hearing import API, TERMS, check_floor, term_path
from kopf_ha.core.refusal import Leader, denial_of, outline
from kopf_ha.core.wire import MERGE_PATCH, Response, is_gone
from kopf_ha.errors import ApiError, GateClosed
from kopf_ha.settings import Settings

logger = logging.getLogger("kopf_ha.run")

#: Seconds until an API server that has not heard of the term is taken for one that does not hear.
HEARD = 2.0
#: Seconds in which an API server usually hears of the very first Term. Before, it answers as if there were no policy.
FIRST = 0.1
#: Seconds between two questions: the shortest and the longest.
PAUSES = (0.002, 0.1)
#: The query of the question which Term an API server knows. Nothing is changed by it.
QUESTION = "?dryRun=All&fieldManager=kopf-ha-ask%3Aterm"
#: The answer to it, as the policy gives it.
_KNOWN = re.compile(r"fencing: the term is (\d+) of pod (\S+)")
#: Attempts to change a Term that others make or delete at the same time.
_ATTEMPTS = 5


class TermObject:
    """Writes the Term of one Lease, and asks which one an API server knows. Errors concern one term.

    Args:
        api: of an unfenced client: the fence lets nobody write a Term.
        settings: name the Lease.
        fresh: makes another such client, with connections of its own.
        clock: the machine's boot-time clock, in seconds.
        pause: waits for so many seconds.

    Attributes:
        trouble: why the Term is not written; empty if it is.
        deaf: a sentence about an API server that has not heard of it; empty if there is none.
    """

    def __init__(
        self,
        api: Api,
        settings: Settings,
        fresh: Callable[[], Api],
        clock: Callable[[], float] = boottime,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._api = api
        self._fresh = fresh
        self._lease = settings.lease
        self._namespace, self._name = settings.lease_namespace, settings.lease_name
        self._path = term_path(self._namespace, self._name)
        self._clock = clock
        self._pause = pause
        self._since = 0.0  #: when it was written
        self._created = False
        self.trouble = "no term began yet"
        self.deaf = ""

    def write(self, grant: Grant) -> None:
        """Write the Term of a term that begins. Where that cannot be, one log line says why.

        Raises:
            FloorLost: the Term has a token that is not below this term's, and is another process's.
            ApiError: the API server did not say.
            GateClosed: the term is over.
        """
        mine = grant.stamp
        self.deaf, self._created = "", False
        spec = {"token": mine.token, "holder": mine.holder, "podUID": mine.pod_uid}
        self.trouble = self._write(spec, grant)
        self._since = self._clock()
        if self.trouble:
            logger.warning("the Term of Lease %s is not written: %s", self._lease, self.trouble)

    def hear(self, grant: Grant) -> None:
        """Wait until the API server has heard of the Term that was written, or until it should have long ago."""
        if self.trouble:
            return
        wait = PAUSES[0]
        while not grant.closed:
            known = self._known(self._api)
            self._note(grant, known)
            waited = self._clock() - self._since
            if not self.deaf and (known is not None or not self._created or waited >= FIRST):
                return
            if waited >= HEARD:
                logger.error("after %.1f s %s", waited, self.deaf)
                return
            self._pause(wait)
            wait = min(2 * wait, PAUSES[1])

    def look(self, grant: Grant) -> None:
        """Ask once more, while the term lasts: by a new connection, which may reach another API server."""
        if self.trouble:
            return
        api = self._fresh()
        try:
            self._note(grant, self._known(api))
        finally:
            api.close()

    def missing(self) -> list[str]:
        """Return sentences about what was found last."""
        if self.trouble:
            return [f"the Term of Lease {self._lease} is not written, so no policy knows who leads: {self.trouble}"]
        return [self.deaf] if self.deaf else []

    # --- writing

    def _write(self, spec: dict[str, Any], grant: Grant) -> str:
        """Change the Term, or create it; return why that cannot be."""
        answer = Response(0)
        for _ in range(_ATTEMPTS):
            answer = self._send("PATCH", self._path, {"spec": spec}, MERGE_PATCH, grant)
            if answer.status == 404 and is_gone(answer, self._name):
                metadata = {"name": self._name, "namespace": self._namespace}
                body = {"apiVersion": API, "kind": "Term", "metadata": metadata, "spec": spec}
                answer = self._send("POST", term_path(self._namespace), body, "", grant)
                self._created = answer.ok
            if answer.status != 409:  # it came or went meanwhile
                break
        return "" if answer.ok else self._why_not(answer, grant)

    def _send(self, method: str, path: str, body: Any, content_type: str, grant: Grant) -> Response:
        for wait in (*WAITS, 0.0):
            left = grant.remaining(self._clock())
            if left <= 0:
                cause = grant.closed or "its lease ran out on this machine"
                raise GateClosed(f"{method} {path}: the term is over ({cause})", cause)
            answer = self._api.request(method, path, body, content_type, left)
            # An API server that meets a custom kind for the first time answers 429.
            if answer.status not in (429, 503) or not wait:
                break
            self._pause(wait)
        return answer

    def _why_not(self, answer: Response, grant: Grant) -> str:
        if answer.status == 404:
            return f"the kind {TERMS} is not installed; apply what `kopf-ha manifests` writes"
        if answer.status == 403:
            help_ = "apply the roles and policies that `kopf-ha manifests` writes for this Lease and service account"
            return f"the API server does not allow it ({outline(answer)}); {help_}"
        if answer.status not in (400, 422):
            raise refusal(f"cannot write the Term of Lease {self._lease}", answer)
        found = self._api.request("GET", self._path)
        spec = found.json.get("spec") if found.ok and isinstance(found.json, dict) else None
        check_floor(spec, grant.stamp)
        return (
            f"the API server takes no Term with token {grant.stamp.token} ({outline(answer)}), and the present one is"
            f" {_shown(spec)}; put it right, or remove the binding that keeps it and then"
            f" `kubectl -n {self._namespace} delete {TERMS} {self._name}`"
        )

    # --- asking

    def _known(self, api: Api) -> Leader | None:
        """Return which Term the API server knows, by its policy; None if no policy answers."""
        try:
            answer = api.request("PATCH", self._path + QUESTION, {}, MERGE_PATCH, HEARD)
            if not answer.ok and answer.status not in (403, 404):
                raise refusal(f"cannot find out which Term of Lease {self._lease} is known", answer)
        except ApiError as error:
            logger.warning("%s", error)
            return None
        denial = denial_of(answer)
        if denial is None or not denial.is_ours or not denial.policy.endswith("-term"):
            return None
        found = _KNOWN.fullmatch(denial.message)
        return Leader(int(found[1]), found[2]) if found else None

    def _note(self, grant: Grant, known: Leader | None) -> None:
        mine = grant.stamp
        self.deaf = ""
        # A later one is no fault of the API server's: this term is over then.
        if known is not None and known.token <= mine.token and known != (mine.token, mine.pod_uid):
            self.deaf = (
                f"the API server at {self._api.client.configuration.host} has not heard of term {mine.token}, but knows"
                f" term {known.token} of pod {known.pod_uid}: its informer of Terms lags or hangs, so it accepts what"
                " that pod writes without a stamp, and refuses that to this leader; restart it"
            )


def _shown(spec: object) -> str:
    if not isinstance(spec, dict):
        return "not readable"
    return ", ".join(f"{name}: {spec.get(name)!r}"[:80] for name in ("token", "holder", "podUID"))
