"""Keeps the token of the pod's service account fresh in every fenced client.

A token that belongs to a pod expires, after an hour by default, and the kubelet writes a new one into the same file
before that. Clusters may accept the old one for a year (`--service-account-extend-token-expiration`), but not all do.
A client that has read the file once, as pykube-ng and easykube do, gets 401 from then on, for ever, while the Lease is
renewed by a client that reads it again.

So each request looks at the token that it carries. If it is an older one of the account in the file, the file's takes
its place. Any other token is left alone.
"""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

#: Where the kubelet writes it.
TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


def renewed(header: str) -> str:
    """Return what an `Authorization` header should say now.

    Args:
        header: what the client wants to send; empty for none.
    """
    scheme, _, given = header.partition(" ")
    given = given.strip()
    if scheme.lower() != "bearer" or not given:
        return header
    newest = _newest()
    return f"{scheme} {newest}" if newest and newest != given and _replaces(newest, given) else header


def renew(headers: MutableMapping[str, Any]) -> None:
    """Put the newest token into headers whose names have no case."""
    header = headers.get("Authorization")
    if isinstance(header, str) and (now := renewed(header)) != header:
        headers["Authorization"] = now


def _newest() -> str:
    try:
        # Followed to the end: the kubelet changes a link to the folder.
        found = TOKEN.stat()
        return _read(TOKEN, found.st_mtime_ns, found.st_ino)
    except OSError:
        return ""


@functools.lru_cache(maxsize=1)
def _read(file: Path, changed: int, inode: int) -> str:
    return file.read_text().strip()


@functools.lru_cache(maxsize=8)
def _replaces(newest: str, given: str) -> bool:
    """Whether one token is a later one of the same account, pod and audience as the other."""
    now, before = _claims(newest), _claims(given)
    if not now or not before or _whose(now) != _whose(before):
        return False
    later, earlier = now.get("iat"), before.get("iat")
    return isinstance(later, int) and isinstance(earlier, int) and later >= earlier


def _whose(claims: dict[str, Any]) -> tuple[Any, ...]:
    bound = claims.get("kubernetes.io")
    pod = bound.get("pod") if isinstance(bound, dict) else None
    return claims.get("iss"), claims.get("sub"), claims.get("aud"), pod


def _claims(token: str) -> dict[str, Any]:
    """Return what a JWT says; nothing if it is none. It is not verified: it only goes where the other one went."""
    try:
        part = token.split(".")[1]
        read = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (IndexError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}
