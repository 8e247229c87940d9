"""The self-test names what is missing, and asks nothing but dry runs."""

from __future__ import annotations

from collections.abc import Iterator

import kubernetes
import pytest
import yaml

from devcluster.waiting import until
from kopf_ha.core.grant import Grant
from kopf_ha.errors import ConfigurationError
from kopf_ha.run.api import Api
from kopf_ha.run.selftest import SelfTest
from kopf_ha.settings import Settings
from tests.policies.fenced import GROUP, POOLS, Client, Fenced, crds

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
    return fenced.acquire(by)


def without(fenced: Fenced, policy: str) -> None:
    name = f"{fenced.description.prefix}-{policy}"
    fenced.cluster.kubectl("delete", "validatingadmissionpolicybinding", name)


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
    with kubernetes.client.ApiClient(configuration) as client, pytest.raises(LookupError, match="cannot "):
        SelfTest(Api(client), settings).ask(lead(fenced, fenced.new))


def test_each_missing_protection_is_named(fenced: Fenced, api: Api, settings: Settings) -> None:
    token, asking = lead(fenced, fenced.new), SelfTest(api, settings)
    pool = fenced.pool()
    fenced.stamp(fenced.old, pool, 7)

    without(fenced, "lease")
    found = until("the Lease's policy to be out of force", lambda: asking.ask(token))
    assert found == [
        f"leaseTransitions of Lease {fenced.lease} can be lowered, so tokens could be given twice; apply the policies"
        " that `kopf-ha manifests` writes for this Lease and service account"
    ]
    without(fenced, "stamped")

    def two() -> list[str] | None:
        return found if len(found := asking.ask(token)) == 2 else None

    found = until("the kinds' policy to be out of force", two)
    assert found[1].startswith(f"{KIND}: a status write is accepted without its writer's own stamp; apply the policies")

    # Without the rule of the CRD, too, the token itself goes down.
    for crd in crds():
        for version in crd["spec"]["versions"]:
            del version["schema"]["openAPIV3Schema"]["x-kubernetes-validations"]
        fenced.cluster.kubectl("apply", "-f", "-", input=yaml.safe_dump(crd))

    def three() -> list[str] | None:
        return found if len(found := asking.ask(token)) == 3 else None

    found = until("the rule to be gone", three)
    assert found[2] == f"{KIND}: a recorded token can be lowered; its CRD needs `kopf-ha manifests --only schema`"


def test_the_fence_would_not_let_it_ask(fenced: Fenced) -> None:
    """Why it needs an unfenced client: the Lease is the election's alone, dry run or not."""
    from kopf_ha.core.fence import Fence
    from kopf_ha.core.wire import Request
    from kopf_ha.errors import Unfenced

    grant = Grant(fenced.new.stamp(1, fenced.lease), deadline=1.0)
    request = Request("PUT", f"{fenced.leases}/leader", "dryRun=All", "application/json", b"{}")
    with pytest.raises(Unfenced, match="written by the election alone"):
        next(Fence(fenced.lease).flow(request, grant, lambda: 0.0))
