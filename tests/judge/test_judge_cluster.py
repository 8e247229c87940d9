"""The judge on a real control plane: what was done by hand with kubectl is what it sees."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from devcluster import ControlPlane, PodIdentity
from judge import AuditEntry, Change, Expectations, History, Key, dump, judge, load, read_audit
from judge.__main__ import main
from judge.finding import Finding
from judge.writers import Writers
from tests.kit.client import unfenced_session
from tests.kit.history import history_of

pytestmark = pytest.mark.cluster

CRDS = Path(__file__).parents[2] / "crds"
GROUP = "ipam.kopf-ha.dev"


@dataclass(frozen=True)
class Site:
    """A namespace of this test's own, with two replicas that may do anything."""

    cluster: ControlPlane
    namespace: str
    zero: PodIdentity = field(repr=False)  # it has a token
    one: PodIdentity = field(repr=False)

    @property
    def user(self) -> str:
        return f"system:serviceaccount:{self.namespace}:op"

    def kubectl(self, *args: str, who: PodIdentity | None = None, input: str | None = None) -> str:
        return self.cluster.kubectl("-n", self.namespace, *args, input=input, token=who.token if who else None).stdout

    def apply(self, kind: str, name: str, **fields: object) -> None:
        body = {"apiVersion": f"{GROUP}/v1", "kind": kind, "metadata": {"name": name}, **fields}
        self.kubectl("apply", "-f", "-", input=json.dumps(body))

    def status(self, kind: str, name: str, status: dict[str, Any], who: PodIdentity) -> None:
        patch = json.dumps({"status": status})
        self.kubectl("patch", kind, name, "--subresource=status", "--type=merge", "-p", patch, who=who)

    def read(self) -> tuple[History, list[AuditEntry]]:
        return history_of(self.cluster), read_audit(self.cluster.audit_logs)


@pytest.fixture
def site(cluster: ControlPlane) -> Iterator[Site]:
    if not isinstance(cluster, ControlPlane):
        pytest.skip("an existing cluster shows no etcd")
    namespace = f"judge-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", namespace)
    cluster.kubectl("-n", namespace, "create", "serviceaccount", "op")
    role = ("--clusterrole=cluster-admin", f"--serviceaccount={namespace}:op")
    cluster.kubectl("create", "clusterrolebinding", namespace, *role)
    yield Site(cluster, namespace, *(cluster.pod_identity(namespace, "op", f"op-{n}") for n in "01"))
    cluster.kubectl("delete", "clusterrolebinding", namespace)
    cluster.kubectl("delete", "namespace", namespace, "--wait=false")


@pytest.fixture
def crds(site: Site) -> None:
    files = sorted(CRDS.glob("address*.yaml"))
    for file in files:
        site.kubectl("apply", "-f", str(file))
    site.cluster.wait_established()


def changes(history: History, key: Key) -> list[Change]:
    return [change for change in history.changes if change.key == key]


def test_every_revision_and_its_writer(site: Site, tmp_path: Path) -> None:
    site.kubectl("create", "configmap", "m", "--from-literal=n=1")
    site.kubectl("patch", "configmap", "m", "--type=merge", "-p", '{"data":{"n":"2"}}', who=site.zero)
    site.kubectl("patch", "configmap", "m", "--type=merge", "-p", '{"data":{"n":"2"}}', who=site.one)  # no change
    site.kubectl("delete", "configmap", "m", who=site.one)
    site.kubectl("create", "configmap", "m", "--from-literal=n=3", who=site.one)
    history, audit = site.read()

    seen = changes(history, Key("", "configmaps", site.namespace, "m"))
    assert [c.after and c.after["data"]["n"] for c in seen] == ["1", "2", None, "3"]
    assert [c.revision for c in seen] == sorted({c.revision for c in seen})
    assert seen[0].uid == seen[2].uid != seen[3].uid

    live = json.loads(site.kubectl("get", "configmap", "m", "-o", "json"))
    assert live["metadata"]["resourceVersion"] == str(seen[3].revision)
    assert history.revision >= seen[3].revision

    writers = Writers(history, audit, site.user)
    entries = [writers.entry(c) for c in seen]
    assert [e and e.pod for e in entries] == ["", "op-0", "op-1", "op-1"]
    assert entries[1] is not None
    assert (entries[1].pod_uid, entries[1].user) == (site.zero.uid, site.user)

    dump(history, tmp_path / "history")
    assert load(tmp_path / "history") == history
    assert not list(history.of("secrets"))


