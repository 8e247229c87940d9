"""The self-test names what is missing, and asks nothing but dry runs."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import kubernetes
import pytest
import yaml

from devcluster.waiting import until
from kopf_ha.api import Api
from kopf_ha.core.grant import Grant
from kopf_ha.errors import ApiRefused, ConfigurationError
from kopf_ha.manifests import policies, render
from kopf_ha.manifests.lease import DESCRIBE
from kopf_ha.manifests.policies import all_policies
from kopf_ha.manifests.term import KNOWN
from kopf_ha.run.selftest import SelfTest
from kopf_ha.settings import Settings
from tests.kit.client import MERGE, Client
from tests.policies.fenced import GROUP, POOLS, Fenced, crds, described

KIND = f"fencedpools.{GROUP}"


@pytest.fixture
def api(fenced: Fenced) -> Iterator[Api]:
    """The new leader's own client, unfenced."""
    configuration = kubernetes.client.Configuration()
    file = str(fenced.cluster.kubeconfig_for(fenced.new.token))
    kubernetes.config.load_kube_config(file, client_configuration=configuration)
    with kubernetes.client.ApiClient(configuration) as client:
        yield Api(client)


@pytest.fixture
def settings(fenced: Fenced) -> Settings:
    identity = fenced.new.stamp(1, "").holder
    return Settings(
        lease_name="leader",
        lease_namespace=fenced.namespace,
        deciding=(KIND,),
        identity=identity,
        pod_uid=fenced.new.uid,
    )


def lead(fenced: Fenced, by: Client) -> int:
    return fenced.lead(by)


def pool_of_old(fenced: Fenced) -> str:
    """Have the other pod lead, so that it may stamp a pool; give the pool's path."""
    lead(fenced, fenced.old)
    path = fenced.pool()
    fenced.stamp(fenced.old, path, 7)
    return path


def without(fenced: Fenced, policy: str) -> None:
    name = f"{fenced.description.prefix}-{policy}"
    fenced.cluster.kubectl("delete", "validatingadmissionpolicybinding", name)


def only(found: list[str], *said: str) -> bool:
    """Whether each sentence begins so, in this order. A change may come into force in the middle of the questions."""
    return len(found) == len(said) and all(f.startswith(s) for f, s in zip(found, said, strict=True))


def whole(fenced: Fenced, asking: SelfTest, token: int) -> None:
    """Put everything back, and wait until nothing is missing."""
    fenced.apply_policies()
    until("nothing to be missing", lambda: asking.ask(token) == [])


def test_nothing_is_missing(fenced: Fenced, api: Api, settings: Settings) -> None:
    token, asking = lead(fenced, fenced.new), SelfTest(api, settings)
    before = fenced.read(f"{fenced.leases}/leader")
    pool = f"{POOLS}/probe"
    for number, by in ((0, None), (7, fenced.old), (8, fenced.new), (1000, fenced.old)):
        if by is not None:
            fenced.stamp(by, pool, number)
        now = fenced.read(pool)
        assert asking.ask(token) == []
        assert fenced.read(pool) == now
    assert fenced.read(f"{fenced.leases}/leader") == before


def test_a_kind_without_objects_cannot_be_asked_about(fenced: Fenced, api: Api, settings: Settings) -> None:
    fenced.admin.must("DELETE", f"{POOLS}/probe")
    assert SelfTest(api, settings).ask(lead(fenced, fenced.new)) == []


def test_a_kind_that_is_not_there(fenced: Fenced, api: Api, settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="not installed"):
        SelfTest(api, settings.changed(deciding=("nothing.example.dev",))).ask(lead(fenced, fenced.new))


def test_permission_is_no_protection(fenced: Fenced, settings: Settings) -> None:
    """RBAC's 403 says nothing about the policies."""
    configuration = kubernetes.client.Configuration()
    token = fenced.cluster.kubectl("create", "token", "default", "-n", fenced.namespace).stdout.strip()
    file = str(fenced.cluster.kubeconfig_for(token))
    kubernetes.config.load_kube_config(file, client_configuration=configuration)
    with kubernetes.client.ApiClient(configuration) as client, pytest.raises(ApiRefused, match="no permission to "):
        SelfTest(Api(client), settings).ask(lead(fenced, fenced.new))


