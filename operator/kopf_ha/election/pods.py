"""The threads that watch the replicas' Pods: is the holder's gone, is my own being deleted, is mine outdated?"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any
from urllib.parse import quote

from kubernetes.client import ApiClient

from kopf_ha.api import Api, single_attempts
from kopf_ha.core.lease import LeaseRecord
from kopf_ha.core.pods import Pod, Siblings, pod_of, sibling_labels
from kopf_ha.election.watcher import SILENCE
from kopf_ha.errors import ApiError, ApiRefused
from kopf_ha.settings import Settings

log = logging.getLogger("kopf_ha.election")

#: Seconds until something is tried again without permission, which may come while this runs.
REFUSED = 30.0


class PodClient:
    """The Pods of the replica's own namespace. Not for two threads at once, but for `interrupt`.

    Args:
        settings: the namespace.
        client: an `ApiClient` for this object alone; its retries are switched off.
    """

    def __init__(self, settings: Settings, client: ApiClient) -> None:
        namespace = settings.pod_namespace
        self._api = Api(
            single_attempts(client), rbac=f"deploy/ (a Role in namespace {namespace}: pods: get, list, watch)"
        )
        self._collection = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods"

    def read(self, name: str, timeout: float) -> dict[str, Any] | None:
        """GET one from the quorum; None when there is none.

        Raises:
            ApiRefused: the request was refused.
            Unreached: no usable answer within `timeout` seconds.
        """
        try:
            return self._api.call("GET", f"{self._collection}/{quote(name, safe='')}", timeout=timeout)
        except ApiRefused as e:
            if e.status == 404:
                return None
            raise

    def list(self, selector: tuple[str, str], timeout: float) -> tuple[list[dict[str, Any]], str]:
        """LIST those of a selector (`labelSelector` or `fieldSelector`, its value) from the quorum.

        Gives the resourceVersion to watch from, too.

        Raises:
            ApiRefused: the request was refused.
            Unreached: no usable answer within `timeout` seconds.
        """
        found: list[dict[str, Any]] = []
        version = ""
        for page in self._api.pages(self._collection, dict([selector]), timeout=timeout):
            found += page.get("items") or []
            version = str(page["metadata"]["resourceVersion"])
        return found, version

    def watch(self, selector: tuple[str, str], version: str, timeout: float) -> Iterator[dict[str, Any]]:
        """Give the watch's events; see `Api.stream`."""
        query = {**dict([selector]), "resourceVersion": version}
        return self._api.stream(self._collection, query, timeout=timeout, silence=SILENCE)

    def interrupt(self) -> None:
        """End a `watch` that another thread is blocked in, and any later one."""
        self._api.interrupt()

    def close(self) -> None:
        """Drop the connections."""
        self._api.close()


