"""Configuration and command lines of a node's programs, with the reason for each part. Pure: no process, no file.

/run, /var/lib and /var/log are separate folders in each cell.
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
    """Return containerd's config.toml. Images and containers are kept in `folder`."""
    return f"""version = 2
root = "{folder / "containerd"}"
state = "/run/containerd"
# It would create /opt/containerd.
disabled_plugins = ["io.containerd.internal.v1.opt"]

[grpc]
address = "{SOCKET}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
# Otherwise runc fails where lowering the score is not permitted.
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
# Not crun, which some containerd packages prefer: it fails where both versions of cgroups are mounted.
BinaryName = "runc"
"""


def cni(pods: str) -> str:
    """Return the CNI configuration: a bridge for the node's pods, routes to those of other nodes."""
    bridge: dict[str, Any] = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        # So that a pod can reach itself through a service.
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
    """Return the KubeletConfiguration. Logs of pods are kept in `folder`."""
    config: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
            "x509": {"clientCAFile": str(ca)},
        },
        # Only the API server has a client certificate of this CA for kubelets.
        "authorization": {"mode": "AlwaysAllow"},
        "tlsCertFile": str(serving.cert),
        "tlsPrivateKeyFile": str(serving.key),
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "resolvConf": str(folder / "resolv.conf"),
        "podLogsDir": str(folder / "pod-logs"),
        # All containers are in one cgroup of this node: a kubelet ends processes there that it does not know, and the
        # cgroup is removed at the end. Without QoS classes they would be in a cgroup that others share.
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        # On a developer's machine, swap, cgroup v1, a full disk and other programs must not stop the node.
        "failSwapOn": False,
        "failCgroupV1": False,
        "evictionHard": {"imagefs.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%"},
        "imageGCHighThresholdPercent": 100,
        "registerNode": True,
        "healthzPort": 0,
        # All images are loaded beforehand, so a wrong name should fail at once.
        "serializeImagePulls": False,
    }
    return json.dumps(config, indent=2)


def kubelet(program: Path, config: Path, kubeconfig: Path, name: str, address: str, labels: Sequence[str]) -> list[str]:
    """Return the command line of a kubelet."""
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
    """Return the command line of kube-proxy."""
    return [
        str(program),
        f"--kubeconfig={kubeconfig}",
        "--proxy-mode=iptables",
        f"--hostname-override={name}",
        f"--cluster-cidr={PODS}",
        # Otherwise two pods on one bridge answer each other directly, with an address that is not the service's.
        "--masquerade-all",
        "--healthz-bind-address=",
        "--metrics-bind-address=127.0.0.1:10249",
        # It is not permitted to set these sysctls here.
        "--conntrack-max-per-core=0",
        "--conntrack-min=0",
        "--conntrack-tcp-timeout-established=0s",
        "--conntrack-tcp-timeout-close-wait=0s",
    ]
