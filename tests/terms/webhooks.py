"""An API server that asks webhooks on this machine."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import trustme

from devcluster import Cluster
from devcluster.waiting import until
from testbed.replica import PATIENCE


class Certificates:
    """A server's certificate for this machine, as files, and what the API server needs to believe it."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        made = authority.issue_cert("127.0.0.1")
        self.cert, self.key, self.ca = (folder / name for name in ("tls.crt", "tls.key", "ca.crt"))
        authority.cert_pem.write_to_path(str(self.ca))
        self.cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        made.private_key_pem.write_to_path(str(self.key))
        self.bundle = base64.b64encode(authority.cert_pem.bytes()).decode()


def reject(cluster: Cluster, body: object) -> str:
    """Create an object by dry run; give what the API server says against it, empty when it would take it."""
    done = cluster.kubectl("create", "--dry-run=server", "-f", "-", input=json.dumps(body), check=False)
    return done.stderr if done.returncode else ""


def until_rejected(cluster: Cluster, body: object, because: str) -> None:
    """Wait until the API server has learnt of the webhook: it does so within a second or so."""
    until(f"{because!r} to be the answer", lambda: because in reject(cluster, body), PATIENCE)