def test_the_end_of_a_finalizer_is_matched_with_who_removed_it(site: Site) -> None:
    site.kubectl("create", "configmap", "m")
    site.kubectl("patch", "configmap", "m", "--type=merge", "-p", '{"metadata":{"finalizers":["kopf-ha.dev/x"]}}')
    site.kubectl("delete", "configmap", "m", "--wait=false")
    site.kubectl("patch", "configmap", "m", "--type=merge", "-p", '{"metadata":{"finalizers":null}}', who=site.one)
    history, audit = site.read()
    writers = Writers(history, audit, site.user)
    *_, deleted, end = changes(history, Key("", "configmaps", site.namespace, "m"))
    assert deleted.after is not None
    assert end.after is None
    entries = [writers.entry(deleted), writers.entry(end)]
    assert [(e.verb, e.pod) for e in entries if e] == [("delete", ""), ("patch", "op-1")]


def test_a_deletion_by_body_deletes_whatever_its_url_says(site: Site) -> None:
    """`?dryRun=All` counts only without a body, and a body that asks for a dry run is one."""
    path = f"/api/v1/namespaces/{site.namespace}/configmaps/m"
    body: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
    site.kubectl("create", "configmap", "m")
    for query, options in (("?dryRun=All", None), ("", {**body, "dryRun": ["All"]}), ("?dryRun=All", body)):
        assert site.kubectl("get", "configmap", "m", "-o", "name")
        delete(site, path + query, options)
    assert not site.kubectl("get", "configmap", "m", "-o", "name", "--ignore-not-found")
    history, audit = site.read()
    asked = [e for e in audit if (e.verb, e.namespace, e.name) == ("delete", site.namespace, "m")]
    assert [(e.write, e.doubtful) for e in asked] == [(False, False), (False, False), (True, False)]
    *_, end = changes(history, Key("", "configmaps", site.namespace, "m"))
    entry = Writers(history, audit, site.user).entry(end)
    assert end.after is None
    assert entry is asked[-1]
    assert entry.pod == "op-0"


def delete(site: Site, path: str, options: dict[str, Any] | None) -> None:
    """Send a DELETE as it is, as a pod."""
    answer = unfenced_session().delete(
        site.cluster.servers[0] + path,
        data=json.dumps(options) if options else None,
        headers={"Authorization": f"Bearer {site.zero.token}", "Content-Type": "application/json"},
        verify=str(site.cluster.ca_file),
        timeout=30,
    )
    assert answer.status_code == 200, answer.text


