"""A real Kubernetes control plane on one machine, for the demo, the tests and the benchmarks.

It runs etcd, kube-apiserver and kube-controller-manager as in production, with TLS, RBAC and an audit log, but without
containers and without root. With nodes, which need root, it also runs scheduler, kubelet, containerd and kube-proxy,
each node in a cell (`cell`).

`ControlPlane` is built from small parts: programs (`binaries`), processes that never outlive their parent (`process`),
reserved ports (`ports`), certificates (`certs`), command lines (`components`), servers (`servers`).
`python -m devcluster` keeps a control plane in the background. devcluster knows nothing of kopf_ha.
"""

from devcluster.binaries import Binaries
from devcluster.cluster import Cluster, ExistingCluster, PodIdentity
from devcluster.controlplane import ControlPlane
from devcluster.errors import BusyError, DevclusterError, NoBinariesError, NoNodeError
from devcluster.node import Node
from devcluster.process import Process
from devcluster.progress import Progress
from devcluster.servers import Server

__all__ = [
    "Binaries",
    "BusyError",
    "Cluster",
    "ControlPlane",
    "DevclusterError",
    "ExistingCluster",
    "NoBinariesError",
    "NoNodeError",
    "Node",
    "PodIdentity",
    "Process",
    "Progress",
    "Server",
]
