"""Free ports of this machine."""

from __future__ import annotations

import socket


def free_port() -> int:
    """Give a port that nobody listens at now. Somebody else may take it before it is used."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
