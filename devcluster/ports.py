"""Ports on 127.0.0.1 that stay reserved while a server is stopped.

The kernel chooses a port. A bound socket that does not listen then reserves it: the server can bind it (both sides set
SO_REUSEADDR, as Go's listeners do), the kernel gives it to no other process, and clients of a stopped server are
refused. So a port can never be lost.
"""

from __future__ import annotations

import socket

HOST = "127.0.0.1"


class Ports:
    """A set of reserved ports. `close` releases them."""

    def __init__(self) -> None:
        self._held: list[socket.socket] = []

    def take(self) -> int:
        """Return a free port, and reserve it."""
        holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        holder.bind((HOST, 0))
        # only after bind: otherwise the kernel might choose a port that another process shares
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.append(holder)
        return int(holder.getsockname()[1])

    def close(self) -> None:
        """Release all ports."""
        while self._held:
            self._held.pop().close()
