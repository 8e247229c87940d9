"""The commands on a real cluster, as somebody on call types them: with a kubeconfig, and the role of docs/oncall.md."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster import Cluster, PodIdentity
from devcluster.waiting import until
from kopf_ha.manifests import Description, policies, schema_fragment
from kopf_ha.manifests.description import Kind
from kopf_ha.manifests.rbac import rbac
from testbed.replica import Replica, as_pod, environment
from tests.kit.client import MERGE
from tests.kit.crd import STAMP, crd, version
from tests.kit.world import World, apply_kinds, fresh_namespace

ROOT = Path(__file__).parents[2]
GROUP = "oncall.kopf-ha.test"
#: Its Deployment would be called `op`, and so are its Lease and its Term.
PODS = ("op-5d4-bcdfg", "op-5d4-vwxz2")
OPERATOR = f"""
import kopf

@kopf.on.startup()
def configure(settings, **_):
    settings.persistence.finalizer = "{GROUP}/finalizer"
    settings.posting.enabled = False
    settings.scanning.disabled = True

@kopf.on.create("{GROUP}", "roots")
def created(patch, **_):
    patch.status["seen"] = True
"""


class Site:
    """An operator with policies and roles, its replicas, and a person on call."""

    def __init__(self, cluster: Cluster, namespace: str, folder: Path) -> None:
        self.world = World(cluster, namespace, GROUP)
        self.folder, self.namespace, self.cluster = folder, namespace, cluster
        self.description = Description(
            group=GROUP,
            kinds=(Kind("roots", deciding=True),),
            lease=f"{namespace}/op",
            service_account=f"{namespace}/operator",
        )
        (folder / "op.py").write_text(OPERATOR)
        self.apply([*rbac(self.description), *policies(self.description)])
        self.world.kubectl("create", "serviceaccount", "operator")
        self.person = self.kubeconfig("person")
        self.stranger = self.kubeconfig("stranger")
        self.apply(self.role_of_the_docs())
        self.until_in_force()
        self.pods = {name: cluster.pod_identity(namespace, "operator", name, {"app": "op"}) for name in PODS}
        self.replicas: dict[str, Replica] = {}

    def apply(self, objects: list[dict[str, Any]]) -> None:
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self.cluster.kubectl("apply", "-f", "-", input=text)

    def until_in_force(self) -> None:
        """Wait for the policies: a leader that misses one asks again only a minute later."""
        api, prefix = self.world.api, self.description.prefix
        leases, _, _ = self.world.lease_path.rpartition("/")
        terms = f"/apis/kopf-ha.dev/v1/namespaces/{self.namespace}/terms?dryRun=All"
        high: dict[str, Any] = {"metadata": {"name": "op"}, "spec": {"leaseTransitions": 2_000_000_001}}
        spec = {"token": 1, "holder": "x", "podUID": "x"}
        term = {"apiVersion": "kopf-ha.dev/v1", "kind": "Term", "metadata": {"name": "op"}, "spec": spec}
        until("-lease", lambda: api("POST", f"{leases}?dryRun=All", high).by == f"{prefix}-lease")
        until("-term-written", lambda: api("POST", terms, term).by == f"{prefix}-term-written")

    def role_of_the_docs(self) -> list[dict[str, Any]]:
        """Give the roles of docs/oncall.md for this operator, bound to the person."""
        block = re.findall(r"(?ms)^```yaml\n(.*?)^```", (ROOT / "docs" / "oncall.md").read_text())[0]
        text = block.replace("NAMESPACE", self.namespace).replace("ipam.kopf-ha.dev", GROUP)
        roles = list(yaml.safe_load_all(text.replace("[addresspools, addressclaims]", "[roots]")))
        made = []
        for role in roles:
            role["metadata"]["name"] += f"-{self.namespace}"
            meta = dict(role["metadata"])
            ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": role["kind"], "name": meta["name"]}
            who = {"kind": "ServiceAccount", "name": "person", "namespace": self.namespace}
            kind = f"{role['kind']}Binding"
            made += [role, {**role, "kind": kind, "metadata": meta, "roleRef": ref, "subjects": [who]}]
            made[-1].pop("rules")
        return made

    def kubeconfig(self, name: str) -> Path:
        """Give a kubeconfig of a person without any right, whose context names the namespace."""
        self.world.kubectl("create", "serviceaccount", name)
        token = self.world.kubectl("create", "token", name, "--duration=2h").stdout.strip()
        config = yaml.safe_load(self.cluster.kubeconfig_for(token, name=f"{self.namespace}-{name}").read_text())
        config["contexts"][0]["context"]["namespace"] = self.namespace
        path = self.folder / name
        path.write_text(yaml.safe_dump(config))
        return path

    def start(self, pod: PodIdentity) -> Replica:
        path = self.cluster.kubeconfig_for(pod.token, name=f"{self.namespace}-{pod.name}")
        # With a name, nobody waits for replicas of earlier releases, which had another.
        lease = f"--lease-name={self.description.lease_parts[1]}"
        arguments = ["run", "op.py", lease, "-n", self.namespace, f"--deciding=roots.{GROUP}"]
        made = Replica(
            pod.name, path, arguments, self.folder / f"{pod.name}.log", env=as_pod(pod, self.namespace), cwd=self.folder
        )
        made.start()
        self.replicas[pod.name] = made
        self.seems_ready(pod)
        return made

    def seems_ready(self, pod: PodIdentity) -> None:
        """Say of a Pod what a kubelet would: its process runs beside the cluster."""
        status = {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{
                "name": "replica", "image": "x", "imageID": "x", "ready": True, "restartCount": 0,
                "state": {"running": {}},
            }],
        }  # fmt: skip
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod.name}/status"
        self.world.ask("PATCH", path, {"status": status}, MERGE)

    def type(self, *words: str, by: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Type a command, as a person."""
        env = environment(by or self.person)
        argv = [sys.executable, "-m", "kopf_ha", *words]
        return subprocess.run(argv, env=env, cwd=self.folder, capture_output=True, text=True, timeout=120)

    def status(self) -> dict[str, Any]:
        """Give what `kopf-ha status -o json` says about the operator."""
        done = self.type("status", "op", "-o", "json")
        (found,) = json.loads(done.stdout or "null")["operators"]
        assert found["exitStatus"] == done.returncode, done.stderr
        return dict(found)

    def until_status(self, what: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until the status is as it should be; give it."""
        last: dict[str, Any] = {}

        def look() -> bool:
            nonlocal last
            last = self.status()
            return holds(last)

        try:
            until(what, look, 150)
        except Exception as error:
            raise AssertionError(json.dumps(last, indent=1)) from error
        return last


def reasons(status: dict[str, Any], kind: str = "problem") -> set[str]:
    return {f["reason"] for f in status["findings"] if f["kind"] == kind}


@pytest.fixture(scope="module")
def site(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    rules = schema_fragment()["x-kubernetes-validations"]
    apply_kinds(cluster, crd(GROUP, "Root", version(fencing=STAMP, rules=rules)))
    with fresh_namespace(cluster) as namespace:
        made = Site(cluster, namespace, tmp_path_factory.mktemp("site"))
        try:
            yield made
        finally:
            for one in made.replicas.values():
                one.kill()
                print(f"--- {one.name}", one.log, sep="\n")  # pytest shows it on failure
            made.world.clear("roots")
            names = sorted({o["metadata"]["name"] for o in policies(made.description)})
            for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
                cluster.kubectl("delete", kind, *names, "--ignore-not-found")
            names = [f"kopf-ha-on-call-{namespace}", made.description.prefix]
            for kind in ("clusterrolebinding", "clusterrole"):
                cluster.kubectl("delete", kind, *names, "--ignore-not-found")


def test_on_call(site: Site) -> None:
    """One story in order, since each of its terms takes seconds."""
    # Nobody has led yet.
    done = site.type("status")
    assert done.returncode == 1
    assert f"namespace {site.namespace} has no Lease of kopf-ha" in done.stderr
    assert reasons(site.status()) >= {"no-lease"}
    assert site.type("history").returncode == 2

    # Two replicas, and all is well as soon as the leader has asked.
    first, second = (site.pods[name] for name in PODS)
    site.start(first).see("leading: token 1")
    site.start(second)
    well = site.until_status("all to be well", lambda s: not reasons(s) and s["fence"]["enforcedAsOfLastMinute"])
    assert well["exitStatus"] == 0
    assert (well["state"], well["token"], well["leader"]["pod"]) == ("led", 1, first.name)
    # A renewal is never older than the Lease, whatever the machine is busy with.
    assert well["leader"]["renewedByClockOf"] == "api-server"
    assert 0 <= well["leader"]["renewedSecondsAgo"] <= well["leader"]["leaseDurationSeconds"] + 1
    assert abs(well["leader"]["clockAheadSeconds"]) <= 2, "it is one machine"
    assert {(r["pod"], r["role"]) for r in well["replicas"]} == {(first.name, "leader"), (second.name, "follower")}
    assert well["fence"]["level"] == "full"
    assert (well["fence"]["policiesMissing"], well["objects"]["ahead"]) == ([], [])
    text = site.type("status")
    assert text.stdout.startswith(f"Lease {site.namespace}/op: {first.name} leads, token 1\n")
    assert not text.stderr

    # The history of the first term, as the leader wrote it.
    def history() -> list[dict[str, Any]]:
        done = site.type("history", "-o", "json")
        return list(json.loads(done.stdout)["terms"]) if done.returncode == 0 else []

    (one,) = until("the history of term 1", history, 60)
    assert (one["token"], one["pod"], one["reason"]) == (1, first.name, None)
    assert one["barrierSeconds"] > 0

    # A leader that is asked to stop says why; the next one keeps it.
    site.replicas[first.name].terminate()
    site.replicas[second.name].see("leading: token 2")
    until("the history of term 2", lambda: len(history()) == 2 and history()[1]["barrierSeconds"], 60)
    one, two = history()
    assert (one["reason"], one["cause"]) == ("stopped", "SIGTERM")
    assert one["began"] < one["ended"] <= two["began"]
    assert one["gapSeconds"] >= 0
    assert two["pod"] == second.name
    assert "stopped" in site.type("history").stdout

    # Line 3 of the fence is incomplete, and that is named.
    gone = f"{site.description.prefix}-stamp"
    site.cluster.kubectl("delete", "validatingadmissionpolicybinding", gone)
    assert site.status()["fence"]["policiesMissing"] == [gone]
    site.apply(policies(site.description))

    # An object that is ahead of the Lease, as after a restored backup.
    for kind in ("-stamp", "-stamped"):
        site.cluster.kubectl("delete", "validatingadmissionpolicybinding", site.description.prefix + kind)

    # Nobody leads, and nobody is left.
    site.replicas[second.name].kill()
    lost = site.until_status("nobody to renew", lambda s: s["state"] == "not-renewed")
    assert "not-renewed" in reasons(lost)
    assert lost["exitStatus"] == 1
    site.world.create("Root", "late")
    stamped = {"lease": f"{site.namespace}/op", "token": 9, "holder": "x", "podUID": "x"}

    def stamp() -> bool:
        path = site.world.path("roots", "late") + "/status"
        return site.world.api("PATCH", path, {"status": {"fencing": stamped}}, MERGE).ok

    until("a stamp from elsewhere to be accepted", stamp, 60)
    (ahead,) = site.status()["objects"]["ahead"]
    assert (ahead["kind"], ahead["name"], ahead["token"]) == (f"roots.{GROUP}", "late", 9)


def test_a_person_without_rights_is_told_which(site: Site) -> None:
    done = site.type("status", by=site.stranger)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no permission to list leases.coordination.k8s.io in namespace")
    assert "docs/oncall.md has a role that is enough" in done.stderr
    assert not done.stdout


def test_kubectl_finds_it(site: Site) -> None:
    """As `kubectl kopf-ha`, by the script that an installation makes."""
    script = site.folder / "bin" / "kubectl-kopf_ha"
    script.parent.mkdir()
    script.write_text(f"#!{sys.executable}\nfrom kopf_ha.cli import entry\nentry()\n")
    script.chmod(0o755)
    env = environment(site.person) | {"PATH": f"{script.parent}{os.pathsep}{os.environ['PATH']}"}
    argv = [str(site.cluster.kubectl_path), "kopf-ha", "status", "--help"]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("Usage: kubectl kopf-ha status [OPTIONS] [LEASE]"), done.stderr


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--context=none"], "no cluster by context none"),
        (["--kubeconfig=none"], "no cluster: none does not exist; name a kubeconfig"),
    ],
)
def test_no_cluster_is_exit_status_2(site: Site, flags: list[str], said: str) -> None:
    done = site.type("status", *flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {said}")
