"""The image in a container as deploy/ asks for: read-only, as nobody, and here without network, too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from devcluster.waiting import until
from testbed.unpacked import Image
from tests.image.conftest import Start
from tests.manifests.support import last_command

pytestmark = pytest.mark.timeout(600)

IMPORTS = "import kopf_ha.cli, kopf_ha.run, kopf_ha_ipam.handlers"


def test_it_needs_no_shell(image: Image, start: Start, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    nothing.touch()
    shells = {f"/usr/bin/{name}": nothing for name in ("dash", "bash") if (image.root / "usr/bin" / name).exists()}
    assert shells  # the stand-in has some
    with_shells_gone = start("kopf-ha", "--version", files=shells)
    assert with_shells_gone.wait(60) == 0, with_shells_gone.log
    assert with_shells_gone.log.startswith("kopf-ha, version ")


def test_it_follows_and_ends_when_asked(start: Start, tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://10.96.0.1"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    (credentials / "config").write_text(json.dumps(config))
    env = {"KUBECONFIG": "/mnt/config", "POD_NAME": "p-0", "POD_UID": "u", "POD_NAMESPACE": "n"}
    replica = start("kopf-ha", *last_command(), env=env, files={"/mnt": credentials})
    until("the replica follows", lambda: "follows Lease n/p" in replica.log, watched=[replica])
    assert "Traceback" not in replica.log
    assert replica.stop(timeout=60) == 0, replica.log


def test_a_start_compiles_nothing(start: Start) -> None:
    traced = start("python3", "-v", "-c", IMPORTS)
    assert traced.wait(60) == 0, traced.log
    origins = [
        line.removeprefix("# code object from ").strip("'")
        for line in traced.log.splitlines()
        if line.startswith("# code object from ")
    ]
    assert len(origins) > 500
    assert [origin for origin in origins if not origin.endswith(".pyc")] == []


def test_what_is_left_of_the_kubernetes_package_is_whole(start: Start) -> None:
    ask = "import kubernetes; [getattr(kubernetes.client, name) for name in kubernetes.client.__all__]; print('whole')"
    asked = start("python3", "-c", ask)
    assert asked.wait(120) == 0, asked.log
    assert asked.log.strip() == "whole"
