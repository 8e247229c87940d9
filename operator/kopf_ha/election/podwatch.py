"""News of the replicas' Pods from their watch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from kopf_ha.api import Api
from kopf_ha.core.siblings import Pod, sibling_labels
from kopf_ha.election.known_pods import KnownPods
from kopf_ha.election.pod_client import pods_path, read_pod
from kopf_ha.settings import Settings

log = logging.getLogger("kopf_ha.election")


class PodNews:
    """Reads what a `ListWatch` brings: is my own Pod being deleted, is my revision outdated?

    Args:
        settings: my own Pod, the durations.
        known: takes the Pods, and that my own is being deleted.
        news: is called after each change.
        head_start: takes the seconds to leave a free Lease to others, whenever they change.
    """

    what = "Pods"

    def __init__(
        self, settings: Settings, known: KnownPods, news: Callable[[], None], head_start: Callable[[float], None]
    ) -> None:
        self.collection = pods_path(settings)
        self._settings = settings
        self._known = known
        self._news = news
        self._head_start = head_start
        self._outdated = False
        self._trouble = ""

    def selector(self, api: Api) -> Mapping[str, str] | None:
        """Select the Pods that are labelled as my own is; None if my own does not exist.

        Without labels only my own Pod is watched, since most Pods of the namespace would be strangers. The holder's is
        read all the same.

        Raises:
            ApiError: my own Pod cannot be read.
        """
        s = self._settings
        body = read_pod(api, s, s.pod_name)
        if body is None or body["metadata"]["uid"] != s.pod_uid:
            log.info(
                "there is no Pod %s of uid %s in namespace %s: the holder's Pod is not watched",
                s.pod_name, s.pod_uid, s.pod_namespace,
            )  # fmt: skip
            return None
        self._saw(body)
        if labels := sibling_labels(body):
            return {"labelSelector": ",".join(f"{k}={v}" for k, v in sorted(labels.items()))}
        return {"fieldSelector": f"metadata.name={s.pod_name}"}

    def listed(self, items: list[dict[str, Any]], version: str) -> None:
        """Take in the whole list."""
        with self._known.locked() as siblings:
            siblings.listed(Pod.parse(body) for body in items)
        for body in items:
            self._look_at(body)
        self._tell()

    def changed(self, kind: str, body: dict[str, Any]) -> None:
        """Take in one Pod. The watch shows a Pod that was labelled otherwise as deleted, too."""
        if kind == "DELETED":
            with self._known.locked() as siblings:
                siblings.lost_sight(str(body["metadata"]["uid"]))
        else:
            self._saw(body)
        self._tell()

    def trouble(self, cause: str) -> None:
        """Log what keeps the watch from working, once until it changes."""
        if cause == self._trouble:
            return
        self._trouble = cause
        if cause:
            log.warning("the holder's Pod is not watched, so a dead leader's Lease is waited for: %s", cause)
        else:
            log.info("the Pods are watched again")

    def _saw(self, body: dict[str, Any]) -> None:
        with self._known.locked() as siblings:
            siblings.saw(Pod.parse(body))
        self._look_at(body)

    def _look_at(self, body: dict[str, Any]) -> None:
        meta = body["metadata"]
        if meta["uid"] == self._settings.pod_uid and meta.get("deletionTimestamp"):
            # The kubelet's SIGTERM comes later than this, or never when the kubelet is stopped.
            self._known.leave(f"Pod {meta['name']} is being deleted")

    def _tell(self) -> None:
        self._news()
        with self._known.locked() as siblings:
            outdated = siblings.outdated()
        if outdated != self._outdated:
            self._outdated = outdated
            if outdated:
                log.info("a replica of a newer revision is ready: a Lease that is free is left to it first")
            self._head_start(self._settings.retry_period if outdated else 0.0)
