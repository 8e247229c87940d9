"""docs/quickstart.md, as it stands there. Processes with the credentials of the Deployment's pods stand for a node."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from devcluster import Binaries, ControlPlane
from devcluster.waiting import until
from testbed.deployment import ROOT, container_of, pod_token, variables
from testbed.ports import free_port
from testbed.replica import Replica
from tests.page import Page

EXAMPLE = ROOT / "examples" / "quickstart"


def test_the_operator_shown_is_the_example() -> None:
    _, _, code = (EXAMPLE / "greeter.py").read_text().split('"""', 2)
    (shown,) = re.findall(r"(?ms)^```python\n(.*?)^```$", (ROOT / "docs/quickstart.md").read_text())
    assert shown.strip() == code.strip()


@pytest.fixture
def plane(binaries: Binaries, tmp_path: Path) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path / "state", binaries=binaries) as made:
        yield made


def start_pods(plane: ControlPlane, stack: ExitStack, folder: Path) -> list[Replica]:
    """A process for each pod of the Deployment, with its command, its variables and its credentials."""

    def get(*what: str) -> dict[str, list[dict[str, object]]]:
        return dict(json.loads(plane.kubectl("get", *what, "-n", "greeter", "-o", "json").stdout))

    until("two pods", lambda: len(get("pods")["items"]) == 2)
    deployment = json.loads(plane.kubectl("get", "deployment", "greeter", "-n", "greeter", "-o", "json").stdout)
    container = container_of(deployment)
    program, *args = list[str](container["command"])
    assert (program, args[0], args[-1]) == ("kopf-ha", "run", "/app/greeter.py")
    made: list[Replica] = []
    for pod in json.loads(plane.kubectl("get", "pods", "-n", "greeter", "-o", "json").stdout)["items"]:
        name = pod["metadata"]["name"]
        config = plane.kubeconfig_for(pod_token(plane, pod), name=name)
        env = variables(container, pod)
        env |= {key: str(free_port()) for key in env if key.endswith("_PORT")}
        if "KOPF_HA_RUN_DIR" in env:
            (folder / name).mkdir()
            env["KOPF_HA_RUN_DIR"] = str(folder / name)
        arguments = [*args[:-1], str(EXAMPLE / "greeter.py")]
        arguments = [re.sub(r"(--\w+-port=)\d+", lambda m: f"{m[1]}{free_port()}", a) for a in arguments]
        made.append(Replica(name, config, arguments, folder / f"{name}.log", env=env))
        stack.enter_context(made[-1])
    return made


def test_it_works_as_it_stands_there(plane: ControlPlane, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    page = Page("quickstart.md", plane, tmp_path)
    diff = page.next("--diff")
    assert re.search(r"\+ *fencing:", diff)
    assert "new: ValidatingAdmissionPolicy" in diff
    assert re.search(r"\+ *command: .*kopf-ha", diff)
    page.next("kubectl apply -f fenced.yaml")
    plane.wait_established()
    with ExitStack() as stack:
        replicas = start_pods(plane, stack, tmp_path)
        said = page.next("greeting.yaml").splitlines()
        assert "Hello, world!" in said
        assert json.loads(said[-1])["token"] == 1
        leader = page.next("LEADER").split()[2].split("_")[0]
        assert leader in [replica.name for replica in replicas]
        assert page.next("delete pod").splitlines()[-1] == "2"
    page.check_at_end()
