"""LIST, then watch from there, forever: how the election follows the Lease and the Pods."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any, Protocol

from kopf_ha._context import boottime
from kopf_ha.api import Api
from kopf_ha.election.connect import connect
from kopf_ha.errors import ApiError
from kopf_ha.settings import Settings

#: Seconds of silence after which a watch is taken for dead; bookmarks come about once a minute. The LIST that follows
#: is the poll.
SILENCE = 90.0


class Consumer(Protocol):
    """Who wants to know of some objects. All methods are called in the watching thread.

    Attributes:
        what: the objects' name in messages.
        collection: their path.
    """

    what: str
    collection: str

    def selector(self, api: Api) -> Mapping[str, str] | None:
        """Give the query that selects the objects; None to watch nothing and end. Asked until it answers."""

    def listed(self, items: list[dict[str, Any]], version: str) -> None:
        """Take all the objects that there are, as of this resourceVersion."""

    def changed(self, kind: str, body: dict[str, Any]) -> None:
        """Take a change of one object: ``ADDED``, ``MODIFIED`` or ``DELETED``."""

    def trouble(self, cause: str) -> None:
        """Take a sentence for what keeps the watch from working, and "" when it works."""


class ListWatch:
    """A thread that lists and watches. It lists again only when a watch ended or fell silent.

    Args:
        consumer: which objects, and who is told of them.
        make_api: gives a client for this thread alone, since the watch occupies it. Tried until it does.
        settings: the durations.
        name: of the thread.
        refused: seconds to pause without permission; None for the retry period.
        clock: seconds, on a clock that goes on while the machine sleeps.

    Attributes:
        turned: when it last began something, or got something; seconds on the clock.
        heard: when the server last told of the objects, be it by a bookmark; -inf for never.
    """

    def __init__(
        self,
        consumer: Consumer,
        make_api: Callable[[], Api],
        settings: Settings,
        *,
        name: str,
        refused: float | None = None,
        clock: Callable[[], float] = boottime,
    ) -> None:
        self._consumer = consumer
        self._make_api = make_api
        self._timeout = settings.renew_deadline / 2
        self._pause = settings.retry_period
        self._refused = self._pause if refused is None else refused
        self._clock = clock
        self.turned = clock()
        self.heard = -math.inf
        self._api: Api | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """End the thread, soon. The consumer is told nothing any more."""
        self._stopping.set()
        if self._api is not None:
            self._api.interrupt()

    def _run(self) -> None:
        api = self._api = connect(self._make_api, self._stopping, self._pause, self._trouble)
        if api is not None:
            with closing(api):
                self._go_on(api)

    def _go_on(self, api: Api) -> None:
        """List and watch again after each end, whatever it was. Only the consumer and `stop` end that."""
        selector: Mapping[str, str] | None = None
        while not self._stopping.is_set():
            self.turned = self._clock()
            pause, begun = 0.0, time.monotonic()
            try:
                selector = selector or self._consumer.selector(api)
                if selector is None:
                    return
                self._list_and_watch(api, selector)
            except ApiError as error:
                if error.status != 410:  # which means too old: the next list begins anew
                    pause = self._refused if error.status == 403 else self._pause
                    self._trouble(str(error))
            except Exception as error:  # noqa: BLE001  without the watch nobody would notice what happens
                pause = self._pause
                self._trouble(f"the watch of {self._consumer.what} failed: {error!r}")
            # A server that ends every watch at once must not be asked in a hot loop.
            if time.monotonic() - begun < self._pause:
                pause = max(pause, self._pause / 10)
            self._stopping.wait(pause * random.uniform(0.5, 1))  # noqa: S311

    def _list_and_watch(self, api: Api, selector: Mapping[str, str]) -> None:
        items: list[dict[str, Any]] = []
        version = ""
        for page in api.pages(self._consumer.collection, selector, timeout=self._timeout):
            items += page.get("items") or []
            version = str(page["metadata"]["resourceVersion"])
        self._hear()
        if self._stopping.is_set():
            return
        self._consumer.listed(items, version)
        self._trouble("")
        query = {**selector, "resourceVersion": version}
        for event in api.stream(self._consumer.collection, query, timeout=self._timeout, silence=SILENCE):
            self._hear()
            if self._stopping.is_set():
                return
            if event.get("type") in ("ADDED", "MODIFIED", "DELETED"):
                self._consumer.changed(event["type"], event.get("object") or {})

    def _hear(self) -> None:
        self.heard = self.turned = self._clock()

    def _trouble(self, cause: str) -> None:
        if not self._stopping.is_set():
            self._consumer.trouble(cause)
