"""How `pause`, `resume` and `handover` write their orders on the Lease, and watch what comes of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import click

from kopf_ha.core.lease import PAUSED, LeaseRecord, lease_path
from kopf_ha.core.siblings import pod_of
from kopf_ha.core.wire import MERGE_PATCH
from kopf_ha.errors import ApiRefused, ConfigurationError
from kopf_ha.oncall.cluster import TIMEOUT, Answered, Cluster, Unknown
from kopf_ha.oncall.find import Operator
from kopf_ha.oncall.output import printable

#: Seconds between two looks at the Lease. What is reported as "at most" is so much too long.
PERIOD = 0.05
#: How often an order is written again because the leader renewed the Lease in between.
ATTEMPTS = 20


class No(str):
    """Why nothing was changed, in a sentence."""

    __slots__ = ()


def write(
    cluster: Cluster,
    operator: Operator,
    judge: Callable[[Mapping[str, Any]], Mapping[str, str | None] | No],
) -> Mapping[str, Any] | No:
    """Annotate the Lease in exactly the revision that was judged; again if it was renewed in between.

    Args:
        cluster: where it is.
        operator: whose it is.
        judge: takes the Lease, and returns the annotations to write, None for one to remove, or why not to.

    Returns:
        The Lease as it is then.

    Raises:
        ApiError: it may not be written, or there is no answer.
    """
    path = lease_path(operator.namespace, operator.name)
    for _ in range(ATTEMPTS):
        body = read(cluster, operator)
        if body is None:
            return No(f"there is no Lease {operator.lease}, so no replica has led yet")
        change = judge(body)
        if isinstance(change, No):
            return change
        meta = {"resourceVersion": body["metadata"]["resourceVersion"], "annotations": dict(change)}
        answer = cluster.api.request("PATCH", path, {"metadata": meta}, MERGE_PATCH, TIMEOUT)
        if answer.ok:
            return dict(answer.json or {})
        if answer.status != 409:
            raise cluster.api.refused(answer, f"PATCH {path}")
    return No(f"Lease {operator.lease} changes all the time; try again")


def read(cluster: Cluster, operator: Operator) -> Mapping[str, Any] | None:
    """Read the Lease; None if there is none.

    Raises:
        ConfigurationError: it may not be read.
        ApiError: there is no answer.
    """
    found = cluster.read(lease_path(operator.namespace, operator.name))
    if isinstance(found, Unknown):
        raise ConfigurationError(found)
    return found.body if isinstance(found, Answered) else None


@dataclass(frozen=True, slots=True)
class Look:
    """The Lease at one moment.

    Args:
        record: what it shows.
        at: when it was read, in seconds of this process's clock: the begin and the end of the request.
    """

    record: LeaseRecord
    at: tuple[float, float]

    @property
    def leader(self) -> str:
        """The pod of the holder, or the whole identity if it is of no pod; empty for none."""
        return pod_of(self.record.holder)[0] or self.record.holder


def looks(cluster: Cluster, operator: Operator, timeout: float) -> Iterator[Look]:
    """Look at the Lease again and again, for so many seconds.

    Raises:
        MalformedLease: it cannot be used.
        ConfigurationError: it was deleted.
        ApiError: there is no answer.
    """
    until = time.monotonic() + timeout
    while True:
        began = time.monotonic()
        body = read(cluster, operator)
        if body is None:
            raise ConfigurationError(f"Lease {operator.lease} was deleted meanwhile")
        yield Look(LeaseRecord.parse(body), (began, time.monotonic()))
        if time.monotonic() >= until:
            return
        time.sleep(PERIOD)


def annotation(body: Mapping[str, Any], name: str) -> str | None:
    """Return an annotation of an object; None if it has none of that name."""
    notes = (body.get("metadata") or {}).get("annotations") or {}
    return str(notes[name] or "") if name in notes else None


def is_paused(body: Mapping[str, Any]) -> bool:
    """Whether a Lease has the annotation that pauses, whatever else it contains."""
    return annotation(body, PAUSED) is not None


def myself(cluster: Cluster) -> str:
    """Return the user name by which the API server knows whoever asks; empty if it does not tell."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    try:
        answer = cluster.api.call("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body, timeout=TIMEOUT)
    except ApiRefused:  # before Kubernetes 1.28, or somebody took this right away
        return ""
    return str((((answer.get("status") or {}).get("userInfo") or {}).get("username")) or "")


def say(output: str, text: str) -> None:
    """Tell people how it goes; programs get one answer at the end."""
    if output == "table":
        click.echo(printable(text))


def declined(why: str) -> None:
    """Say why nothing was changed."""
    click.echo(f"not done: {printable(why)}", err=True)
