"""Ports on 127.0.0.1 that stay ours while a server is stopped.

The kernel chooses them. Each is then held by a bound socket that does not listen: the server may bind it
(both sides set SO_REUSEADDR, as Go's listeners do), the kernel gives it to nobody else, and clients of a
stopped server are refused. So there is no moment in which a port can be lost.
"""

from __future__ import annotations

import socket

HOST = "127.0.0.1"


class Ports:
    """A set of held ports; `close` gives them all back."""

    def __init__(self) -> None:
        self._held: list[socket.socket] = []

    def take(self) -> int:
        """A port that no one else uses."""
        holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        holder.bind((HOST, 0))
        # only now: bound with it, the kernel might choose a port that somebody else shares
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.append(holder)
        return int(holder.getsockname()[1])

    def close(self) -> None:
        """Give them back."""
        while self._held:
            self._held.pop().close()
