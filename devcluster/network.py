"""The network of a cluster with nodes: a bridge that connects control plane, nodes and this machine.

It is a /24 of 198.18.0.0/15, the block reserved for tests (RFC 2544), so it does not collide with networks in use. The
control plane has address .1, node k has .10 + k and the pod network 10.244.k.0/24, and this machine has .254. There is
no route to anywhere else.
"""

from __future__ import annotations

import ipaddress
import json
import secrets
from collections.abc import Callable

from devcluster.cell import Cell, run
from devcluster.errors import DevclusterError

PODS = "10.244.0.0/16"
_TESTS = ipaddress.ip_network("198.18.0.0/15")


class Network:
    """The bridge, in the cell of the control plane."""

    def __init__(self, hub: Cell, link: str) -> None:
        """`link` is the name of this machine's interface to the bridge."""
        self._hub = hub
        self._net = _free_network()
        self._host_link = link
        self._nodes: dict[int, Cell] = {}

    def up(self) -> None:
        """Create the bridge, and connect this machine. All of it goes away with the hub's cell."""
        ip = self._in(self._hub)
        ip("link", "add", "br0", "type", "bridge")
        ip("addr", "add", f"{self.control_plane}/24", "dev", "br0")
        ip("link", "set", "br0", "up")
        self._plug("host0", self._host_link, None)
        run("ip", "addr", "add", f"{self._net[254]}/24", "dev", self._host_link)
        run("ip", "link", "set", self._host_link, "up")

    def down(self) -> None:
        """Disconnect this machine: the kernel needs a moment to remove a network namespace after its last process."""
        try:
            run("ip", "link", "delete", self._host_link)
        except DevclusterError:
            pass  # it was not created, or went away with the cell

    def join(self, cell: Cell, number: int) -> None:
        """Connect a node, and set the routes between its pods and those of the other nodes."""
        self._plug(f"node{number}", "eth0", cell)
        ip, hub = self._in(cell), self._in(self._hub)
        ip("addr", "add", f"{self.node(number)}/24", "dev", "eth0")
        ip("link", "set", "eth0", "up")
        # kubelet and kube-proxy need a default route. The hub forwards nothing to other networks.
        ip("route", "add", "default", "via", self.control_plane)
        hub("route", "add", self.pods(number), "via", self.node(number))
        for other, there in self._nodes.items():
            ip("route", "add", self.pods(other), "via", self.node(other))
            self._in(there)("route", "add", self.pods(number), "via", self.node(number))
        self._nodes[number] = cell

    @property
    def control_plane(self) -> str:
        """The address of the API servers and etcd."""
        return str(self._net[1])

    def node(self, number: int) -> str:
        """The address of a node."""
        return str(self._net[10 + number])

    @staticmethod
    def pods(number: int) -> str:
        """The network of a node's pods."""
        return f"10.244.{number}.0/24"

    def _plug(self, port: str, name: str, cell: Cell | None) -> None:
        # Created outside of the cells, where both process ids are visible, and moved into them.
        where = [] if cell is None else ["netns", str(cell.init)]
        run("ip", "link", "add", port, "netns", str(self._hub.init), "type", "veth", "peer", "name", name, *where)
        self._in(self._hub)("link", "set", port, "master", "br0", "up")

    @staticmethod
    def _in(cell: Cell) -> Callable[..., str]:
        return lambda *args: cell.run("ip", *args, only_net=True)


def _free_network() -> ipaddress.IPv4Network:
    """Return a /24 that no interface or route here uses. It is random, so that two clusters seldom choose the same."""
    known = [ipaddress.ip_network(r["dst"], strict=False) for r in _routes() if r["dst"] != "default"]
    free = [net for net in _TESTS.subnets(new_prefix=24) if not any(net.overlaps(other) for other in known)]
    if not free:
        raise DevclusterError(f"no network is free in {_TESTS}; check the routes with `ip route`")
    return ipaddress.IPv4Network(secrets.choice(free))


def _routes() -> list[dict[str, str]]:
    return list(json.loads(run("ip", "-4", "-json", "route", "show", "table", "all") or "[]"))
