"""Installs the adapters. It also finds clients that have none."""

from __future__ import annotations

import shutil
import sys

from kopf_ha.adapters import (
    _children,
    _ports,
    _threads,
    asyncio_client,
    httpx_client,
    kubernetes_client,
    pykube_client,
    requests_client,
)

#: What is not fenced, by a module whose import shows that it is used.
_OTHERS = {
    "httpx_aiohttp": "httpx-aiohttp (transports for httpx)",
    "kubesdk": "kubesdk (its own aiohttp sessions)",
    "kubex.client.aiohttp": "kubex with aiohttp (it can use httpx)",
    "pyhelm3": "pyhelm3 (runs helm)",
    "avionix": "avionix (runs helm)",
}
#: Programs that write to the API server by themselves.
_PROGRAMS = ("kubectl", "helm")


def install() -> None:
    """Fence the clients in this process and its children. Kopf is fenced by its vault.

    Of these, the operator need not have httpx and kubernetes_asyncio. They are fenced as soon as it imports them.

    Call it before the operator's code is loaded: that code may write at its top level, and its threads carry terms.
    """
    _threads.install()
    _ports.install()
    kubernetes_client.install()
    pykube_client.install()
    requests_client.install()
    httpx_client.install()
    asyncio_client.install()
    _children.install(kubernetes_client.installed)


def uncovered() -> list[str]:
    """Return the names of packages that the operator imported, and that write what no adapter reaches."""
    return [name for module, name in _OTHERS.items() if module in sys.modules]


def programs() -> list[str]:
    """Return the names of programs that the operator could start, and that write what no adapter reaches."""
    return [name for name in _PROGRAMS if shutil.which(name)]
