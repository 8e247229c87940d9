"""The network of a cluster with nodes: a bridge that control plane, nodes and this machine are plugged into.

One /24 of 198.18.0.0/15, the block that is set aside for tests (RFC 2544), so that it meets no network that
anybody uses. The control plane is .1, node k is .10 + k with the pods 10.244.k.0/24, this machine is .254. No
way leads out: there is no route to anywhere else.
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
        """`link` is the name of this machine's interface to it."""
        self._hub = hub
        self._net = _free_network()
        self._host_link = link
        self._nodes: dict[int, Cell] = {}

    def up(self) -> None:
        """Make the bridge and plug this machine in. All of it goes with the hub's cell."""
        ip = self._in(self._hub)
        ip("link", "add", "br0", "type", "bridge")
        ip("addr", "add", f"{self.control_plane}/24", "dev", "br0")
        ip("link", "set", "br0", "up")
        self._plug("host0", self._host_link, None)
        run("ip", "addr", "add", f"{self._net[254]}/24", "dev", self._host_link)
        run("ip", "link", "set", self._host_link, "up")

    def down(self) -> None:
        """Unplug this machine, since the kernel takes a moment to end a network that nobody is in."""
        try:
            run("ip", "link", "delete", self._host_link)
        except DevclusterError:
            pass  # it was not made, or went with the cell

    def join(self, cell: Cell, number: int) -> None:
        """Plug a node in, and tell it and the others the ways to each other's pods."""
        self._plug(f"node{number}", "eth0", cell)
        ip, hub = self._in(cell), self._in(self._hub)
        ip("addr", "add", f"{self.node(number)}/24", "dev", "eth0")
        ip("link", "set", "eth0", "up")
        # kubelet and kube-proxy want a default route; the hub sends nothing on.
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
        # Made outside, where both sides' process ids can be named, and moved.
        where = [] if cell is None else ["netns", str(cell.init)]
        run("ip", "link", "add", port, "netns", str(self._hub.init), "type", "veth", "peer", "name", name, *where)
        self._in(self._hub)("link", "set", port, "master", "br0", "up")

    @staticmethod
    def _in(cell: Cell) -> Callable[..., str]:
        return lambda *args: cell.run("ip", *args, only_net=True)


def _free_network() -> ipaddress.IPv4Network:
    """A /24 that no interface or route here knows, at random, so that two clusters seldom try the same."""
    known = [ipaddress.ip_network(r["dst"], strict=False) for r in _routes() if r["dst"] != "default"]
    free = [net for net in _TESTS.subnets(new_prefix=24) if not any(net.overlaps(other) for other in known)]
    if not free:
        raise DevclusterError(f"no network is free in {_TESTS}; is there a route to all of it? `ip route` shows")
    return ipaddress.IPv4Network(secrets.choice(free))


def _routes() -> list[dict[str, str]]:
    return list(json.loads(run("ip", "-4", "-json", "route", "show", "table", "all") or "[]"))
