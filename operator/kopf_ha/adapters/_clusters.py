"""Tells writes to another cluster from those to this process's own, which alone are fenced.

An operator may make clients for several clusters. A term, its token and its Lease mean nothing in another one. But one
API server has many names (its address, ``kubernetes.default``, a load balancer, a proxy), and a name alone must not
open a way around the fence. So a server under another name than this process's own is asked for the uid of its
namespace ``kube-system``, right before each write and by the client that is about to send it. Only if both clusters
answer, and the answers differ, is it another cluster. In all other cases the write is fenced (I8).

Whoever lies about that uid is no API server of this cluster, or passes writes on with credentials of its own, which it
could do anyway.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from urllib.parse import urlsplit

from kopf_ha._context import boottime
from kopf_ha.adapters._servers import Server, in_cluster, server_of
from kopf_ha.core.target import api_root
from kopf_ha.core.wire import Request, Response
from kopf_ha.errors import ApiError

logger = logging.getLogger("kopf_ha.fence")

#: The namespace whose uid names a cluster. It cannot be deleted.
PATH = "/api/v1/namespaces/kube-system"
#: Seconds for which it is not asked again, if this cluster's uid, or that a server belongs to it, is known or unknown.
KEPT = 60.0
#: Seconds for the question.
TIMEOUT = 10.0


class Clusters:
    """Which servers are another cluster's. Used from any thread.

    Args:
        read: asks this process's own API server for the namespace ``kube-system``; blocks.
        own: URLs by which this process knows its own API server.
        clock: the machine's boot-time clock, in seconds.
    """

    def __init__(self, read: Callable[[], Response], *own: str, clock: Callable[[], float] = boottime) -> None:
        self._read = read
        self._clock = clock
        self._lock = threading.Lock()
        self._own = {found for url in own if (found := server_of(url)) is not None}
        self._fenced_until: dict[Server, float] = {}
        self._uid, self._known_until = "", float("-inf")
        self._named: set[Server] = set()
        self._same: set[Server] = set()  #: other names of this cluster's own server

    def add_own(self, url: str) -> None:
        """Note a URL of the API server whose objects this process's operator handles."""
        if (found := server_of(url)) is not None:
            self._own.add(found)

    def is_mine(self, origin: str, path: str) -> bool:
        """Return whether a server is certainly this cluster's: what it says of stamps and the Lease ends a term."""
        server = _server(origin, path)
        return server is None or server in self._own or server in self._same or in_cluster(server[0])

    def question(self, origin: str, path: str) -> Request | None:
        """Return what to ask a server before a write; None if the write is to be fenced in any case.

        Args:
            origin: scheme, host and port.
            path: of the write.
        """
        server = _server(origin, path)
        if server is None or server in self._own or in_cluster(server[0]):
            return None
        if self._clock() < self._fenced_until.get(server, float("-inf")):
            return None
        return Request("GET", api_root(path) + PATH, timeout=TIMEOUT)

    def is_other(self, origin: str, path: str, answer: Response | None) -> bool:
        """Return whether it is another cluster's server. It may ask this process's own API server, and block.

        Args:
            origin: as for `question`.
            path: of the write.
            answer: to the question; None if there was none.
        """
        theirs, ours = _uid(answer), self._own_uid() if answer is not None else ""
        other = bool(theirs and ours and theirs != ours)
        server = _server(origin, path)
        if server is None:
            return False
        with self._lock:
            if not other:
                self._fenced_until[server] = self._clock() + KEPT
            if ours and theirs == ours:
                self._same.add(server)
            if server not in self._named:
                self._named.add(server)
                _tell(origin + api_root(path), theirs, ours)
        return other

    def _own_uid(self) -> str:
        with self._lock:
            if self._clock() >= self._known_until:
                try:
                    self._uid = _uid(self._read())
                except ApiError as error:
                    logger.warning("the uid of namespace kube-system cannot be read: %s", error)
                    self._uid = ""
                self._known_until = self._clock() + KEPT
            return self._uid


def _tell(server: str, theirs: str, ours: str) -> None:
    if not theirs or not ours:
        logger.warning(
            "cannot tell whether %s is another cluster, so writes to it are fenced: namespace kube-system cannot be"
            " read %s; allow to get it there",
            server,
            "there" if ours else "in this cluster",
        )
    elif theirs == ours:
        logger.info("%s is another name of this cluster's API server; writes to it are fenced", server)
    else:
        logger.info("%s is another cluster; writes to it are not fenced", server)


def _server(origin: str, path: str) -> Server | None:
    return server_of(origin + api_root(path))


def _uid(answer: Response | None) -> str:
    """Return the uid in an answer; empty if there is none."""
    try:
        found = json.loads(answer.body)["metadata"]["uid"] if answer is not None and answer.status == 200 else ""
    except (ValueError, TypeError, KeyError):
        return ""
    return found if isinstance(found, str) else ""


def origin_of(url: str) -> str:
    """Return scheme, host and port of a URL."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