#: Policies without their prefix, as `manifests` writes them.
POLICIES = [p.name.removeprefix("kopf-ha-x-") for p in all_policies(described("x"))]


@pytest.mark.parametrize("policy", POLICIES)
def test_each_binding_that_is_removed_is_named(fenced: Fenced, api: Api, settings: Settings, policy: str) -> None:
    pool_of_old(fenced)
    token, asking = lead(fenced, fenced.new), SelfTest(api, settings)
    without(fenced, policy)
    name = f"policy {fenced.description.prefix}-{policy} is not in force"
    # Nothing else can be asked about without that of the Lease: it tells what there is.
    said = f"leaseTransitions of Lease {fenced.lease} can be lowered" if policy == "lease" else name
    try:
        until("it alone to be missed", lambda: only(asking.ask(token), said))
        assert only(asking.ask(token, whole=False), said)  # as a follower asks that is about to take over
    finally:
        whole(fenced, asking, token)


def test_each_rule_that_is_taken_out_is_named(fenced: Fenced, api: Api, settings: Settings) -> None:
    """One of each policy at a time, since each change takes about a second to be in force."""
    token, asking = lead(fenced, fenced.new), SelfTest(api, settings)
    many, told = all_policies(fenced.description), (DESCRIBE, KNOWN)  # what answers questions, and refuses nothing
    for number in range(max(len(p.rules) for p in many)):
        lacking = {p.name: p.rules[number] for p in many if number < len(p.rules) and p.rules[number].name not in told}
        documents = policies(fenced.description)
        for document in documents:
            name = document["metadata"]["name"]
            if document["kind"] == "ValidatingAdmissionPolicy" and name in lacking:
                document["spec"]["validations"][number] |= {"expression": "true"}
        fenced.cluster.kubectl("apply", "-f", "-", input=render(documents))
        whole_policies = {p.name for p in many if len([r for r in p.rules if r.name != KNOWN]) == 1}
        wanted = {
            f"policy {name} is not in force" if name in whole_policies else f"policy {name} lacks its rule {rule.name} "
            for name, rule in lacking.items()
        }

        def named(wanted: set[str] = wanted) -> bool:
            found = asking.ask(token)
            return len(found) == len(wanted) and all(any(f.startswith(w) for f in found) for w in wanted)

        try:
            until(f"all to be missed of {wanted}", named)
        except BaseException:
            whole(fenced, asking, token)
            raise
    whole(fenced, asking, token)


def test_policies_that_do_not_tell_what_they_are(fenced: Fenced, api: Api, settings: Settings) -> None:
    """Those of an earlier version."""
    token, asking = lead(fenced, fenced.new), SelfTest(api, settings)
    documents = [d for d in policies(fenced.description) if d["metadata"]["name"].endswith("-lease")]
    documents[0]["spec"]["validations"].pop()
    fenced.cluster.kubectl("apply", "-f", "-", input=render(documents))
    said = f"the policies of Lease {fenced.lease} do not answer"
    try:
        until("it to be missed", lambda: only(asking.ask(token), said))
    finally:
        whole(fenced, asking, token)


def test_policies_for_another_account_are_named(fenced: Fenced, api: Api, settings: Settings) -> None:
    """As a namespace overlay makes them, which changes no name in an expression."""
    token, asking = lead(fenced, fenced.new), SelfTest(api, settings)
    other = replace(fenced.description, service_account="elsewhere/operator")
    fenced.cluster.kubectl("apply", "-f", "-", input=render(policies(other)))

    said = f"the policies of Lease {fenced.lease} do not answer"
    try:
        until("it to be noticed", lambda: only(asking.ask(token), said))
    finally:
        whole(fenced, asking, token)


def test_a_deciding_kind_that_no_policy_is_about(fenced: Fenced, api: Api, settings: Settings) -> None:
    both = settings.changed(deciding=(KIND, "validatingadmissionpolicies.admissionregistration.k8s.io"))
    (found,) = [f for f in SelfTest(api, both).ask(lead(fenced, fenced.new), whole=False) if "deciding kind" in f]
    assert found.startswith(
        "validatingadmissionpolicies.admissionregistration.k8s.io: a deciding kind that no policy of Lease "
    )