class PodWatcher:
    """One thread watches, another one judges, so that no read keeps the watch waiting.

    Where it cannot work (outside of a pod, without permission) it says so once, and Leases are waited for as ever.

    Args:
        settings: the Pod, the identity, the durations.
        make_client: gives an `ApiClient` of its own; called twice.
        holder: gives the Lease as it was seen last; None when there is none.
        gone: takes a holder identity that can be taken over now; called in a thread of its own.
        head_start: takes the seconds to leave to others, whenever they change.
        deleted: takes a sentence when my own Pod is being deleted, once.
        confirm: asks whether stale writes would be refused: fast takeover is safe by that alone. Gives why it
            is off, or "". May take a while. Asked at the start, too, so that what it needs is known when it matters.
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
        self._make_client = make_client
        self._holder = holder
        self._gone = gone
        self._head_start = head_start
        self._deleted = deleted
        self._confirm = confirm
        self._siblings = Siblings(settings.pod_uid)
        self._lock = threading.Lock()  #: of `_siblings`
        self._stopping = threading.Event()
        self._news = threading.Event()
        self._watch_client: PodClient | None = None
        self._trouble = ""
        self._settled: set[str] = set()  #: holders that were judged for good
        self._off = ("", "")  #: of which holder it was said last that its Lease is waited for, and why
        self._asked: set[str] = set()  #: uids that were asked for, since the watch did not show them
        self._outdated = False
        self._leaving = False

    def start(self) -> None:
        """Start the threads, if this is a pod."""
        if not self._settings.pod_name:
            log.info("not in a pod (POD_NAME and POD_UID are not set): the holder's Pod is not watched")
            return
        for name, main in (("watch", self._run), ("judge", self._judge)):
            threading.Thread(target=main, name=f"kopf-ha-pods-{name}", daemon=True).start()

    def stop(self) -> None:
        """End the threads, soon."""
        self._stopping.set()
        self._news.set()
        if self._watch_client is not None:
            self._watch_client.interrupt()

    def nudge(self) -> None:
        """Say that the Lease names another holder. From any thread, without waiting."""
        self._news.set()

    # --- the watch

    def _run(self) -> None:
        client = self._watch_client = self._connect()
        if client is not None:
            with closing(client):
                self._watch_on(client)

    def _watch_on(self, client: PodClient) -> None:
        selector: tuple[str, str] | None = None
        while not self._stopping.is_set():
            pause, begun = 0.0, time.monotonic()
            try:
                if selector is None:
                    selector = self._look_at_myself(client)
                    if selector is None:
                        return
                self._watch_once(client, selector)
            except ApiError as e:
                if e.status != 410:
                    pause = REFUSED if e.status == 403 else self._settings.retry_period
                    self._complain(str(e))
            except Exception as e:  # noqa: BLE001  the Lease's expiry is always there
                pause = self._settings.retry_period
                self._complain(f"the watch of Pods failed: {e!r}")
            if time.monotonic() - begun < self._settings.retry_period:  # never in a hot loop
                pause = max(pause, self._settings.retry_period / 10)
            self._stopping.wait(pause * random.uniform(0.5, 1))  # noqa: S311

    def _look_at_myself(self, client: PodClient) -> tuple[str, str] | None:
        s = self._settings
        body = client.read(s.pod_name, s.renew_deadline / 2)
        if body is None or body["metadata"]["uid"] != s.pod_uid:
            log.info(
                "there is no Pod %s of uid %s in namespace %s: the holder's Pod is not watched",
                s.pod_name, s.pod_uid, s.pod_namespace,
            )  # fmt: skip
            return None
        self._saw(body)
        labels = sibling_labels(body)
        if not labels:
            # Of all Pods of the namespace most would be strangers. The holder's is asked for all the same.
            return "fieldSelector", f"metadata.name={s.pod_name}"
        return "labelSelector", ",".join(f"{k}={v}" for k, v in sorted(labels.items()))

    def _watch_once(self, client: PodClient, selector: tuple[str, str]) -> None:
        timeout = self._settings.renew_deadline / 2
        items, version = client.list(selector, timeout)
        with self._lock:
            self._siblings.listed(Pod.parse(body) for body in items)
        for body in items:
            self._look_at(body)
        self._after_news()
        self._complain("")
        for event in client.watch(selector, version, timeout):
            if self._stopping.is_set():
                return
            body = event.get("object") or {}
            if event.get("type") in ("ADDED", "MODIFIED"):
                self._saw(body)
            elif event.get("type") == "DELETED":
                with self._lock:
                    self._siblings.lost_sight(str(body["metadata"]["uid"]))
            else:
                continue
            self._after_news()

    def _saw(self, body: dict[str, Any]) -> None:
        with self._lock:
            self._siblings.saw(Pod.parse(body))
        self._look_at(body)

    def _look_at(self, body: dict[str, Any]) -> None:
        meta = body["metadata"]
        if meta["uid"] == self._settings.pod_uid and meta.get("deletionTimestamp"):
            # The kubelet's SIGTERM comes later than this, or never when the kubelet is stopped.
            self._leave(f"Pod {meta['name']} is being deleted")

    def _leave(self, cause: str) -> None:
        if not self._leaving:
            self._leaving = True
            self._deleted(cause)

    def _after_news(self) -> None:
        self._news.set()
        with self._lock:
            outdated = self._siblings.outdated()
        if outdated != self._outdated:
            self._outdated = outdated
            if outdated:
                log.info("a replica of a newer revision is ready: a Lease that is free is left to it first")
            self._head_start(self._settings.retry_period if outdated else 0.0)

    # --- the judge

    def _judge(self) -> None:
        client = self._connect()
        if client is not None:
            with closing(client):
                self._judge_on(client)

    def _judge_on(self, client: PodClient) -> None:
        again: float | None = None
        bug = ""  # what was logged last
        try:
            self._confirm()
        except Exception as e:  # noqa: BLE001  it is asked again when it matters
            log.debug("cannot ask ahead: %s", e)
        while not self._stopping.is_set():
            self._news.wait(again)
            self._news.clear()
            if self._stopping.is_set():
                break
            try:
                self._judge_myself(client)
                again = self._judge_holder(client)
                bug = ""
            except ApiError as e:
                again = REFUSED if e.status == 403 else self._settings.retry_period / 4
                if e.status != 403:  # the watch has said so
                    log.debug("cannot judge the holder's Pod: %s", e)
            except Exception as e:
                again = self._settings.retry_period
                if repr(e) != bug:
                    log.exception("cannot judge the holder's Pod, trying again every %g s", again)
                bug = repr(e)

    def _judge_myself(self, client: PodClient) -> None:
        s = self._settings
        with self._lock:
            suspected = self._siblings.missing(s.pod_uid)
        if suspected and not self._leaving and self._read(client, s.pod_name, s.pod_uid) is None:
            self._leave(f"Pod {s.pod_name} was deleted")

    def _judge_holder(self, client: PodClient) -> float | None:
        """Give the seconds after which to look again, news or not; None for when there are news."""
        record = self._holder()
        if record is None or record.holder in ("", self._settings.identity) or record.holder in self._settled:
            return None
        name, uid = pod_of(record.holder)
        if not uid or uid == self._settings.pod_uid:
            return None
        with self._lock:
            self._siblings.leads(record.holder, record.acquire_time)
            known, shown = self._siblings.known(uid), self._siblings.shown(uid)
            me = self._siblings.shown(self._settings.pod_uid)  # without it nobody knows what names my siblings have
            cause = self._siblings.gone(record.holder, record.acquire_time)
        # A Pod that never was cannot be gone.
        if (shown and not cause) or (not known and uid in self._asked):
            return None
        # The watch alone is no proof: it lags, and whoever changes labels leaves it.
        self._read(client, name, uid)
        if me:
            self._asked.add(uid)
        with self._lock:
            known, shown = self._siblings.known(uid), self._siblings.shown(uid)
            cause = self._siblings.gone(record.holder, record.acquire_time)
        if not cause:
            # Labelled otherwise than I am; it is asked for as often as its Lease is renewed.
            return self._settings.retry_period if known and not shown else None
        if off := self._confirm():
            if (record.holder, off) != self._off:
                self._off = record.holder, off
                log.info("%s, but its Lease is waited for, since fast takeover is off: %s", cause, off)
            # That may have been a request without an answer, and policies are applied again.
            return self._settings.retry_period
        # Asking takes time, in which it may have released its Lease, another one acquired it, or I was told to leave.
        present = self._holder()
        if self._leaving or present is None or present.holder != record.holder:
            return None
        self._settled.add(record.holder)
        log.info("%s: taking over from %s without waiting", cause, record.holder)
        self._gone(record.holder)
        return None

    def _read(self, client: PodClient, name: str, uid: str) -> Pod | None:
        """Read a Pod from the quorum; None when it is gone, or another one has its name."""
        body = client.read(name, self._settings.renew_deadline / 2)
        pod = Pod.parse(body) if body is not None else None
        with self._lock:
            self._siblings.read(
                uid, pod, name if self._settings.lease_namespace == self._settings.pod_namespace else ""
            )
        return pod if pod is not None and pod.uid == uid else None

    def _connect(self) -> PodClient | None:
        """Make a client, as often as it takes, since credentials may come late; None when told to stop."""
        while not self._stopping.is_set():
            try:
                return PodClient(self._settings, self._make_client())
            except Exception as e:  # noqa: BLE001  the Lease's expiry is always there
                self._complain(f"no client can be made: {e}")
            self._stopping.wait(self._settings.retry_period)
        return None

    def _complain(self, trouble: str) -> None:
        if self._stopping.is_set() or trouble == self._trouble:
            return
        self._trouble = trouble
        if trouble:
            log.warning("the holder's Pod is not watched, so a dead leader's Lease is waited for: %s", trouble)
        else:
            log.info("the Pods are watched again")
