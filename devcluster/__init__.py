"""A real Kubernetes control plane on one machine, for the demo, the tests and the benchmarks.

etcd, kube-apiserver and kube-controller-manager as in production, with TLS, RBAC and an audit log; no
containers, no root. With nodes, which need root, also scheduler, kubelet, containerd and kube-proxy, in cells of
their own. Small parts that compose: programs (`binaries`), processes that never outlive their
parent (`process`), held ports, certificates, command lines; `ControlPlane` puts them together, and
`python -m devcluster` keeps one in the background. It knows nothing of kopf_ha, which is tested with it.
"""

from devcluster.binaries import Binaries
from devcluster.cluster import Cluster, ExistingCluster, PodIdentity
from devcluster.controlplane import ControlPlane, Server
from devcluster.errors import BusyError, DevclusterError, NoBinariesError, NoNodeError
from devcluster.node import Node
from devcluster.process import Process
from devcluster.progress import Progress

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
