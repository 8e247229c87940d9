"""The thread that judges whether the Pod of the Lease's holder is gone."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import closing

from kopf_ha.api import Api
from kopf_ha.core.lease import LeaseRecord
from kopf_ha.core.siblings import Pod, pod_of
from kopf_ha.election.connect import connect
from kopf_ha.election.known_pods import KnownPods
from kopf_ha.election.pod_client import REFUSED, read_pod
from kopf_ha.errors import ApiError
from kopf_ha.settings import Settings

log = logging.getLogger("kopf_ha.election")


class PodJudge:
    """Judges after each news, by consistent reads, since the watch alone is no proof.

    At worst a follower takes the Lease over from a leader that lives, whose writes are refused then (I3). An
    unexpected exception costs one judgement, never the thread.

    Args:
        settings: the Pod, the identity, the durations.
        make_api: gives a client for this thread alone. Tried until it does.
        known: the Pods that the watch shows.
        holder: gives the Lease as it was seen last; None when there is none.
        gone: takes a holder identity whose Lease can be taken over now; called in this thread.
        confirm: asks whether stale writes would be refused, without which a fast takeover is not safe. Gives the
            reason why it is off, or "". May take a while. Asked at the start, too, so that what it needs is known
            when it matters.
        trouble: takes a sentence for why no client can be made.
    """

    def __init__(
        self,
        settings: Settings,
        make_api: Callable[[], Api],
        known: KnownPods,
        *,
        holder: Callable[[], LeaseRecord | None],
        gone: Callable[[str], None],
        confirm: Callable[[], str],
        trouble: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._make_api = make_api
        self._known = known
        self._holder = holder
        self._gone = gone
        self._confirm = confirm
        self._trouble = trouble
        self._stopping = threading.Event()
        self._news = threading.Event()
        self._settled: set[str] = set()  #: holders that were judged for good
        self._off = ("", "")  #: of which holder it was said last that its Lease is waited for, and why
        self._asked: set[str] = set()  #: uids that were read because the watch did not show them

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name="kopf-ha-pods-judge", daemon=True).start()

    def stop(self) -> None:
        """End the thread, soon."""
        self._stopping.set()
        self._news.set()

    def nudge(self) -> None:
        """Say that there are news: of a Pod, or another holder of the Lease. From any thread, without waiting."""
        self._news.set()

    # --- the thread

    def _run(self) -> None:
        api = connect(self._make_api, self._stopping, self._settings.retry_period, self._complain)
        if api is not None:
            with closing(api):
                self._ask_ahead()
                self._go_on(api)

    def _ask_ahead(self) -> None:
        try:
            self._confirm()
        except Exception as error:  # noqa: BLE001  it is asked again when it matters
            log.debug("cannot ask ahead: %s", error)

    def _go_on(self, api: Api) -> None:
        """Judge after each news, and again after a while where the answer may change without news."""
        again: float | None = None  # seconds; None for not without news
        bug = ""  # what was logged last
        while not self._stopping.is_set():
            self._news.wait(again)
            self._news.clear()
            if self._stopping.is_set():
                return
            try:
                self._judge_myself(api)
                again = self._judge_holder(api)
                bug = ""
            except ApiError as error:
                again = REFUSED if error.status == 403 else self._settings.retry_period / 4
                if error.status != 403:  # the watch has said so
                    log.debug("cannot judge the holder's Pod: %s", error)
            except Exception as error:
                again = self._settings.retry_period
                if repr(error) != bug:
                    log.exception("cannot judge the holder's Pod, trying again every %g s", again)
                bug = repr(error)

    def _judge_myself(self, api: Api) -> None:
        s = self._settings
        with self._known.locked() as siblings:
            suspected = siblings.missing(s.pod_uid)
        if suspected and not self._known.leaving and self._read(api, s.pod_name, s.pod_uid) is None:
            self._known.leave(f"Pod {s.pod_name} was deleted")

    def _judge_holder(self, api: Api) -> float | None:
        """Judge the holder that the Lease names now.

        Returns:
            The seconds after which to look again without news; None for not before there are news.
        """
        record = self._holder()
        if record is None or record.holder in ("", self._settings.identity) or record.holder in self._settled:
            return None
        name, uid = pod_of(record.holder)
        if not uid or uid == self._settings.pod_uid:
            return None
        with self._known.locked() as siblings:
            siblings.leads(record.holder, record.acquire_time)
            known, shown = siblings.known(uid), siblings.shown(uid)
            me = siblings.shown(self._settings.pod_uid)  # without it nobody knows what names my siblings have
            cause = siblings.gone(record.holder, record.acquire_time)
        # A Pod that never was cannot be gone.
        if (shown and not cause) or (not known and uid in self._asked):
            return None
        # The watch alone is no proof: it lags, and a Pod whose labels were changed leaves it.
        self._read(api, name, uid)
        if me:
            self._asked.add(uid)
        with self._known.locked() as siblings:
            known, shown = siblings.known(uid), siblings.shown(uid)
            cause = siblings.gone(record.holder, record.acquire_time)
        if not cause:
            # A Pod that is not labelled as mine is. It is read as often as its Lease is renewed.
            return self._settings.retry_period if known and not shown else None
        return self._take_over(record.holder, cause)

    def _take_over(self, holder: str, cause: str) -> float | None:
        """Tell that this holder is gone, unless fast takeover is off; returns what `_judge_holder` does."""
        if off := self._confirm():
            if (holder, off) != self._off:
                self._off = holder, off
                log.info("%s, but its Lease is waited for, since fast takeover is off: %s", cause, off)
            # The reason may have been a request without an answer, and policies are applied again.
            return self._settings.retry_period
        # To ask takes time. The holder may have released its Lease, another one may have acquired it, and I may have
        # been told to leave.
        present = self._holder()
        if self._known.leaving or present is None or present.holder != holder:
            return None
        self._settled.add(holder)
        log.info("%s: taking over from %s without waiting", cause, holder)
        self._gone(holder)
        return None

    def _read(self, api: Api, name: str, uid: str) -> Pod | None:
        """Read a Pod from the quorum; None when it is gone, or another one has its name."""
        s = self._settings
        body = read_pod(api, s, name)
        pod = Pod.parse(body) if body is not None else None
        with self._known.locked() as siblings:
            siblings.read(uid, pod, name if s.lease_namespace == s.pod_namespace else "")
        return pod if pod is not None and pod.uid == uid else None

    def _complain(self, cause: str) -> None:
        if not self._stopping.is_set():
            self._trouble(cause)
