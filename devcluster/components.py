"""The command lines of the control plane's programs, and why each flag is there. Pure: no process, no file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from devcluster.certs import Pki

SERVICE_RANGE = "10.96.0.0/16"
ISSUER = "https://kubernetes.default.svc.cluster.local"


def https(host: str, port: int) -> str:
    """The address of a server."""
    return f"https://{host}:{port}"


def etcd(program: Path, name: str, data: Path, pki: Pki, client: str, peers: dict[str, str]) -> list[str]:
    """One member; `peers` are the peer URLs of all members by name, `client` is its URL for clients."""
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
        # Tests and demo only: after a crash of the machine the data is worthless. Much faster on slow disks.
        "--unsafe-no-fsync",
        # The history is kept whole, and a day of it must fit.
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
    """One API server; a flag in `extra` takes the place of the flag of that name here."""
    ours = [
        f"--etcd-servers={','.join(etcd_urls)}",
        f"--etcd-cafile={pki.etcd_ca}",
        f"--etcd-certfile={pki.etcd_client.cert}",
        f"--etcd-keyfile={pki.etcd_client.key}",
        # The judge reads etcd's history: readable, and never compacted.
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
        # Loopback cannot be an endpoint of the service `kubernetes`, and a machine without a network has
        # nothing else.
        "--advertise-address=127.0.0.1",
        "--endpoint-reconciler-type=none",
        "--allow-privileged=true",
        "--profiling=false",
        # Asked to end, it would wait a minute for those who watch.
        "--shutdown-watch-termination-grace-period=1s",
        f"--audit-policy-file={audit_policy}",
        f"--audit-log-path={audit_log}",
        # One file, never rotated: 100 GB in MB.
        "--audit-log-maxsize=100000",
    ]
    return [str(program), *replaced(ours, extra)]


def for_nodes(host: str, pki: Pki) -> list[str]:
    """What an API server needs besides when there are nodes."""
    client = pki.kubelet_client()
    return [
        "--bind-address=0.0.0.0",
        # Pods come to it by the service `kubernetes`, whose endpoint this is.
        f"--advertise-address={host}",
        "--endpoint-reconciler-type=lease",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        # By address: nobody resolves the nodes' names.
        "--kubelet-preferred-address-types=InternalIP",
        f"--kubelet-client-certificate={client.cert}",
        f"--kubelet-client-key={client.key}",
        f"--kubelet-certificate-authority={pki.ca}",
    ]


def scheduler(program: Path, kubeconfig: Path) -> list[str]:
    """The scheduler."""
    return [str(program), f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--secure-port=0", "--profiling=false"]


def controller_manager(program: Path, kubeconfig: Path, pki: Pki, extra: Sequence[str] = ()) -> list[str]:
    """The controller manager; a flag in `extra` takes the place of the flag of that name here."""
    ours = [
        f"--kubeconfig={kubeconfig}",
        f"--root-ca-file={pki.ca}",
        f"--service-account-private-key-file={pki.service_accounts}",
        "--use-service-account-credentials=true",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        # There is one: an election would only delay its start.
        "--leader-elect=false",
        # Nobody asks it for health or metrics.
        "--secure-port=0",
        "--profiling=false",
        # Namespaces come and go with each test; 20 requests a second would be their bound.
        "--kube-api-qps=200",
        "--kube-api-burst=400",
    ]
    return [str(program), *replaced(ours, extra)]


def replaced(ours: Sequence[str], extra: Sequence[str]) -> list[str]:
    """`ours` without the flags that `extra` sets, then `extra`; of list flags the two would add up."""
    names = {flag.split("=", 1)[0] for flag in extra}
    return [flag for flag in ours if flag.split("=", 1)[0] not in names] + list(extra)
