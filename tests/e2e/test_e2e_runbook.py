"""Somebody on call with docs/runbook.md, on nodes: its commands are typed, and print what the page shows."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from devcluster.errors import DevclusterError
from devcluster.waiting import until
from testbed.deployment import NAME, ROOT
from testbed.stage import LIMIT, Stage
from tests.page import Shown, blocks, shown

pytestmark = pytest.mark.timeout(600)

RUNBOOK = ROOT / "docs" / "runbook.md"
BINDING = "validatingadmissionpolicybinding"


class OnCall:
    """Somebody with a kubeconfig, the page, and the programs that an installation makes.

    Args:
        stage: the cluster, with the operator.
        folder: for the plugin of kubectl.
    """

    def __init__(self, stage: Stage, folder: Path) -> None:
        self.stage = stage
        plugin = folder / "kubectl-kopf_ha"
        plugin.write_text(f"#!{sys.executable}\nfrom kopf_ha.cli import entry\nentry()\n")
        plugin.chmod(0o755)
        self._env = stage.env | {"PATH": f"{folder}:{stage.env['PATH']}"}

    def type(self, command: str) -> str:
        """Type a command, which must succeed; give what it prints."""
        status, said = self._typed(command)
        assert status == 0, f"{command}\n{said}"
        return said

    def _typed(self, command: str) -> tuple[int, str]:
        """Type a command; give its exit status and what it prints. `kopf-ha` is told the kubeconfig."""
        env = dict(self._env)
        if re.match(r"(kubectl )?kopf-ha (status|history|handover|pause|resume|check) ", command):
            command += f" --kubeconfig={env.pop('KUBECONFIG')}"
        argv = ["bash", "-euo", "pipefail", "-c", command]
        done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=3 * LIMIT)
        return done.returncode, done.stdout or done.stderr

    def order(self, one: Shown) -> str:
        """Type what changes something, once."""
        said = self.type(one.command)
        assert one.missing(said) == "", f"{one.command}\n{said}"
        return said

    def see(self, one: Shown, status: int = 0) -> str:
        """Type what only looks, until it prints what the page shows: kubelets and leaders take a moment."""
        ended, said = -1, ""

        def look() -> bool:
            nonlocal ended, said
            ended, said = self._typed(one.command)
            return (ended, one.missing(said)) == (status, "")

        try:
            until(one.command, look, LIMIT, 1)
        except DevclusterError as error:
            raise AssertionError(f"{one.command} ({ended}) does not print {one.missing(said)!r}\n{said}") from error
        return said

    def data(self, command: str) -> Any:
        """Give the answer to a command as data, whether it is good news or not."""
        return json.loads(self._typed(f"{command} -n {NAME} -o json")[1])

    def history_of(self, token: int) -> dict[str, Any]:
        """Wait until the history has how a term ended; give that."""

        def ended() -> Any:
            terms = self.data("kopf-ha history")["terms"]
            return next((t for t in terms if t["token"] == token and t["reason"]), None)

        return dict(until(f"the end of term {token} in the history", ended, LIMIT, 0.5))

    def all_well(self) -> None:
        """Wait as the page says, until nothing is wrong any more."""
        self.type(f"kopf-ha check -n {NAME} --wait --timeout {LIMIT:g}")


@pytest.fixture(scope="module")
def oncall(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> OnCall:
    """The operator is there since the tutorial's tests; alone, it is installed as they do."""
    if not stage.kubectl("get", "namespace", NAME, "--ignore-not-found"):
        stage.shell(next(b for b in blocks(ROOT / "docs" / "tutorial.md", "On a cluster") if "apply -k deploy/" in b))
    pool = {"apiVersion": "ipam.kopf-ha.dev/v1", "kind": "AddressPool", "metadata": {"name": "on-call"}}
    stage.kubectl("apply", "-f", "-", input=json.dumps(pool | {"spec": {"cidr": "10.41.0.0/28"}}))
    stage.kubectl("wait", "addresspool/on-call", "--for=condition=Ready", f"--timeout={LIMIT - 5:g}s")
    return OnCall(stage, tmp_path_factory.mktemp("plugin"))


def hints(said: str) -> dict[str, list[str]]:
    """The commands below each error that `kopf-ha check` printed, by the check's name."""
    found = re.findall(r"(?m)^× .*\((\w+\.\w+)\)\n((?: {4}.*\n)*)", said)
    return {name: re.findall(r"(?m)^ {6}(.*)$", below) for name, below in found}


def claim(stage: Stage) -> None:
    body = {"apiVersion": "ipam.kopf-ha.dev/v1", "kind": "AddressClaim", "metadata": {"name": "waits"}}
    stage.kubectl("create", "-n", "default", "-f", "-", input=json.dumps(body | {"spec": {"poolName": "on-call"}}))


