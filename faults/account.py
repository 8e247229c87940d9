"""A service account's token that expires soon: the API server itself gives none for less than ten minutes."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from devcluster import ControlPlane

#: Seconds for which the API server takes a token that has expired.
LEEWAY = 60


def expiring(plane: ControlPlane, bearer: str, seconds: float) -> str:
    """Give a copy of a token that the API server takes for so many seconds more, signed with the cluster's own key."""
    head, claims, _ = bearer.split(".")
    body = _read(claims)
    ends = int(time.time() + seconds - LEEWAY)
    body |= {"exp": ends, "iat": ends - 600, "nbf": ends - 600}
    body.get("kubernetes.io", {}).pop("warnafter", None)
    text = f"{head}.{_shown(json.dumps(body, separators=(',', ':')).encode())}"
    pem = (plane.folder / "pki" / "service-accounts.key").read_bytes()
    key = serialization.load_pem_private_key(pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("the key of service accounts is of another kind")
    r, s = decode_dss_signature(key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{text}.{_shown(r.to_bytes(32) + s.to_bytes(32))}"


def _read(part: str) -> dict[str, Any]:
    return dict(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))


def _shown(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
