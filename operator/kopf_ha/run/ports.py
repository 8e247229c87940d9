"""Ports that the operator's code opens in a term, and does not close.

A later term of the same process could not open them again. Kopf would then try the startup handler once a minute, for
ever, and meanwhile this replica leads. So such a process ends, with ``--after-loss=follow``, too, and the next one
begins with all ports closed. Libraries that open sockets without Python (grpc) are not seen.
"""

from __future__ import annotations

import socket
import weakref
from collections.abc import Callable
from typing import Any

from kopf_ha._context import current_grant
from kopf_ha.adapters._changed import change
from kopf_ha.core.grant import Grant
from kopf_ha.core.token import Stamp

#: The sockets that each term's code let listen.
_opened: dict[Stamp, list[weakref.ref[socket.socket]]] = {}


def install() -> None:
    """Note each socket that listens from now on. A second call has no effect."""
    change(socket.socket, "listen", _noting)


def left_open(grant: Grant) -> list[str]:
    """Return the addresses at which code of a term still listens."""
    return [_shown(one) for known in _opened.get(grant.stamp, ()) if (one := known()) is not None and one.fileno() >= 0]


def _noting(listen: Callable[..., None]) -> Callable[..., None]:
    def listening(self: socket.socket, *args: Any) -> None:
        listen(self, *args)
        if (grant := current_grant()) is not None:
            _opened.setdefault(grant.stamp, []).append(weakref.ref(self))

    return listening


def _shown(one: socket.socket) -> str:
    address = one.getsockname()
    return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else str(address)
