"""Tells requests to the API server from the operator's other HTTP traffic, for clients that do both.

Two errors are possible:

- A write to the API server that is taken for other traffic is not fenced. So on a known server every request counts,
  whatever its path, which the server decodes before it looks at it.
- Other traffic that is taken for the API server's would be refused, or changed. Worse, its server's answers would be
  believed: what a kind's schema is, and who holds the Lease. An operator may write to URLs that its users choose
  (webhooks). So no path makes a server known, and no answer: only what whoever runs the operator has configured (I10).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

#: The API server's names in each cluster; a cluster's own domain may follow the longest.
_NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc")
_RESOLVER = Path("/etc/resolv.conf")
_PORTS = {"http": 80, "https": 443}


Where = tuple[str, int]  #: host and port
Server = tuple[Where, str]  #: and the path before ``/api``
#: The servers that Kubernetes clients were made for.
_configured: set[Server] = set()


def add(url: str) -> None:
    """Note that a Kubernetes client was configured with this server."""
    if (found := server_of(url)) is not None:
        _configured.add(found)


def is_api_server(scheme: str, host: str, port: int | None, path: str) -> bool:
    """Return whether a request with this URL goes to an API server.

    Args:
        scheme: ``http`` or ``https``.
        host: a name or an address; an IPv6 address with or without brackets.
        port: None for the scheme's own.
        path: as it is sent, without the query.
    """
    where = (_plain(host), port or _PORTS.get(scheme, 0))
    # A gateway serves other things beside an API server that has a path of its own.
    return in_cluster(where) or any(
        where == server and (path + "/").startswith(prefix + "/")
        for server, prefix in (*_configured, *_kubeconfig_servers())
    )


def _plain(host: str) -> str:
    return host.lower().strip("[]").rstrip(".")


def in_cluster(where: Where) -> bool:
    """Return whether this is the API server that the environment of a pod names."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        return False
    return where == (_plain(host), int(port) if port.isdecimal() else 443) or where[0] in _names()


@functools.cache
def _names() -> frozenset[str]:
    """Return the API server's names. The resolver's list ends with ``svc.DOMAIN`` and ``DOMAIN`` in a pod."""
    domains = {"svc.cluster.local"}
    try:
        lines = _RESOLVER.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("search"):
            domains |= {domain.rstrip(".").lower() for domain in line.split()[1:] if domain.startswith("svc.")}
    return frozenset({*_NAMES, *(f"kubernetes.default.{domain}" for domain in domains)})


def _kubeconfig_servers() -> Iterator[Server]:
    """Yield the server of each cluster: an operator may use another context than the current one."""
    for name in (os.environ.get("KUBECONFIG") or "~/.kube/config").split(os.pathsep):
        try:
            file = Path(name).expanduser()
            yield from _servers_in(file, file.stat().st_mtime_ns)
        except (OSError, RuntimeError):
            continue  # no such file, or no home


@functools.lru_cache(maxsize=8)
def _servers_in(file: Path, changed: int) -> tuple[Server, ...]:
    try:
        read: Any = yaml.safe_load(file.read_text())
        entries = list(read["clusters"])
    except (yaml.YAMLError, ValueError, TypeError, KeyError):
        return ()  # something else is in it; the operator's own client says so
    urls = [(entry.get("cluster") or {}).get("server") for entry in entries if isinstance(entry, dict)]
    return tuple(found for url in urls if (found := server_of(str(url or ""))) is not None)


def server_of(url: str) -> Server | None:
    """Return the server that a URL names; None if it names none."""
    try:
        parts = urlsplit(url)
        where = (_plain(parts.hostname or ""), parts.port or _PORTS.get(parts.scheme, 0))
    except ValueError:
        return None
    return (where, parts.path.rstrip("/")) if where[0] else None
