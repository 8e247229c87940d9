"""Keys and certificates of one control plane: created for each start, and verified by every client.

As in a real cluster there are two CAs: one for the API server and its clients, one for etcd. With a single CA, every
API client could use its certificate to read and write etcd directly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

_LOCAL = ("127.0.0.1", "localhost")
_IN_CLUSTER = (
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "10.96.0.1",
)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM files."""

    cert: Path
    key: Path


@dataclass(frozen=True)
class Pki:
    """All keys and certificates. `service_accounts` is the private key that signs service account tokens."""

    ca: Path
    server: Pair
    admin: Pair
    controller_manager: Pair
    etcd_ca: Path
    etcd_server: Pair
    etcd_client: Pair
    service_accounts: Path
    issue: Callable[..., Pair] = field(repr=False, compare=False)

    def scheduler(self) -> Pair:
        """Return a client certificate for the scheduler."""
        return self.issue("scheduler", "system:kube-scheduler", "system:kube-scheduler")

    def proxy(self) -> Pair:
        """Return a client certificate for kube-proxy: one for all nodes, as with kubeadm."""
        return self.issue("kube-proxy", "system:kube-proxy", "system:node-proxiers")

    def kubelet_client(self) -> Pair:
        """Return the client certificate that API servers use for kubelets."""
        return self.issue("kubelet-client", "kube-apiserver-kubelet-client", "system:masters")

    def node(self, name: str, address: str) -> tuple[Pair, Pair]:
        """Return a kubelet's server certificate for `address`, and its client certificate as that node."""
        serving = self.issue(f"{name}-serving", "", "", names=(address,))
        return serving, self.issue(name, f"system:node:{name}", "system:nodes")


def make(folder: Path, server_names: Sequence[str] = ()) -> Pki:
    """Create all of them in `folder`. `server_names` are further names or addresses of API servers and etcd."""
    folder.mkdir(parents=True, exist_ok=True)
    ca = trustme.CA(organization_name="devcluster", organization_unit_name="kubernetes")
    etcd_ca = trustme.CA(organization_name="devcluster", organization_unit_name="etcd")
    return Pki(
        ca=_authority(ca, folder / "ca.crt"),
        server=_pair(folder, "server", ca.issue_cert(*_LOCAL, *_IN_CLUSTER, *server_names)),
        admin=_client(folder, "admin", ca, "kubernetes-admin", "system:masters"),
        controller_manager=_client(
            folder, "controller-manager", ca, "system:kube-controller-manager", "system:kube-controller-manager"
        ),
        etcd_ca=_authority(etcd_ca, folder / "etcd-ca.crt"),
        # for clients of etcd and for its peers
        etcd_server=_pair(folder, "etcd-server", etcd_ca.issue_cert(*_LOCAL, *server_names)),
        etcd_client=_client(folder, "etcd-client", etcd_ca, "etcd-client", "devcluster"),
        service_accounts=_signing_key(folder / "service-accounts.key"),
        issue=partial(_issue, folder, ca),
    )


def _issue(folder: Path, ca: trustme.CA, file: str, user: str, group: str, names: Sequence[str] = ()) -> Pair:
    return _pair(folder, file, ca.issue_cert(*names)) if names else _client(folder, file, ca, user, group)


def _authority(ca: trustme.CA, path: Path) -> Path:
    ca.cert_pem.write_to_path(str(path))
    return path


def _client(folder: Path, name: str, ca: trustme.CA, user: str, group: str) -> Pair:
    # no server has this name, so the certificate is only good for a client
    leaf = ca.issue_cert(f"{name}.client.invalid", common_name=user, organization_name=group)
    return _pair(folder, name, leaf)


def _pair(folder: Path, name: str, leaf: trustme.LeafCert) -> Pair:
    pair = Pair(folder / f"{name}.crt", folder / f"{name}.key")
    pair.cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    _write_secret(pair.key, leaf.private_key_pem.bytes())
    return pair


def _signing_key(path: Path) -> Path:
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    _write_secret(path, pem)
    return path


def _write_secret(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)
