"""The end of the story: what docs/uninstall.md says leaves nothing of the operator. The last file, by its name."""

from __future__ import annotations

import pytest

from devcluster.waiting import until
from testbed.deployment import ROOT
from testbed.stage import LIMIT, Stage
from tests.page import blocks

pytestmark = pytest.mark.timeout(600)


def test_uninstalling_leaves_nothing(stage: Stage) -> None:
    kinds = {line.split("/")[0].split(".")[0] for line in left(stage)}
    assert kinds >= {"namespace", "deployment", "pod", "lease", "customresourcedefinition", "clusterrole"}
    assert kinds >= {"validatingadmissionpolicy", "flowschema", "priorityclass", "networkpolicy", "service"}
    stage.kubectl("delete", "namespace", "load", "--wait=false")
    for block in blocks(ROOT / "docs" / "uninstall.md", "In this order"):
        stage.shell(block)
    stage.kubectl("wait", "namespace/load", "--for=delete", f"--timeout={LIMIT - 5:g}s")
    until("nothing to be left", lambda: left(stage) == [], LIMIT, 1)


def left(stage: Stage) -> list[str]:
    """Whatever has our name, in any kind that can be listed; events end by themselves."""
    found = []
    for scope in ("--namespaced=true", "--namespaced=false"):
        kinds = stage.kubectl("api-resources", "--verbs=list", "-o", "name", scope).split()
        names = ",".join(k for k in kinds if not k.startswith(("events", "pods.metrics")))
        said = stage.kubectl("get", names, "-A", "-o", "name", "--ignore-not-found", "--show-labels=false", check=False)
        found += [line for line in said.split() if "kopf-ha" in line]
    return found
