"""Kubeconfig files that stand alone: everything they need is in them."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from devcluster.certs import Pair


def certificate_user(pair: Pair) -> dict[str, str]:
    """A user who proves himself by a client certificate."""
    return {
        "client-certificate-data": _encoded(pair.cert.read_bytes()),
        "client-key-data": _encoded(pair.key.read_bytes()),
    }


def token_user(token: str) -> dict[str, str]:
    """A user with a bearer token."""
    return {"token": token}


def write(path: Path, server: str, ca: bytes | None, user: dict[str, str], namespace: str | None = None) -> Path:
    """Write a kubeconfig for `server` whose certificate `ca` (PEM) signed, None for the system's authorities.

    It is JSON, which is YAML too, and only the owner can read it.
    """
    cluster: dict[str, Any] = {"server": server}
    if ca is not None:
        cluster["certificate-authority-data"] = _encoded(ca)
    context: dict[str, Any] = {"cluster": "devcluster", "user": "devcluster"}
    if namespace is not None:
        context["namespace"] = namespace
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "devcluster", "cluster": cluster}],
        "users": [{"name": "devcluster", "user": user}],
        "contexts": [{"name": "devcluster", "context": context}],
        "current-context": "devcluster",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(json.dumps(document, indent=2) + "\n")
    return path


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()
