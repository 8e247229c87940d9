"""Writes kubeconfig files that contain all certificates and keys, and refer to no other file."""

from __future__ import annotations

import base64
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from devcluster.certs import Pair


def certificate_user(pair: Pair) -> dict[str, str]:
    """Return the entry of a user with a client certificate."""
    return {
        "client-certificate-data": _encoded(pair.cert.read_bytes()),
        "client-key-data": _encoded(pair.key.read_bytes()),
    }


def token_user(token: str) -> dict[str, str]:
    """Return the entry of a user with a bearer token."""
    return {"token": token}


def cluster(server: str, ca: Path) -> dict[str, Any]:
    """Return the entry of the cluster at URL `server`, whose certificate is signed by the CA `ca` (PEM)."""
    return {"server": server, "certificate-authority-data": _encoded(ca.read_bytes())}


def write(path: Path, cluster: Mapping[str, Any], user: Mapping[str, str]) -> Path:
    """Write a kubeconfig with one cluster and one user. It is JSON, which is also YAML. Only its owner can read it.

    It is replaced atomically.
    """
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "devcluster", "cluster": dict(cluster)}],
        "users": [{"name": "devcluster", "user": dict(user)}],
        "contexts": [{"name": "devcluster", "context": {"cluster": "devcluster", "user": "devcluster"}}],
        "current-context": "devcluster",
    }
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # with mode 0600
    with os.fdopen(handle, "w") as file:
        file.write(json.dumps(document, indent=2) + "\n")
    os.replace(scratch, path)
    return path


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()
