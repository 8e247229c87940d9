"""Putting the adapters in, and finding clients that have none."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

from kopf_ha.adapters import _children, kubernetes_client, pykube_client

#: Clients that reach the API server past the fence, by the module that gives them away.
_OTHERS = {
    "kubernetes.aio": "kubernetes.aio",
    "kubernetes_asyncio": "kubernetes_asyncio",
    "lightkube": "lightkube",
    "kr8s": "kr8s",
    "easykube": "easykube",
    "k8s": "k8s (fiaas)",
}
#: Those whose module's name many operators give to a module of their own, with the distribution that it has to be of.
_COMMON_NAMES = {"k8s": "k8s"}


def install() -> None:
    """Fence the `kubernetes` client and pykube-ng in this process and its children; Kopf is fenced by its vault.

    To be called before the operator's code is loaded, which may write at its top level.
    """
    kubernetes_client.install()
    pykube_client.install()
    _children.install(kubernetes_client.installed)


def uncovered() -> list[str]:
    """Name the Kubernetes clients that the operator imported and that nothing fences."""
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
