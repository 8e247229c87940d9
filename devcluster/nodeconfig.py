"""The configuration and the command lines of a node's programs, and why each part is there. Pure: no process, no file.

Paths under /run, /var/lib and /var/log are the cell's own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from devcluster.certs import Pair
from devcluster.network import PODS

SOCKET = "/run/containerd/containerd.sock"
PAUSE = "kopf-ha.dev/pause:1"


def containerd(folder: Path, cni_plugins: Path) -> str:
    """Its config.toml; images and containers live in `folder`."""
    return f"""version = 2
root = "{folder / "containerd"}"
state = "/run/containerd"
# It would make /opt/containerd.
disabled_plugins = ["io.containerd.internal.v1.opt"]

[grpc]
address = "{SOCKET}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
# Where lowering the score is not permitted, runc fails otherwise.
restrict_oom_score_adj = true
max_container_log_line_size = -1

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{cni_plugins}"
conf_dir = "{folder / "cni"}"

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
# Not crun, which some containerd packages prefer: it cannot do with cgroups of both versions.
BinaryName = "runc"
"""


def cni(pods: str) -> str:
    """The CNI configuration: pods on a bridge; the other nodes' are routed."""
    bridge: dict[str, Any] = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        # A pod that meets itself behind a service.
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": pods}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": "/run/cni-ipam",
        },
    }
    return json.dumps({"cniVersion": "0.4.0", "name": "devcluster", "plugins": [bridge]}, indent=2)


def kubelet_config(folder: Path, ca: Path, serving: Pair, cgroup: str) -> str:
    """Its KubeletConfiguration; `folder` keeps the logs of pods."""
    config: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
            "x509": {"clientCAFile": str(ca)},
        },
        # Whoever has a certificate of the authority may ask; that is the API server.
        "authorization": {"mode": "AlwaysAllow"},
        "tlsCertFile": str(serving.cert),
        "tlsPrivateKeyFile": str(serving.key),
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "resolvConf": str(folder / "resolv.conf"),
        "podLogsDir": str(folder / "pod-logs"),
        # All containers in one cgroup of the node's own: a kubelet ends what it does not know there, and in the end
        # it is removed. Without QoS classes they would be in a place that is everybody's.
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        # A machine of developers: swap, cgroup v1, a full disk and its other work are its own affair.
        "failSwapOn": False,
        "failCgroupV1": False,
        "evictionHard": {"imagefs.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%"},
        "imageGCHighThresholdPercent": 100,
        "registerNode": True,
        "healthzPort": 0,
        # All images are loaded beforehand: a wrong name shall fail at once.
        "serializeImagePulls": False,
    }
    return json.dumps(config, indent=2)


def kubelet(program: Path, config: Path, kubeconfig: Path, name: str, address: str, labels: Sequence[str]) -> list[str]:
    """One kubelet."""
    return [
        str(program),
        f"--config={config}",
        f"--kubeconfig={kubeconfig}",
        "--root-dir=/var/lib/kubelet",
        f"--hostname-override={name}",
        f"--node-ip={address}",
        f"--node-labels={','.join(labels)}",
    ]


def proxy(program: Path, kubeconfig: Path, name: str) -> list[str]:
    """One kube-proxy."""
    return [
        str(program),
        f"--kubeconfig={kubeconfig}",
        "--proxy-mode=iptables",
        f"--hostname-override={name}",
        f"--cluster-cidr={PODS}",
        # Two pods of one bridge meet directly and would not recognise the service's address.
        "--masquerade-all",
        "--healthz-bind-address=",
        "--metrics-bind-address=127.0.0.1:10249",
        # It may not set these sysctls here.
        "--conntrack-max-per-core=0",
        "--conntrack-min=0",
        "--conntrack-tcp-timeout-established=0s",
        "--conntrack-tcp-timeout-close-wait=0s",
    ]
