"""Putting the adapters in, and finding clients that have none."""

from __future__ import annotations

import sys

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


def install() -> None:
    """Fence the `kubernetes` client and pykube-ng in this process and its children; Kopf is fenced by its vault.

    To be called before the operator's code is loaded, which may write at its top level.
    """
    kubernetes_client.install()
    pykube_client.install()
    _children.install(kubernetes_client.installed)


def uncovered() -> list[str]:
    """Name the Kubernetes clients that the operator imported and that nothing fences."""
    return [name for module, name in _OTHERS.items() if name and module in sys.modules]