def test_a_first_look(oncall: OnCall) -> None:
    status, check = shown(RUNBOOK, "First look")
    said = oncall.see(status)
    assert said.startswith(f"Lease {NAME}/{NAME}: {oncall.stage.leader()} leads, token {oncall.stage.lease()[1]}\n")
    oncall.see(check)
    by_kubectl = oncall.type(f"kubectl {status.command}")
    assert by_kubectl.splitlines()[0] == said.splitlines()[0]


def test_a_repair_while_the_operator_is_paused(oncall: OnCall) -> None:
    pause, status, resume = shown(RUNBOOK, "Stop the operator for a repair")
    stage, (_, token) = oncall.stage, oncall.stage.lease()
    oncall.order(pause)
    oncall.see(status, 1)
    claim(stage)
    gone = stage.pods()[0]["metadata"]
    stage.kubectl("delete", "pod", "-n", NAME, gone["name"])
    stage.rolled_out()  # a new replica is ready, and does not lead
    assert gone["uid"] not in {p["metadata"]["uid"] for p in stage.pods()}
    assert stage.lease() == ("", token)
    assert "status" not in stage.get("addressclaim", "waits", "-n", "default")
    oncall.order(resume)
    stage.kubectl("wait", "-n", "default", "addressclaim/waits", "--for=condition=Ready", f"--timeout={LIMIT - 5:g}s")
    ended = oncall.history_of(token)
    assert (ended["reason"], ended["cause"].rpartition(": ")[2]) == ("paused", "moving pools")
    assert stage.lease()[1] == token + 1
    stage.kubectl("delete", "-n", "default", "addressclaim/waits", f"--timeout={LIMIT - 5:g}s")


def test_handing_over_to_a_replica_that_is_named(oncall: OnCall) -> None:
    (handover,) = shown(RUNBOOK, "Have another replica lead")
    (before,) = oncall.data("kopf-ha status")["operators"]
    to = next(r["pod"] for r in before["replicas"] if r["role"] == "follower" and r["ready"])
    oncall.order(Shown(re.sub(r"\bPOD\b", to, handover.command), handover.lines))
    (after,) = oncall.data("kopf-ha status")["operators"]
    assert (after["leader"]["pod"], after["token"]) == (to, before["token"] + 1)
    ended = oncall.history_of(before["token"])
    assert (ended["reason"], ended["cause"]) == ("handover", f"handed over to pod {to}")
    assert ended["pod"] == before["leader"]["pod"]


def test_why_the_leader_changed(oncall: OnCall) -> None:
    stage, (holder, token) = oncall.stage, oncall.stage.lease()
    os.kill(stage.process_of(stage.pod(holder.split("_")[0])["metadata"]["uid"]), signal.SIGKILL)
    stage.next_leader(token)
    assert oncall.history_of(token)["reason"] == "gone"
    (history,) = shown(RUNBOOK, "KopfHaLeaderChangesOften")
    oncall.see(history)
    stage.rolled_out()


def test_what_the_api_server_does_not_enforce(oncall: OnCall) -> None:
    """A binding that somebody deleted, and then a definition that lost its rule."""
    unbound, norule = shown(RUNBOOK, '"not enforced by the API server"')
    stage, path = oncall.stage, "/spec/versions/0/schema/openAPIV3Schema/x-kubernetes-validations"
    stage.kubectl("delete", BINDING, f"{NAME}-schema")
    edit = ("patch", "crd", "addresspools.ipam.kopf-ha.dev", "--type=json", "-p")
    patch = json.dumps([{"op": "remove", "path": path}])
    until("the policy to be gone", lambda: "patched" in stage.kubectl(*edit, patch, check=False), LIMIT, 0.5)
    said = oncall.see(norule, 1)
    assert unbound.missing(said) == ""
    (prints,), again = hints(said)["definitions.rule"], hints(said)["policies.present"]
    assert "x-kubernetes-validations" in oncall.type(prints)
    for command in ("kubectl apply -k crds/", *again):
        oncall.type(command)
    oncall.all_well()


def test_a_right_that_somebody_took_away(oncall: OnCall) -> None:
    (norights,) = shown(RUNBOOK, "KopfHaRenewalsFail")
    oncall.stage.kubectl("-n", NAME, "delete", "rolebinding", f"{NAME}-election")
    for command in hints(oncall.see(norights, 1))["rights.enough"]:
        oncall.type(command)
    oncall.all_well()
    oncall.stage.leader()
    oncall.stage.kubectl("delete", "addresspool/on-call", f"--timeout={LIMIT - 5:g}s")
