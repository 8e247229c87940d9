"""Where the control plane runs: on this machine's loopback interface, or in a network that nodes can join."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from devcluster.cell import Cell
from devcluster.network import Network
from devcluster.ports import HOST, Ports


class Place(Protocol):
    """The network in which a control plane runs."""

    @property
    def host(self) -> str:
        """The address of its servers, reachable from this machine."""

    def open(self) -> None:
        """Create it."""

    def port(self) -> int:
        """Return a port that is free there."""

    def wrap(self, argv: Sequence[str]) -> list[str]:
        """Return the command line that runs `argv` there."""

    def close(self) -> None:
        """Release everything."""


class Loopback:
    """This machine's loopback interface. The kernel chooses the ports."""

    host = HOST

    def __init__(self) -> None:
        self._ports = Ports()

    def open(self) -> None:
        """Do nothing: it exists already."""

    def port(self) -> int:
        """Return a free port."""
        return self._ports.take()

    def wrap(self, argv: Sequence[str]) -> list[str]:
        """Return the command line unchanged."""
        return list(argv)

    def close(self) -> None:
        """Release the ports."""
        self._ports.close()


class Hub:
    """A cell with a bridge. Ports are counted from 6443, since nothing else runs there."""

    def __init__(self, log_path: Path, link: str) -> None:
        """`link` is the name of this machine's interface to the bridge."""
        self.cell = Cell("control-plane", log_path)
        self.network = Network(self.cell, link)
        self._ports = itertools.count(6443)

    @property
    def host(self) -> str:
        """The control plane's address on the bridge."""
        return self.network.control_plane

    def open(self) -> None:
        """Start the cell and create the bridge. Raises DevclusterError if that fails."""
        self.cell.start()
        self.network.up()

    def port(self) -> int:
        """Return the next port."""
        return next(self._ports)

    def wrap(self, argv: Sequence[str]) -> list[str]:
        """Return the command line that runs `argv` in the cell's network, with this machine's files and processes."""
        return self.cell.enter(argv, only_net=True)

    def close(self) -> None:
        """End the cell, and the network with it."""
        self.network.down()
        self.cell.kill()
