"""The replicas' Pods: one thread watches them, another one judges the holder's, so that no read delays the watch."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from kubernetes.client import ApiClient

from kopf_ha.api import Api
from kopf_ha.core.lease import LeaseRecord
from kopf_ha.election.known_pods import KnownPods
from kopf_ha.election.listwatch import ListWatch
from kopf_ha.election.pod_client import REFUSED, pod_api
from kopf_ha.election.podjudge import PodJudge
from kopf_ha.election.podwatch import PodNews
from kopf_ha.settings import Settings

#: What the downward API has to set, and from which field.
_FIELDS = {"POD_NAME": "metadata.name", "POD_UID": "metadata.uid"}

log = logging.getLogger("kopf_ha.election")


class PodWatcher:
    """Watches and judges. Where it cannot, outside of a pod or without permission, it says so once: Leases expire.

    Args:
        settings: the Pod, the identity, the durations.
        make_client: gives a new `ApiClient`; called once for each thread, and again where it fails.
        holder: gives the Lease as it was seen last; None when there is none.
        gone: takes a holder identity whose Lease can be taken over now; called in a thread of the watcher.
        head_start: takes the seconds to leave a free Lease to others, whenever they change.
        deleted: takes a sentence when my own Pod is being deleted, once.
        confirm: asks whether stale writes would be refused; see `PodJudge`.
    """

    def __init__(
        self,
        settings: Settings,
        make_client: Callable[[], ApiClient],
        *,
        holder: Callable[[], LeaseRecord | None],
        gone: Callable[[str], None],
        head_start: Callable[[float], None],
        deleted: Callable[[str], None],
        confirm: Callable[[], str],
    ) -> None:
        self._settings = settings
        self.known = KnownPods(settings.pod_uid, deleted)
        news = PodNews(settings, self.known, self.nudge, head_start)

        def make_api() -> Api:
            return pod_api(settings, make_client())

        self._watch = ListWatch(news, make_api, settings, name="kopf-ha-pods-watch", refused=REFUSED)
        self._judge = PodJudge(
            settings, make_api, self.known, holder=holder, gone=gone, confirm=confirm, trouble=news.trouble
        )

    def start(self) -> None:
        """Start the threads, if this is a pod."""
        if not self._settings.pod_name:
            _say_why_not()
            return
        self._watch.start()
        self._judge.start()

    def stop(self) -> None:
        """End the threads, soon."""
        self._watch.stop()
        self._judge.stop()

    def nudge(self) -> None:
        """Say that the Lease names another holder. From any thread, without waiting."""
        self._judge.nudge()


def _say_why_not() -> None:
    missing = [name for name in _FIELDS if not os.environ.get(name)]
    if len(missing) == len(_FIELDS) and not os.environ.get("KUBERNETES_SERVICE_HOST"):
        log.info("not in a pod (%s are not set): the holder's Pod is not watched", " and ".join(missing))
        return
    log.warning(
        "%s: the holder's Pod is not watched. Set %s from the downward API (%s)%s",
        " and ".join(f"{name} is not set" for name in missing),
        " and ".join(missing),
        ", ".join(_FIELDS[name] for name in missing),
        "; without POD_UID the policies of `kopf-ha manifests` let no replica lead" if "POD_UID" in missing else "",
    )
