"""Programs come from KUBEBUILDER_ASSETS, else from Go; what is there is not built."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from devcluster import Binaries, DevclusterError, NoBinariesError, Progress, building, versions
from devcluster.binaries import PROGRAMS, programs

ROOT = Path(__file__).parents[2]
FAKE_GO = """#!/bin/sh
if [ "$1" = env ]; then
    echo "$FAKE_GO_VERSION"
    exit 0
fi
while [ $# -gt 1 ]; do
    if [ "$1" = -o ]; then target=$2; fi
    shift
done
echo "$1" >> "$FAKE_GO_LOG"
if [ -n "$FAKE_GO_ERROR" ]; then
    echo "$FAKE_GO_ERROR" >&2
    exit 1
fi
while [ -n "$FAKE_GO_GATE" ] && [ ! -e "$FAKE_GO_GATE" ]; do sleep 0.05; done
printf '#!/bin/sh\\n' > "$target"
chmod +x "$target"
"""


class Machine:
    """A machine with a Go of ours and an empty cache."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        self.log = folder / "go.log"
        tools = folder / "tools"
        tools.mkdir()
        (tools / "go").write_text(FAKE_GO)
        (tools / "go").chmod(0o755)
        self.tools = tools
        self.has_kubectl("exit 1")  # before any other one of this machine
        monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
        monkeypatch.delenv("KUBERNETES", raising=False)
        monkeypatch.setenv("FAKE_GO_LOG", str(self.log))
        monkeypatch.setenv("FAKE_GO_VERSION", "go1.99.1")

    def has_kubectl(self, script: str) -> Path:
        kubectl = self.tools / "kubectl"
        kubectl.write_text(f"#!/bin/sh\n{script}\n")
        kubectl.chmod(0o755)
        return kubectl

    def assets(self, *names: str) -> Path:
        folder = self.folder / "assets"
        folder.mkdir()
        for name in names:
            (folder / name).write_text("#!/bin/sh\n")
            (folder / name).chmod(0o755)
        self.monkeypatch.setenv("KUBEBUILDER_ASSETS", str(folder))
        return folder

    def remove_go(self) -> None:
        empty = self.folder / "empty"
        empty.mkdir()
        self.monkeypatch.setenv("PATH", str(empty))

    @property
    def built(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_everything_is_built_once_in_order(machine: Machine) -> None:
    found = Binaries.find()
    packages = versions.read().packages
    assert machine.built == [packages[name] for name in PROGRAMS]
    assert all(os.access(path, os.X_OK) for path in found.paths.values())
    machine.remove_go()  # the cache needs none
    assert Binaries.find().paths == found.paths


def test_only_what_the_given_folder_lacks_is_built(machine: Machine) -> None:
    assets = machine.assets("etcd", "kube-apiserver", "kubectl")
    found = Binaries.find()
    assert machine.built == ["k8s.io/kubernetes/cmd/kube-controller-manager"]
    assert found["etcd"] == assets / "etcd"
    assert found["kube-controller-manager"].parent == building.bin_folder()


def test_a_full_folder_needs_no_go(machine: Machine) -> None:
    machine.assets(*PROGRAMS)
    machine.remove_go()
    assert set(Binaries.find().paths) == set(PROGRAMS)


def test_a_folder_that_is_none_is_an_error_and_not_a_build(machine: Machine) -> None:
    machine.monkeypatch.setenv("KUBEBUILDER_ASSETS", "/no/such/folder")
    with pytest.raises(DevclusterError, match="KUBEBUILDER_ASSETS names /no/such/folder, which is not a folder"):
        Binaries.find()
    assert machine.built == []


def test_without_go_one_sentence_names_the_three_ways(machine: Machine) -> None:
    machine.remove_go()
    with pytest.raises(NoBinariesError) as caught:
        Binaries.find()
    text = str(caught.value)
    assert "install Go 1.25.0 or newer" in text
    assert "KUBEBUILDER_ASSETS" in text
    assert "--kubeconfig PATH" in text
    assert "\n" not in text


def test_the_command_ends_with_that_sentence(machine: Machine) -> None:
    machine.remove_go()
    done = subprocess.run(
        [sys.executable, "-m", "devcluster", "build"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("Error: etcd, kube-apiserver, kube-controller-manager, kubectl cannot be built")
    assert "Traceback" not in done.stderr


def test_an_old_go_is_told(machine: Machine) -> None:
    machine.monkeypatch.setenv("FAKE_GO_VERSION", "go1.24.9")
    with pytest.raises(NoBinariesError, match=r"this Go is 1\.24\.9: install Go 1\.25\.0 or newer"):
        Binaries.find()


def test_a_failed_build_says_what_go_said_and_leaves_nothing(machine: Machine) -> None:
    machine.monkeypatch.setenv("FAKE_GO_ERROR", "no route to the module proxy")
    with pytest.raises(DevclusterError, match=r"(?s)go build of etcd failed.*no route to the module proxy"):
        Binaries.find()
    assert [path.name for path in building.bin_folder().parent.iterdir() if path.name != "lock"] == ["bin"]
    assert list(building.bin_folder().iterdir()) == []


def test_two_builds_at_once_build_once(machine: Machine) -> None:
    gate = machine.folder / "gate"
    machine.monkeypatch.setenv("FAKE_GO_GATE", str(gate))
    command = [sys.executable, "-m", "devcluster", "build"]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert first.stderr is not None
    assert "building" in first.stderr.readline()
    second = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert second.stderr is not None
    assert "another process is building: waiting for it" in second.stderr.readline()
    gate.touch()
    answers = [process.communicate(timeout=60)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0]
    assert answers[0] == answers[1]
    assert len(machine.built) == len(PROGRAMS)


SAID = f"building {len(PROGRAMS)} programs from Go modules: {', '.join(PROGRAMS)}"


def test_who_waits_is_told_how_long_what_is_built_and_what_is_left(machine: Machine) -> None:
    told = io.StringIO()
    Binaries.find(progress=Progress(told, quiet_period=0))
    lines = told.getvalue().splitlines()
    assert lines[0].startswith(SAID)
    assert "minutes" in lines[1]
    for number, name in enumerate(PROGRAMS, 1):
        left = len(PROGRAMS) - number
        about = [line for line in lines if line.startswith(f"[{number}/{len(PROGRAMS)}] {name}: ")]
        assert len(about) >= 3, lines  # when it begins, while it goes on, when it is done
        assert all(f"{left} left" in line and " s in all" in line for line in about[1:-1]), about


@pytest.mark.parametrize("command", [["demo"], ["benchmarks.takeover"]])
def test_whatever_needs_a_control_plane_tells_while_it_is_built(machine: Machine, command: list[str]) -> None:
    """Nobody asked it for a progress; a terminal that stays empty for ten minutes looks hung."""
    machine.monkeypatch.setenv("FAKE_GO_GATE", str(machine.folder / "gate"))
    argv = [sys.executable, "-m", *command]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            told = [process.stderr.readline() for _ in range(3)]
        finally:
            process.kill()
    assert told[0].startswith(SAID)
    assert told[2].startswith(f"[1/{len(PROGRAMS)}] etcd: building")


def test_on_a_terminal_the_demo_counts_the_seconds(machine: Machine) -> None:
    """There the story has a panel that is kept up to date, which must not hide what is built."""
    gate = machine.folder / "gate"
    machine.monkeypatch.setenv("FAKE_GO_GATE", str(gate))
    machine.monkeypatch.setenv("TERM", "xterm")
    ours, theirs = os.openpty()
    shown = b""
    argv = [sys.executable, "-m", "demo"]
    with subprocess.Popen(argv, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        try:
            # Reading ends by the test's own time limit at the latest, and each program takes until the gate is there.
            while shown.count(b"3 left") < 2:
                shown += os.read(ours, 10_000)
        finally:
            process.kill()
            os.close(ours)
    assert SAID.encode() in shown
    assert b"\r\x1b[K[1/4] etcd: " in shown, "the line is rewritten in place"
    assert b"now" not in shown, "no panel of a story that has not begun"


def test_versions_are_those_of_go_mod(tmp_path: Path) -> None:
    go_mod = tmp_path / "go.mod"
    go_mod.write_text(
        "module x\n\ngo 1.30.2\n\ntool (\n\tgo.etcd.io/etcd/server/v3\n\tk8s.io/kubernetes/cmd/kubectl\n)\n\n"
        "require (\n\tgo.etcd.io/etcd/server/v3 v3.9.1 // indirect\n\tk8s.io/kubernetes v1.40.7 // indirect\n)\n"
    )
    read = versions.read(go_mod)
    assert (read.kubernetes, read.etcd, read.go) == ("v1.40.7", "v3.9.1", "1.30.2")
    assert read.packages == {"etcd": "go.etcd.io/etcd/server/v3", "kubectl": "k8s.io/kubernetes/cmd/kubectl"}
    assert "gitVersion=v1.40.7" in read.ldflags
    assert "gitMinor=40" in read.ldflags


# --- a kubectl that is there


def answering(release: str) -> str:
    """A kubectl of this release."""
    return f'[ "$*" = "version --client --output=json" ] && echo \'{{"clientVersion": {{"gitVersion": "{release}"}}}}\''


def neighbour(distance: int) -> str:
    major, minor = versions.read().minor.split(".")
    return f"v{major}.{int(minor) + distance}.3+k3s1"


@pytest.mark.parametrize("distance", [-1, 0, 1])
def test_a_kubectl_of_a_neighbouring_version_is_not_built(machine: Machine, distance: int) -> None:
    kubectl = machine.has_kubectl(answering(neighbour(distance)))
    assert Binaries.find()["kubectl"] == kubectl
    assert "k8s.io/kubernetes/cmd/kubectl" not in machine.built


@pytest.mark.parametrize("says", [answering(neighbour(2)), answering(neighbour(-2)), "exit 1", "echo []", "echo x"])
def test_one_that_does_not_fit_is_built(machine: Machine, says: str) -> None:
    machine.has_kubectl(says)
    assert Binaries.find()["kubectl"] == building.bin_folder() / "kubectl"


def test_whoever_wants_one_version_gets_it(machine: Machine) -> None:
    machine.has_kubectl(answering(neighbour(1)))
    exact = Binaries.find(exact=True)
    assert exact["kubectl"] == building.bin_folder() / "kubectl"
    assert Binaries.find()["kubectl"] == exact["kubectl"], "what was built is preferred"


# --- other versions of Kubernetes


@pytest.mark.parametrize("minor", versions.minors())
def test_the_environment_chooses_a_version(machine: Machine, minor: str) -> None:
    default = building.bin_folder()
    machine.monkeypatch.setenv("KUBERNETES", minor)
    read = versions.read()
    assert read.kubernetes.startswith(f"v{minor}.")
    assert f"gitVersion={read.kubernetes}" in read.ldflags
    assert set(PROGRAMS) <= set(read.packages)
    assert versions.go_mod().with_name("go.sum").exists()
    assert (building.bin_folder() == default) == (versions.go_mod() == versions.GO_MOD), "each has a cache of its own"


def test_each_version_has_the_modules_of_its_release(machine: Machine) -> None:
    for minor, path in versions.minors().items():
        text = path.read_text()
        release = versions.read(path).kubernetes.removeprefix("v1.")
        replaced = re.findall(r"(?m)^\t?(?:replace )?(k8s\.io/\S+) => (k8s\.io/\S+) (v\S+)$", text)
        assert {(name, number) for _, name, number in replaced} == {(name, f"v0.{release}") for name, _, _ in replaced}
        assert len(replaced) > 20, minor


def test_nodes_keep_their_version(machine: Machine) -> None:
    other = next(minor for minor, path in versions.minors().items() if path != versions.GO_MOD)
    nodes = building.bin_folder()
    machine.monkeypatch.setenv("KUBERNETES", other)
    found = Binaries.find(programs(nodes=1))
    assert {name for name, path in found.paths.items() if path.parent == nodes} == set(versions.OF_NODES)
    assert found["kube-apiserver"].parent == building.bin_folder() != nodes


def test_a_version_that_nobody_wrote_is_named_with_those_that_are(machine: Machine) -> None:
    machine.monkeypatch.setenv("KUBERNETES", "1.99")
    with pytest.raises(DevclusterError, match=r"KUBERNETES is '1\.99', and there is a go\.mod for 1\.34, 1\.35, "):
        Binaries.find()
    assert machine.built == []