def second_version(*, fencing: bool) -> str:
    """The pools' definition with a version more."""
    crd = next(c for c in crds() if c["metadata"]["name"] == KIND)
    more = copy.deepcopy(crd["spec"]["versions"][0]) | {"name": "v2", "storage": False}
    if not fencing:
        schema = more["schema"]["openAPIV3Schema"]
        del schema["properties"]["status"]["properties"]["fencing"]
        schema["x-kubernetes-validations"] = [
            r for r in schema["x-kubernetes-validations"] if "fencing" not in r["rule"]
        ]
    crd["spec"]["versions"].append(more)
    return str(yaml.safe_dump(crd))


def test_nobody_serves_a_version_without_the_stamp(fenced: Fenced) -> None:
    """By it any edit removes the stamp, past the other version's rule (I1)."""
    apply = ("apply", "--dry-run=server", "-f", "-")
    done = fenced.cluster.kubectl(*apply, input=second_version(fencing=False), check=False)
    assert "fencing: a served version lacks status.fencing" in done.stderr
    assert "denied request: fencing: a served version" in done.stderr
    assert "kopf-ha manifests --only schema" in done.stderr
    assert fenced.cluster.kubectl(*apply, input=second_version(fencing=True)).returncode == 0


def test_the_definition_is_looked_at_where_its_policy_is_not_in_force(
    fenced: Fenced, api: Api, settings: Settings
) -> None:
    pool = pool_of_old(fenced)
    token, asking = lead(fenced, fenced.new), SelfTest(api, settings)
    without(fenced, "schema")
    schema = f"policy {fenced.description.prefix}-schema is not in force"
    until("it to be out of force", lambda: only(asking.ask(token), schema))
    fenced.cluster.kubectl("apply", "-f", "-", input=second_version(fencing=False))
    try:
        said = f"{KIND}: version v2 is served and lacks status.fencing"
        until("the version to be noticed", lambda: only(asking.ask(token), schema, said))
        assert asking.unfit[KIND].startswith(said)
        # What this is about: the stamp is gone by a user's edit, with 200.
        label = {"metadata": {"labels": {"a": "b"}}}
        path = pool.replace("/v1/", "/v2/")
        until("v2 to be served", lambda: fenced.admin("GET", path).ok)
        fenced.admin.must("PATCH", path, label, MERGE)
        assert "fencing" not in (fenced.read(pool).get("status") or {})
    finally:
        fenced.cluster.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(crds()))
        whole(fenced, asking, token)
    assert asking.unfit == {}


def test_a_definition_without_the_rule(fenced: Fenced, api: Api, settings: Settings) -> None:
    pool_of_old(fenced)
    token, asking = lead(fenced, fenced.new), SelfTest(api, settings)
    without(fenced, "schema")
    schema = f"policy {fenced.description.prefix}-schema is not in force"
    until("it to be out of force", lambda: only(asking.ask(token), schema))
    (crd,) = (c for c in crds() if c["metadata"]["name"] == KIND)
    del crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["x-kubernetes-validations"]
    fenced.cluster.kubectl("apply", "-f", "-", input=yaml.safe_dump(crd))
    try:
        said = f"{KIND}: a recorded token can be lowered; its CRD needs `kopf-ha manifests --only schema`"
        until("the rule to be gone", lambda: only(asking.ask(token), schema, said))
    finally:
        fenced.cluster.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(crds()))
        whole(fenced, asking, token)


def test_the_fence_would_not_let_it_ask(fenced: Fenced) -> None:
    """Why it needs an unfenced client: the Lease is the election's alone, dry run or not."""
    from kopf_ha.core.fence import Fence
    from kopf_ha.core.wire import Request
    from kopf_ha.errors import Unfenced

    grant = Grant(fenced.new.stamp(1, fenced.lease), deadline=1.0)
    request = Request("PUT", f"{fenced.leases}/leader", "dryRun=All", "application/json", b"{}")
    with pytest.raises(Unfenced, match="written by the election alone"):
        next(Fence(fenced.lease).flow(request, grant, lambda: 0.0))
