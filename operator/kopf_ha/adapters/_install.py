"""Installs the adapters. It also finds clients that have none."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

from kopf_ha.adapters import _children, _threads, kubernetes_client, pykube_client

#: Clients that are not fenced, by a module whose import shows that they are used.
_OTHERS = {
    "kubernetes.aio": "kubernetes.aio",
    "kubernetes_asyncio": "kubernetes_asyncio",
    "lightkube": "lightkube",
    "kr8s": "kr8s",
    "easykube": "easykube",
    "k8s": "k8s (fiaas)",
}
#: Clients whose module has a common name, with their distribution: operators may have a module of that name.
_COMMON_NAMES = {"k8s": "k8s"}


def install() -> None:
    """Fence the `kubernetes` client and pykube-ng in this process and its children. Kopf is fenced by its vault.

    Call it before the operator's code is loaded: that code may write at its top level, and its threads carry terms.
    """
    _threads.install()
    kubernetes_client.install()
    pykube_client.install()
    _children.install(kubernetes_client.installed)


def uncovered() -> list[str]:
    """Return the names of Kubernetes clients that the operator imported and that are not fenced."""
    return [name for module, name in _OTHERS.items() if module in sys.modules and _is_the_client(module)]


def _is_the_client(module: str) -> bool:
    if module not in _COMMON_NAMES:
        return True
    try:
        published = importlib.metadata.distribution(_COMMON_NAMES[module])
    except importlib.metadata.PackageNotFoundError:
        return False
    file = getattr(sys.modules[module], "__file__", None)
    return (
        file is not None and Path(str(published.locate_file(f"{module}/__init__.py"))).resolve() == Path(file).resolve()
    )
