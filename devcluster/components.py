"""The command lines of the control plane's programs, with the reason for each flag. Pure: no process, no file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from devcluster.certs import Pki

SERVICE_RANGE = "10.96.0.0/16"
ISSUER = "https://kubernetes.default.svc.cluster.local"


def https(host: str, port: int) -> str:
    """Return the URL of a server."""
    return f"https://{host}:{port}"


def etcd(program: Path, name: str, data: Path, pki: Pki, client: str, peers: dict[str, str]) -> list[str]:
    """Return the command line of one etcd member.

    `peers` are the peer URLs of all members by name, `client` is this member's URL for clients.
    """
    return [
        str(program),
        f"--name={name}",
        f"--data-dir={data}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peers[name]}",
        f"--initial-advertise-peer-urls={peers[name]}",
        "--initial-cluster=" + ",".join(f"{member}={url}" for member, url in peers.items()),
        "--initial-cluster-state=new",
        f"--cert-file={pki.etcd_server.cert}",
        f"--key-file={pki.etcd_server.key}",
        f"--trusted-ca-file={pki.etcd_ca}",
        "--client-cert-auth",
        f"--peer-cert-file={pki.etcd_server.cert}",
        f"--peer-key-file={pki.etcd_server.key}",
        f"--peer-trusted-ca-file={pki.etcd_ca}",
        "--peer-client-cert-auth",
        # Only for tests and the demo: a crash of the machine loses data. Much faster on slow disks.
        "--unsafe-no-fsync",
        # The whole history is kept, and a day of it must fit.
        f"--quota-backend-bytes={8 * 1024**3}",
    ]


def apiserver(
    program: Path,
    folder: Path,
    port: int,
    pki: Pki,
    etcd_urls: Sequence[str],
    audit_policy: Path,
    audit_log: Path,
    extra: Sequence[str] = (),
) -> list[str]:
    """Return the command line of one API server. A flag in `extra` replaces the flag of the same name."""
    ours = [
        f"--etcd-servers={','.join(etcd_urls)}",
        f"--etcd-cafile={pki.etcd_ca}",
        f"--etcd-certfile={pki.etcd_client.cert}",
        f"--etcd-keyfile={pki.etcd_client.key}",
        # The judge reads etcd's history, so it must be JSON and never be compacted.
        "--storage-media-type=application/json",
        "--etcd-compaction-interval=0",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={folder}",
        f"--tls-cert-file={pki.server.cert}",
        f"--tls-private-key-file={pki.server.key}",
        f"--client-ca-file={pki.ca}",
        "--authorization-mode=RBAC",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-key-file={pki.service_accounts}",
        f"--service-account-signing-key-file={pki.service_accounts}",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        # Loopback cannot be an endpoint of the service `kubernetes`, but a machine without a network has no other
        # address.
        "--advertise-address=127.0.0.1",
        "--endpoint-reconciler-type=none",
        "--allow-privileged=true",
        "--profiling=false",
        # Otherwise it waits a minute for watches after SIGTERM.
        "--shutdown-watch-termination-grace-period=1s",
        f"--audit-policy-file={audit_policy}",
        f"--audit-log-path={audit_log}",
        # One file, never rotated: 100 GB in MB.
        "--audit-log-maxsize=100000",
    ]
    return [str(program), *replaced(ours, extra)]


def for_nodes(host: str, pki: Pki) -> list[str]:
    """Return the additional flags of an API server for a cluster with nodes."""
    client = pki.kubelet_client()
    return [
        "--bind-address=0.0.0.0",
        # The endpoint of the service `kubernetes`, by which pods reach the API server.
        f"--advertise-address={host}",
        "--endpoint-reconciler-type=lease",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        # Reach kubelets by address: node names cannot be resolved.
        "--kubelet-preferred-address-types=InternalIP",
        f"--kubelet-client-certificate={client.cert}",
        f"--kubelet-client-key={client.key}",
        f"--kubelet-certificate-authority={pki.ca}",
    ]


def scheduler(program: Path, kubeconfig: Path) -> list[str]:
    """Return the command line of the scheduler."""
    return [str(program), f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--secure-port=0", "--profiling=false"]


def controller_manager(program: Path, kubeconfig: Path, pki: Pki, extra: Sequence[str] = ()) -> list[str]:
    """Return the command line of the controller manager. A flag in `extra` replaces the flag of the same name."""
    ours = [
        f"--kubeconfig={kubeconfig}",
        f"--root-ca-file={pki.ca}",
        f"--service-account-private-key-file={pki.service_accounts}",
        "--use-service-account-credentials=true",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        # There is only one, and an election would delay its start.
        "--leader-elect=false",
        # Its health and metrics are not used.
        "--secure-port=0",
        "--profiling=false",
        # Each test creates and deletes namespaces. The default of 20 requests a second would slow them down.
        "--kube-api-qps=200",
        "--kube-api-burst=400",
    ]
    return [str(program), *replaced(ours, extra)]


def replaced(ours: Sequence[str], extra: Sequence[str]) -> list[str]:
    """Return `ours` without the flags that `extra` sets, then `extra`. Otherwise values of list flags would add up."""
    names = {flag.split("=", 1)[0] for flag in extra}
    return [flag for flag in ours if flag.split("=", 1)[0] not in names] + list(extra)
