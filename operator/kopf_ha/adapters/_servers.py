"""Tells requests to the API server from the operator's other HTTP traffic, for clients that do both.

Two errors are possible, and both have to fail safe:

- Other traffic that is taken for the API server's would be refused, or changed. So its host has to be one that this
  process knows as an API server, or its path has to name a Kubernetes object without any doubt.
- A write to the API server that is taken for other traffic would not be fenced. So the path alone is enough if it
  belongs to nobody else, whatever the host; and on a known host the path does not matter at all.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from kopf_ha.core.target import parse_path

#: The API server's names in a cluster. Each cluster may have a domain of its own after them.
_NAMES = re.compile(r"kubernetes(\.default(\.svc(\..+)?)?)?")
_VERSION = re.compile(r"v[0-9]+((alpha|beta)[0-9]+)?")
#: The groups of Kubernetes whose name has no dot. `/apis/registry/v2/…` is another product's.
_GROUPS = frozenset({"apps", "autoscaling", "batch", "extensions", "policy"})
#: The namespaced kinds of the core group, which gets no new ones. `/api/v1/namespaces/x/workflows/y` is Temporal's.
_CORE = frozenset({
    "bindings", "configmaps", "endpoints", "events", "limitranges", "persistentvolumeclaims", "pods", "podtemplates",
    "replicationcontrollers", "resourcequotas", "secrets", "serviceaccounts", "services",
})  # fmt: skip
_PORTS = {"http": 80, "https": 443}


def is_api_server(scheme: str, host: str, port: int | None, path: str) -> bool:
    """Return whether a request with this URL goes to an API server.

    Args:
        scheme: ``http`` or ``https``.
        host: a name or an address; an IPv6 address with or without brackets.
        port: None for the scheme's own.
        path: as it is sent, without the query.
    """
    where = (host.lower().strip("[]").rstrip("."), port or _PORTS.get(scheme, 0))
    return _in_cluster(where) or _names_an_object(path) or _in_kubeconfig(where, path)


def _in_cluster(where: tuple[str, int]) -> bool:
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        return False
    return where == (host.lower().strip("[]"), int(port) if port.isdecimal() else 443) or (
        _NAMES.fullmatch(where[0]) is not None
    )


def _names_an_object(path: str) -> bool:
    target = parse_path(path)
    if target is None or not _VERSION.fullmatch(target.version):
        return False
    if target.group:
        return "." in target.group or target.group in _GROUPS
    return bool(target.namespace) and target.resource in _CORE


def _in_kubeconfig(where: tuple[str, int], path: str) -> bool:
    # A gateway serves other things beside an API server that has a path of its own.
    return any(where == server and (path + "/").startswith(prefix + "/") for server, prefix in _kubeconfig_servers())


def _kubeconfig_servers() -> Iterator[tuple[tuple[str, int], str]]:
    """Yield host, port and path of each cluster: an operator may use another context than the current one."""
    for name in (os.environ.get("KUBECONFIG") or "~/.kube/config").split(os.pathsep):
        try:
            file = Path(name).expanduser()
            yield from _servers_in(file, file.stat().st_mtime_ns)
        except (OSError, RuntimeError):
            continue  # no such file, or no home


@functools.lru_cache(maxsize=8)
def _servers_in(file: Path, changed: int) -> tuple[tuple[tuple[str, int], str], ...]:
    try:
        read: Any = yaml.safe_load(file.read_text())
        entries = list(read["clusters"])
    except (yaml.YAMLError, ValueError, TypeError, KeyError):
        return ()  # something else is in it; the operator's own client says so
    found = []
    for entry in entries:
        try:
            url = urlsplit(str(entry["cluster"]["server"]))
            found.append(((url.hostname or "", url.port or _PORTS.get(url.scheme, 0)), url.path.rstrip("/")))
        except (ValueError, TypeError, KeyError):
            continue
    return tuple(found)
