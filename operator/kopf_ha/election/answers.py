"""What becomes of a request to the Lease, as an event of the table."""

from __future__ import annotations

from kopf_ha.core import election as table
from kopf_ha.core.lease import LeaseRecord
from kopf_ha.election.client import LeaseClient, Unreached
from kopf_ha.errors import MalformedLease

_PAUSED = "the process or the machine was paused before a request to the Lease"


def write(
    client: LeaseClient, record: LeaseRecord, timeout: float
) -> table.Written | table.Conflict | table.Failed | table.Denied:
    """Send the record, unless its time is over already.

    Args:
        client: of the elector's own thread.
        record: what to write, on its resourceVersion.
        timeout: seconds for the answer.
    """
    if timeout <= 0:
        return table.Denied(_PAUSED)
    try:
        return table.Written(client.write(record, timeout))
    except MalformedLease as e:
        return table.Failed(str(e))
    except Unreached as e:
        if e.status == 409 or (e.status == 404 and record.resource_version):
            return table.Conflict()
        return table.Denied(str(e)) if e.definite else table.Failed(str(e))


def read(client: LeaseClient, timeout: float) -> table.Seen | table.Unusable | table.ReadFailed:
    """Ask for the Lease, unless the time is over already; at most `timeout` seconds."""
    if timeout <= 0:
        return table.ReadFailed(_PAUSED)
    try:
        record = client.read(timeout)
    except MalformedLease as e:
        return table.Unusable(str(e), read=True)
    except Unreached as e:
        return table.ReadFailed(str(e))
    return table.Seen(record, record.resource_version if record else "", read=True)
