"""What becomes of a request to the Lease, as an event of the election."""

from __future__ import annotations

from kopf_ha.core.election import events
from kopf_ha.core.lease import LeaseRecord
from kopf_ha.election.client import LeaseClient
from kopf_ha.errors import ApiError, MalformedLease

_PAUSED = "the process or the machine was paused before a request to the Lease"


def write(
    client: LeaseClient, record: LeaseRecord, timeout: float
) -> events.Written | events.Conflict | events.Failed | events.Denied:
    """Send the record, unless its time is over already.

    Args:
        client: of the elector's own thread.
        record: what to write, on its resourceVersion.
        timeout: seconds for the answer.
    """
    if timeout <= 0:
        return events.Denied(_PAUSED)
    try:
        return events.Written(client.write(record, timeout))
    except MalformedLease as e:
        return events.Failed(str(e))
    except ApiError as e:
        if e.status == 409 or (e.status == 404 and record.resource_version):
            return events.Conflict()
        return events.Denied(str(e)) if e.definite else events.Failed(str(e))


def read(client: LeaseClient, timeout: float) -> events.LeaseSeen | events.LeaseUnusable | events.ReadFailed:
    """Ask for the Lease, unless the time is over already; at most `timeout` seconds."""
    if timeout <= 0:
        return events.ReadFailed(_PAUSED)
    try:
        record = client.read(timeout)
    except MalformedLease as e:
        return events.LeaseUnusable(str(e), read=True)
    except ApiError as e:
        return events.ReadFailed(str(e))
    return events.LeaseSeen(record, record.resource_version if record else "", read=True)
