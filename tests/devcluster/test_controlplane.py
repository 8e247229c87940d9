"""The control plane is a real one: verified TLS, RBAC, audit, whole history, and parts that can fail."""

import base64
import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from devcluster import Binaries, BusyError, Cluster, ControlPlane, DevclusterError, ExistingCluster
from devcluster.state import StateDir
from devcluster.waiting import until


def get(url: str, context: ssl.SSLContext) -> int:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    with opener.open(url, timeout=10) as answer:
        return int(answer.status)


def events(plane: ControlPlane) -> list[dict[str, Any]]:
    return [json.loads(line) for log in plane.audit_logs for line in log.read_text().splitlines()]


def test_tls_is_verified(control_plane: ControlPlane) -> None:
    url = f"{control_plane.servers[0]}/readyz"
    assert get(url, ssl.create_default_context(cafile=str(control_plane.ca_file))) == 200
    with pytest.raises(urllib.error.URLError, match=r"CERTIFICATE_VERIFY_FAILED"):
        get(url, ssl.create_default_context())


def test_etcd_wants_a_certificate_of_its_own_authority(control_plane: ControlPlane) -> None:
    url = f"{control_plane.etcd_endpoints[0]}/health"
    context = ssl.create_default_context(cafile=str(control_plane.etcd_ca))
    with pytest.raises(OSError, match=r"CERTIFICATE_REQUIRED|bad certificate|reset by peer"):
        get(url, context)
    context.load_cert_chain(control_plane.folder / "pki" / "admin.crt", control_plane.folder / "pki" / "admin.key")
    with pytest.raises(OSError, match=r"BAD_CERTIFICATE|UNKNOWN_CA|bad certificate|reset by peer"):
        get(url, context)
    context = ssl.create_default_context(cafile=str(control_plane.etcd_ca))
    context.load_cert_chain(control_plane.etcd_cert, control_plane.etcd_key)
    assert get(url, context) == 200


def test_history_is_readable_json_over_https(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.kubectl("create", "configmap", "seen", "--from-literal=a=b", "-n", namespace)
    context = ssl.create_default_context(cafile=str(control_plane.etcd_ca))
    context.load_cert_chain(control_plane.etcd_cert, control_plane.etcd_key)
    key = base64.b64encode(f"/registry/configmaps/{namespace}/seen".encode()).decode()
    request = urllib.request.Request(
        f"{control_plane.etcd_endpoints[0]}/v3/kv/range", data=json.dumps({"key": key}).encode()
    )
    with urllib.request.urlopen(request, context=context, timeout=10) as answer:
        value = base64.b64decode(json.load(answer)["kvs"][0]["value"])
    assert json.loads(value)["data"] == {"a": "b"}


def test_a_fresh_service_account_may_nothing(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("create", "serviceaccount", "nobody", "-n", namespace)
    pod = cluster.pod_identity(namespace, "nobody", "replica-0", {"app": "x"})
    done = cluster.kubectl("get", "configmaps", "-n", namespace, token=pod.token, check=False)
    assert done.returncode == 1
    assert "Forbidden" in done.stderr
    with pytest.raises(DevclusterError, match="Forbidden"):
        cluster.kubectl("get", "configmaps", "-n", namespace, token=pod.token)
    who = json.loads(cluster.kubectl("auth", "whoami", "--output=json", token=pod.token).stdout)["status"]["userInfo"]
    assert who["username"] == f"system:serviceaccount:{namespace}:nobody"
    assert who["extra"]["authentication.kubernetes.io/pod-uid"] == [pod.uid]
    assert (
        cluster.kubectl("get", "pod", "replica-0", "-n", namespace, "-o=jsonpath={.status.phase}").stdout == "Pending"
    )


def test_writes_are_in_the_audit_log_with_their_bodies(control_plane: ControlPlane, namespace: str) -> None:
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "leader", "namespace": namespace},
        "spec": {"leaseTransitions": 7},
    }
    control_plane.kubectl("create", "-f", "-", input=json.dumps(lease))
    written = [
        event
        for event in events(control_plane)
        if event["verb"] == "create"
        and event["objectRef"].get("resource") == "leases"
        and event["objectRef"].get("namespace") == namespace
    ]
    assert [event["requestObject"]["spec"]["leaseTransitions"] for event in written] == [7]
    assert written[0]["user"]["username"] == "kubernetes-admin"
    assert written[0]["responseObject"]["metadata"]["resourceVersion"]


