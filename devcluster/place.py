"""Where the control plane's programs run: on this machine's loopback, or in a network that nodes can join."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from devcluster.cell import Cell
from devcluster.network import Network
from devcluster.ports import HOST, Ports


class Place(Protocol):
    """What a control plane asks of it."""

    @property
    def host(self) -> str:
        """The address of its servers, reachable from this machine."""

    def open(self) -> None:
        """Make it."""

    def port(self) -> int:
        """A port that no one else uses there."""

    def wrap(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs `argv` there."""

    def close(self) -> None:
        """Give everything back."""


class Loopback:
    """This machine's own network, ports chosen by the kernel."""

    host = HOST

    def __init__(self) -> None:
        self._ports = Ports()

    def open(self) -> None:
        """There is nothing to make."""

    def port(self) -> int:
        """A port that no one else uses."""
        return self._ports.take()

    def wrap(self, argv: Sequence[str]) -> list[str]:
        """As it is."""
        return list(argv)

    def close(self) -> None:
        """Give the ports back."""
        self._ports.close()


class Hub:
    """A cell with a bridge; its ports are the usual ones, since nobody else is there."""

    def __init__(self, log_path: Path, link: str) -> None:
        """`link` is the name of this machine's interface to it."""
        self.cell = Cell("control-plane", log_path)
        self.network = Network(self.cell, link)
        self._ports = itertools.count(6443)

    @property
    def host(self) -> str:
        """The control plane's address on the bridge."""
        return self.network.control_plane

    def open(self) -> None:
        """Start the cell and make the bridge. Raises DevclusterError if it cannot be had."""
        self.cell.start()
        self.network.up()

    def port(self) -> int:
        """The next one."""
        return next(self._ports)

    def wrap(self, argv: Sequence[str]) -> list[str]:
        """With the cell's network and all else of this machine: they need nothing hidden."""
        return self.cell.enter(argv, only_net=True)

    def close(self) -> None:
        """End the cell, and with it the network."""
        self.network.down()
        self.cell.kill()
