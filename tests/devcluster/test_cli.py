"""The command: up, status, kubectl, down; and nothing left, however it ends."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from devcluster import Binaries, Cluster
from devcluster.state import StateDir
from devcluster.waiting import until

ROOT = Path(__file__).parents[2]


class Command:
    """`python -m devcluster` for one state folder."""

    def __init__(self, state: Path) -> None:
        self.state = StateDir(state)
        self.env = os.environ | {"KUBECONFIG": "/nowhere"}

    def argv(self, verb: str, *args: str) -> list[str]:
        return [sys.executable, "-m", "devcluster", verb, f"--state={self.state.path}", *args]

    def __call__(self, verb: str, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(verb, *args), cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=120, check=False
        )

    def start(self, verb: str, *args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.argv(verb, *args),
            cwd=ROOT,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            # A shell starts what it runs in the background with SIGINT ignored, and so the tests may have been started.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def processes(self) -> list[str]:
        """The command lines of all that names the folder, except of this command itself."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                except OSError:
                    continue  # it ended
                if str(self.state.path) in line:
                    found.append(line)
        return found

    def ports(self) -> list[int]:
        record = self.state.read()
        assert record is not None
        return [urlsplit(url).port or 0 for url in [*record["servers"], *record["etcd"]]]


@pytest.fixture
def command(tmp_path: Path, binaries: Binaries) -> Iterator[Command]:
    # the command finds the programs as the fixture did
    made = Command(tmp_path / "state")
    yield made
    made("down")


def refused(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) != 0


def assert_nothing_left(command: Command, ports: list[int]) -> None:
    until("every process to be gone", lambda: command.processes() == [])
    until("every port to be closed", lambda: all(refused(port) for port in ports))  # a moment after its process


def test_up_status_kubectl_down(command: Command) -> None:
    up = command("up")
    assert up.returncode == 0, up.stderr
    kubeconfig = Path(up.stdout.removesuffix("\n"))  # nothing else is on stdout
    assert kubeconfig.stat().st_mode & 0o777 == 0o600
    ports = command.ports()

    again = command("up")
    assert (again.returncode, again.stdout) == (0, up.stdout)
    assert "already up" in again.stderr

    status = command("status")
    assert status.returncode == 0
    assert re.search(r"Kubernetes +v1\.", status.stdout)
    assert status.stdout.count("pid ") == 4

    assert "namespace/kube-system" in command("kubectl", "get", "namespaces", "-o", "name").stdout
    missing = command("kubectl", "-n", "default", "get", "configmap", "none")
    assert missing.returncode == 1
    assert "NotFound" in missing.stderr

    down = command("down")
    assert down.returncode == 0, down.stderr
    assert_nothing_left(command, ports)
    assert not command.state.path.exists()

    down = command("down")
    assert down.returncode == 0
    assert "nothing is up" in down.stderr
    assert command("status").returncode == 1
    assert "nothing is up" in command("kubectl", "get", "pods").stderr


def test_ctrl_c_ends_the_foreground_and_everything(command: Command) -> None:
    with command.start("up", "--foreground") as process:
        assert process.stdout is not None
        assert process.stdout.readline().endswith("kubeconfig\n")
        ports = command.ports()
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)  # an impatient one
        assert process.wait(60) == 0
    assert_nothing_left(command, ports)
    assert not command.state.path.exists()


def test_ctrl_c_during_the_start_leaves_nothing(command: Command, tmp_path: Path) -> None:
    hangs = tmp_path / "assets" / "kube-apiserver"  # so that the start cannot end before the signal
    hangs.parent.mkdir()
    hangs.write_text("#!/bin/sh\nwhile :; do sleep 0.1; done\n")
    hangs.chmod(0o755)
    command.env["KUBEBUILDER_ASSETS"] = str(hangs.parent)
    process = command.start("up")
    until("the first process", lambda: any("--data-dir" in line for line in command.processes()))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert_nothing_left(command, [])
    assert not command.state.path.exists()


def test_two_at_once_share_one_and_nothing_survives_a_killed_supervisor(command: Command) -> None:
    both = [command.start("up") for _ in range(2)]
    answers = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert answers[0] == answers[1]
    assert sum("supervise" in line for line in command.processes()) == 1
    ports = command.ports()

    supervisor = command.state.owner()
    assert supervisor is not None
    os.kill(supervisor, signal.SIGKILL)
    assert_nothing_left(command, ports)

    status = command("status")
    assert status.returncode == 1
    assert "ended without being taken down" in status.stdout
    assert command("down").returncode == 0
    assert not command.state.path.exists()


def test_an_existing_cluster_only_when_it_is_named(command: Command, cluster: Cluster) -> None:
    up = command("up", f"--kubeconfig={cluster.kubeconfig}")
    assert up.returncode == 0, up.stderr
    assert up.stdout == f"{cluster.kubeconfig}\n"
    assert "kube-system" in command("kubectl", "get", "namespaces").stdout
    assert cluster.servers[0] in command("status").stdout
    assert command.processes() == []
    assert command("down").returncode == 0
    assert cluster.kubectl("get", "namespaces").returncode == 0
    assert cluster.kubeconfig.exists()


def test_down_during_the_start_is_told(command: Command) -> None:
    process = command.start("up")
    until("the first process", lambda: any("--data-dir" in line for line in command.processes()))
    assert command("down").returncode == 0
    assert process.communicate(timeout=60)[0] == ""
    assert process.returncode == 1
    assert_nothing_left(command, [])
    assert not command.state.path.exists()