def test_no_token_is_in_the_audit_log(control_plane: ControlPlane, namespace: str) -> None:
    token = control_plane.kubectl("create", "token", "default", "-n", namespace).stdout.strip()
    assert all(token not in log.read_text() for log in control_plane.audit_logs)


def test_deleting_a_namespace_empties_it(cluster: Cluster) -> None:
    cluster.kubectl("create", "namespace", "short-lived")
    cluster.kubectl("create", "configmap", "child", "-n", "short-lived")
    cluster.kubectl("delete", "namespace", "short-lived", "--timeout=60s", timeout=90)
    assert cluster.kubectl("get", "namespace", "short-lived", check=False).returncode == 1


def test_an_existing_cluster_has_the_same_ways(
    control_plane: ControlPlane, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(control_plane.kubectl_path.parent))
    with ExistingCluster(control_plane.kubeconfig) as existing:
        assert existing.servers == control_plane.servers[:1]
        token = existing.kubectl("create", "token", "default", "-n", namespace).stdout.strip()
        assert existing.kubectl("auth", "can-i", "list", "pods", token=token, check=False).stdout.strip() == "no"
        for one, name in ((existing, "by-kubectl"), (control_plane, "by-http")):
            maps = f"/api/v1/namespaces/{namespace}/configmaps"
            uid = one.ask(maps, {"metadata": {"name": name}})["metadata"]["uid"]
            assert one.ask(f"{maps}/{name}")["metadata"]["uid"] == uid
            with pytest.raises(DevclusterError, match=f"{name}.* already exists"):
                one.ask(maps, {"metadata": {"name": name}})


def test_a_folder_in_use_is_refused_and_a_strangers_is_left_alone(
    control_plane: ControlPlane, tmp_path: Path, binaries: Binaries
) -> None:
    with pytest.raises(BusyError):
        ControlPlane(control_plane.folder, binaries=binaries).start()
    precious = tmp_path / "precious"
    precious.write_text("mine")
    with pytest.raises(DevclusterError, match="is not empty, and not the folder of a cluster"):
        ControlPlane(tmp_path, binaries=binaries).start()
    assert precious.read_text() == "mine"


def test_a_failed_start_says_why_and_leaves_nothing_running(tmp_path: Path, binaries: Binaries) -> None:
    plane = ControlPlane(tmp_path / "state", binaries=binaries, apiserver_args=["--no-such-flag"])
    with pytest.raises(DevclusterError, match=r"(?s)kube-apiserver-0 ended with status 1.*unknown flag"):
        plane.start()
    assert plane.processes == []
    assert StateDir(plane.folder).owner() is None


def test_three_etcd_members_and_two_api_servers_are_one_cluster_and_survive_faults(
    tmp_path: Path, binaries: Binaries
) -> None:
    with ControlPlane(tmp_path / "state", etcd=3, apiservers=2, binaries=binaries) as plane:
        assert len(plane.servers) == 2
        assert len(plane.etcd_endpoints) == 3
        plane.kubectl("create", "configmap", "shared", "--from-literal=a=1", server=0)
        read = ("get", "configmap", "shared", "-o=jsonpath={.data.a}")
        assert plane.kubectl(*read, server=1).stdout == "1"

        plane.etcd(2).kill()  # two of three are a quorum
        until(
            "a write without that member",
            lambda: plane.kubectl("create", "configmap", "second", server=1, check=False).returncode == 0,
        )
        plane.etcd(2).start()
        plane.etcd(2).wait_ready()

        plane.apiserver(1).stop()
        assert "refused" in plane.kubectl(*read, server=1, check=False).stderr
        assert plane.kubectl(*read, server=0).stdout == "1"
        plane.apiserver(1).start()
        plane.apiserver(1).wait_ready()
        assert plane.kubectl(*read, server=1).stdout == "1"

        plane.apiserver(1).pause()
        with pytest.raises(DevclusterError, match="took longer than"):
            plane.kubectl(*read, server=1, timeout=0.5)
        plane.apiserver(1).resume()
        assert plane.kubectl(*read, server=1).stdout == "1"
