"""Requests to the Lease. What becomes of each is an event of the election."""

from __future__ import annotations

from collections.abc import Callable

from kubernetes.client import ApiClient

from kopf_ha._context import boottime
from kopf_ha.api import Api, single_attempts
from kopf_ha.core.election import events
from kopf_ha.core.lease import ENDED, ENFORCED, OPERATOR, LeaseRecord, lease_path
from kopf_ha.core.refusal import given_before
from kopf_ha.core.wire import Response
from kopf_ha.errors import ApiError, ApiRefused, MalformedLease
from kopf_ha.settings import Settings

_PAUSED = "the process or the machine was paused before a request to the Lease"


#: What to do without a permission. Roles allow one Lease by name, so one that is named wrongly looks the same.
_REMEDY = (
    "this replica's Lease is {} (--lease-namespace or KOPF_HA_LEASE_NAMESPACE, --lease-name or KOPF_HA_LEASE_NAME)."
    " If that is the right one, apply the Role and the RoleBinding that `kopf-ha manifests` writes. `kopf-ha check`"
    " says what is missing"
)


def lease_api(settings: Settings, client: ApiClient) -> Api:
    """Give a client of the Lease; the retries of the `ApiClient` are switched off."""
    return Api(single_attempts(client), remedy=_REMEDY.format(settings.lease))


class LeaseClient:
    """Reads and writes the Lease of `settings`, one request at a time.

    Args:
        settings: where the Lease is.
        api: a client of its own, as `lease_api` gives it.
        clock: the machine's boot-time clock, in seconds.
    """

    def __init__(self, settings: Settings, api: Api, clock: Callable[[], float] = boottime) -> None:
        self._settings = settings
        self._clock = clock
        self._api = api
        self._collection = lease_path(settings.lease_namespace)
        self._path = lease_path(settings.lease_namespace, settings.lease_name)
        self.note = ""  #: what each write says about enforcement from now on
        self.ended = ""  #: what a release says about how the term ended
        self._earlier = settings.earlier_lease  #: has to be looked at before the first write; empty for none
        #: the highest token that was given before, as a refusal said; 0 if none did
        self.floor = 0
        self._hidden: float | None = None  #: when it was forbidden first to look at it, on the clock

    def read(self, timeout: float) -> events.LeaseSeen | events.LeaseUnusable | events.ReadFailed:
        """GET the Lease from the quorum, unless the time is over already.

        Args:
            timeout: seconds for the answer.
        """
        if timeout <= 0:
            return events.ReadFailed(_PAUSED)
        try:
            record = LeaseRecord.parse(self._api.call("GET", self._path, timeout=timeout))
        except MalformedLease as error:
            return events.LeaseUnusable(str(error), read=True)
        except ApiRefused as error:
            return events.LeaseSeen(None, "", read=True) if error.status == 404 else events.ReadFailed(str(error))
        except ApiError as error:
            return events.ReadFailed(str(error))
        return events.LeaseSeen(record, record.resource_version, read=True)

    def write(
        self, record: LeaseRecord, timeout: float
    ) -> events.Written | events.Conflict | events.Failed | events.NotWritten:
        """PUT the record on its resourceVersion, or POST it when it has none, unless the time is over already.

        Args:
            record: what to write.
            timeout: seconds for the answer.

        Returns:
            `NotWritten` if the write certainly did not happen, `Failed` if it may have, or may happen later.
        """
        if timeout <= 0:
            return events.NotWritten(_PAUSED)
        if self._earlier:
            if cause := self._earlier_is_used(timeout, first=not record.resource_version):
                return events.NotWritten(cause)
            self._earlier = ""
        body = record.as_object(self._settings.lease_namespace, self._settings.lease_name)
        for name, text in ((ENFORCED, self.note), (ENDED, "" if record.holder else self.ended)):
            if text:
                body["metadata"].setdefault("annotations", {})[name] = text
            else:
                (body["metadata"].get("annotations") or {}).pop(name, None)
        method, path = ("PUT", self._path) if record.resource_version else ("POST", self._collection)
        try:
            return events.Written(LeaseRecord.parse(self._api.call(method, path, body, timeout=timeout)))
        except MalformedLease as error:
            return events.Failed(str(error))
        except ApiError as error:
            # A PUT answers 404 when the Lease is gone.
            if error.status == 409 or (error.status == 404 and record.resource_version):
                return events.Conflict()
            if isinstance(error, ApiRefused):
                said = given_before(Response(error.status, error.body))
                self.floor = max(self.floor, said)
            return events.NotWritten(str(error)) if error.definite else events.Failed(str(error))

    def _earlier_is_used(self, timeout: float, *, first: bool) -> str:
        """Return why my Lease must not be acquired yet: replicas of an earlier release may elect by another one (I3).

        They took one name where none was given, and may run beside this replica in a rolling update. The answer is
        either no or an error, never another name: that has to follow from what all replicas are told alone.

        Args:
            timeout: seconds for the answer.
            first: whether my Lease does not exist yet. Whoever made it has looked.
        """
        namespace, earlier = self._settings.lease_namespace, self._earlier
        try:
            record = self._api.call("GET", lease_path(namespace, earlier), timeout=timeout)
        except ApiRefused as error:
            if error.status == 403 and first:
                return self._may_have_led()
            return "" if error.status in (403, 404) else str(error)
        except ApiError as error:
            return str(error)
        owner = ((record.get("metadata") or {}).get("annotations") or {}).get(OPERATOR)
        if owner and owner != self._settings.operator:
            return ""
        return (
            f"Lease {namespace}/{earlier} exists, which earlier releases used where no name was given. If it is this"
            f" operator's, keep it with --lease-name={earlier}. If it is another's, say"
            f" --lease-name={self._settings.lease_name}"
        )

    def _may_have_led(self) -> str:
        """Return why to wait: who may not read a Lease cannot renew it, but may have a moment ago, with other roles."""
        now = self._clock()
        self._hidden = now if self._hidden is None else self._hidden
        left = self._hidden + self._settings.lease_duration - now
        earlier = f"Lease {self._settings.lease_namespace}/{self._earlier}"
        return (
            f"{earlier}, which earlier releases used where no name was given, may not be read, so whoever led by it"
            f" until now may do so for {left:.0f} s more; with --lease-name={self._settings.lease_name} nobody waits"
            if left > 0
            else ""
        )

    def close(self) -> None:
        """Drop the connection."""
        self._api.close()
