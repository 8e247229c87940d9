"""Ports that the operator's startup handlers open.

Under `kopf run` a startup handler runs once in a process. Here it may run again: in a second term, and on a replica
whose webhooks are served all the time. A port that it opens must not be bound twice.

- In a second term, the server of the first one may be dead and its port still be open. So whoever wants to lead again
  asks `open_ports`, and leaves the process if there are any.
- The Kopf of every replica lives as long as the process, and so do the servers that are started there. So that a term
  can open the same port beside it, both share it (`SO_REUSEPORT`), and either server answers.
"""

from __future__ import annotations

import gc
import socket
import threading
import weakref
from typing import Any

from kopf_ha._context import current_grant, runs_again
from kopf_ha.core.grant import Grant

#: Sockets that were bound in a term.
_bound: weakref.WeakKeyDictionary[socket.socket, Grant] = weakref.WeakKeyDictionary()
_lock = threading.Lock()
_installed = False
_share = False


def install() -> None:
    """Note which ports are opened in terms. A second call has no effect."""
    global _installed
    if not _installed:
        _installed = True
        # An audit hook would see every way to bind, but Python calls it for each `id()`, too: copies of objects, which
        # Kopf makes all the time, would take twice as long.
        socket.socket.bind = _bind  # type: ignore[method-assign, assignment]


def share_ports() -> None:
    """Let startup handlers open a port in a term that they opened on this replica before."""
    global _share
    _share = True


def open_ports(grant: Grant) -> list[str]:
    """Return the addresses (``0.0.0.0:8080``) at which code of a term still listens."""
    if _listening(grant):
        gc.collect()  # a server that nobody refers to closes its port
    return _listening(grant)


def _listening(grant: Grant) -> list[str]:
    with _lock:
        bound = [sock for sock, whose in _bound.items() if whose is grant]
    return sorted({_address(sock) for sock in bound if _listens(sock)})


def _listens(sock: socket.socket) -> bool:
    try:
        return bool(sock.fileno() >= 0 and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False  # it was closed meanwhile


def _address(sock: socket.socket) -> str:
    try:
        host, port = sock.getsockname()[:2]
    except OSError:
        return "a port"
    return f"[{host}]:{port}" if sock.family == socket.AF_INET6 else f"{host}:{port}"


_unnoted_bind = socket.socket.bind


def _bind(sock: socket.socket, address: Any, /) -> None:
    _note(sock)
    _unnoted_bind(sock, address)


def _note(sock: socket.socket) -> None:
    grant = current_grant()
    if (grant is None and not runs_again()) or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    if sock.type != socket.SOCK_STREAM:
        return
    if _share:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if grant is not None:
        with _lock:
            _bound[sock] = grant