def test_command_line(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    c = site.cluster
    certs = (f"--ca={c.etcd_ca}", f"--cert={c.etcd_cert}", f"--key={c.etcd_key}")
    argv = [f"--etcd={c.etcd_endpoints[0]}", *certs, f"--dump={tmp_path / 'h'}", "--audit", *map(str, c.audit_logs)]
    assert main(argv) in (0, 1)  # others may have broken promises on purpose
    assert f"{load(tmp_path / 'h').revision} revisions" in capsys.readouterr().out


@pytest.mark.usefixtures("crds")
def test_an_address_given_twice_by_hand_is_found(site: Site) -> None:
    pool = site.namespace
    site.apply("AddressPool", pool, spec={"cidr": "10.20.0.0/24"})
    for name in "ab":
        site.apply("AddressClaim", name, spec={"poolName": pool})
    claim = json.loads(site.kubectl("get", "addressclaim", "a", "-o", "json"))
    owner = f"{site.namespace}/a/{claim['metadata']['uid']}"
    try:
        site.status("addresspool", pool, {"allocations": {"10.20.0.7": owner}}, site.zero)
        site.status("addressclaim", "a", {"address": "10.20.0.7"}, site.zero)
        expected = Expectations(site.user, fenced=False, min_terms=0)
        assert not ours(site, expected)
        site.status("addressclaim", "b", {"address": "10.20.0.7"}, site.one)
        site.kubectl("label", "addressclaim", "a", "changed=by-operator", who=site.one)
        twice, unrecorded, label = ours(site, expected)
    finally:
        site.kubectl("delete", "addressclaim", "--all")
        site.kubectl("delete", "addresspool", pool)

    assert (twice.promise, twice.kind) == ("I5", "given twice")
    assert [(p.name, p.pod_uid) for p in twice.parties] == [("pod op-0", site.zero.uid), ("pod op-1", site.one.uid)]
    assert twice.sentence.startswith(
        f"10.20.0.7 was given twice: to {site.namespace}/a (uid {claim['metadata']['uid']}"
    )
    assert unrecorded.kind == "given without record"
    assert (label.promise, label.parties[0].name) == ("I6", "pod op-1")


@pytest.mark.usefixtures("crds")
def test_an_unstamped_write_of_a_replica_is_found(site: Site) -> None:
    site.apply("AddressClaim", "a", spec={"poolName": "none"})
    site.kubectl("annotate", "addressclaim", "a", "kopf.zalando.org/x=y", who=site.zero)
    (found,) = ours(site, Expectations(site.user))
    assert (found.promise, found.kind) == ("I8", "write without stamp")


@pytest.mark.usefixtures("crds")
def test_what_a_quiet_run_left_and_what_the_account_wrote_without_a_pod(site: Site) -> None:
    """By hand: a record of a claim that is gone, freed too early elsewhere, and a claim that waits in vain."""
    pool, stamp = site.namespace, {"lease": f"{site.namespace}/op", "token": 1, "holder": "op-0_x_y"}
    stamped = {"fencing": {**stamp, "podUID": site.zero.uid}}
    bare = site.cluster.kubectl("-n", site.namespace, "create", "token", "op").stdout.strip()
    site.apply("AddressPool", pool, spec={"cidr": "10.20.0.0/29"})
    for name in "abc":
        site.apply("AddressClaim", name, spec={"poolName": pool})
    uids = {n: json.loads(site.kubectl("get", "addressclaim", n, "-o", "json"))["metadata"]["uid"] for n in "abc"}
    taken = {f"10.20.0.{i}": f"{site.namespace}/{n}/{uids[n]}" for i, n in enumerate("ab", 1)}
    try:
        site.status("addresspool", pool, stamped, site.zero)
        site.status("addresspool", pool, {"state": "Active", "allocations": taken}, site.zero)
        site.status("addresspool", pool, {"allocations": {"10.20.0.2": None}}, site.zero)
        site.kubectl("delete", "addressclaim", "a")
        site.cluster.kubectl("-n", site.namespace, "annotate", "addressclaim", "c", "kopf.zalando.org/x=y", token=bare)
        history, _ = site.read()
        expected = Expectations(site.user, quiet_after=history.revision, audit_whole=True, lease_tampered=True)
        found = {(f.promise, f.kind) for f in ours(site, expected)}
    finally:
        site.kubectl("delete", "addressclaim", "--all")
        site.kubectl("delete", "addresspool", pool)
    assert found == {
        ("I4", "claim not stamped before the activation"),
        ("I5", "freed while the claim exists"),
        ("I7", "address left behind"),
        ("I7", "claim not served"),
        ("I8", "write without a pod"),
    }


def ours(site: Site, expected: Expectations) -> list[Finding]:
    """Findings of this test's namespace: others share the control plane."""
    found = judge(*site.read(), expected).findings
    return [f for f in found if site.namespace in f.sentence]
