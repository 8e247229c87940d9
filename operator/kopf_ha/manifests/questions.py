"""What is asked to find out whether the API server enforces the fence: dry runs that must be refused.

Replicas ask (`run/selftest.py`), and so does whoever runs `kopf-ha check`. Nothing here sends anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from kopf_ha.core.refusal import denial_of
from kopf_ha.core.token import TOKEN_MAX, Stamp
from kopf_ha.core.wire import Response
from kopf_ha.manifests.description import Description
from kopf_ha.manifests.lease import DESCRIBED

#: The query of a dry run.
DRY_RUN = "?dryRun=All"
#: Tells the policy about the Term that it need not judge a dry run, so that a follower learns of the others.
BY_SELFTEST = "&fieldManager=kopf-ha-ask%3Akind"
#: The uid of a pod that does not exist.
NOBODY = "00000000-0000-0000-0000-000000000000"


def question(manager: str = "") -> str:
    """Return the query of a dry run, by which a rule is asked about.

    Args:
        manager: the field manager that names the question (`Rule.asked`); empty for none.
    """
    return DRY_RUN + (f"&fieldManager={quote(manager, safe='')}" if manager else "")


def described_by(answer: Response) -> Description | None:
    """Return what the policies were written from, by the refusal of the question about it; None if it is another.

    Raises:
        ConfigurationError: another version of kopf-ha wrote them.
    """
    denial = denial_of(answer)
    if answer.status != 403 or denial is None or not denial.message.startswith(DESCRIBED):
        return None
    return Description.from_json(denial.message.removeprefix(DESCRIBED))


def another_pods(recorded: int, mine: Stamp) -> dict[str, Any]:
    """Return a status patch with a higher token and another pod's stamp, which a policy must refuse (I3).

    Args:
        recorded: the token that the object records; 0 for none.
        mine: the stamp of the writer.
    """
    above = min(max(recorded, mine.token) + 1, TOKEN_MAX)
    return stamping(Stamp(above, "selftest", mine.lease, NOBODY))


def lower(recorded: int, mine: Stamp) -> dict[str, Any]:
    """Return a status patch with a lower token than the recorded one, which the CRD's rule must refuse (I1).

    Args:
        recorded: the token that the object records, at least 2.
        mine: the stamp of the writer.
    """
    return stamping(Stamp(recorded - 1, mine.holder, mine.lease, mine.pod_uid))


def stamping(stamp: Stamp) -> dict[str, Any]:
    """Return a status patch that contains only a stamp."""
    return {"status": {"fencing": stamp.as_status()}}


def counting(lease: Mapping[str, Any], less: int = 0) -> dict[str, Any]:
    """Return a Lease with a lower count, which a policy must refuse (I2); by 0, the Lease as it is.

    Args:
        lease: as read; it counts terms.
        less: how much lower.
    """
    spec = lease["spec"]
    return {**lease, "spec": {**spec, "leaseTransitions": spec["leaseTransitions"] - less}}
