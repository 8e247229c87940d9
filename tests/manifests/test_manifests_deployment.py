"""The Deployment and the code mean the same: options, settings, names, times. No cluster."""

from dataclasses import fields
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from kopf_ha import cli
from kopf_ha.settings import Settings
from testbed.deployment import NAME, ROOT, container_of
from tests.manifests.support import NAMESPACE, environment, last_command

POD = {"metadata": {"name": "kopf-ha-ipam-5d9-x2x", "uid": "0b1c", "namespace": NAMESPACE}}
#: Read by others: the reference operator itself.
OTHERS = {"KOPF_HA_IPAM_QUARANTINE"}


def load(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "deploy/base" / name).read_text()))


@pytest.fixture
def deployment() -> dict[str, Any]:
    (found,) = load("deployment.yaml")
    return found


@pytest.fixture
def settings(deployment: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in environment(deployment, POD).items():
        monkeypatch.setenv(name, value)
    return Settings.from_env()


def test_settings_come_out_as_meant(settings: Settings) -> None:
    assert settings.lease == f"{NAMESPACE}/{NAME}"
    assert settings.deciding == ("addresspools.ipam.kopf-ha.dev",)
    assert settings.after_loss == "follow"
    assert settings.fence == "full"
    assert settings.identity.startswith("kopf-ha-ipam-5d9-x2x_0b1c_")
    assert settings.pod_uid == "0b1c"


def test_no_variable_is_misspelt(deployment: dict[str, Any]) -> None:
    # the identity would be the same for all replicas
    own = {f.name for f in fields(Settings)} - {"identity", "pod_uid"}
    known = {f"KOPF_HA_{name.upper()}" for name in own} | OTHERS
    given = {v["name"] for v in container_of(deployment)["env"]}
    assert given - known == {"POD_NAMESPACE", "POD_NAME", "POD_UID"}


@pytest.mark.parametrize("where", ["deployment", "image"])
def test_options_are_those_of_the_command(deployment: dict[str, Any], where: str) -> None:
    command, *args = container_of(deployment)["args"] if where == "deployment" else last_command()
    assert command == "run"
    told = CliRunner().invoke(cli.main, ["run", "--help"])
    assert told.exit_code == 0
    words = told.output.replace(",", " ").split()
    assert all(a in words for a in args if a.startswith("-"))
    cli.run.make_context("run", list(args))  # raises on what it does not know


def test_the_role_is_pinned_to_the_lease_and_its_term(settings: Settings) -> None:
    (role,) = (d for d in load("rbac.yaml") if d["kind"] == "Role")
    *counting, pods = role["rules"]
    assert [r["resources"] for r in counting] == [["leases"], ["leases"], ["terms"], ["terms"]]
    for pinned, create in (counting[:2], counting[2:]):
        assert pinned["resourceNames"] == [settings.lease_name]
        assert create["verbs"] == ["create"]
    assert (pods["resources"], pods["verbs"]) == (["pods"], ["get", "list", "watch"])


def test_a_pod_has_the_time_to_drain_and_release(deployment: dict[str, Any], settings: Settings) -> None:
    grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    # handlers, then the Lease, then threads that are not ours
    assert grace > 2 * settings.drain_timeout + settings.renew_deadline


def test_the_budget_and_the_spread_are_about_these_pods(deployment: dict[str, Any]) -> None:
    (budget,) = load("disruption-budget.yaml")
    selector = deployment["spec"]["selector"]
    pod = deployment["spec"]["template"]
    assert budget["spec"]["selector"] == selector
    assert selector["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert all(s["labelSelector"] == selector for s in pod["spec"]["topologySpreadConstraints"])
    assert budget["spec"]["maxUnavailable"] < deployment["spec"]["replicas"] == 3
