"""Builds programs of the control plane from Go modules, once per version and machine.

If two processes build at the same time, one builds and the other waits for the result. A program gets its name only
once it is complete. So an interrupted build leaves nothing broken, and loses only the program that it was building.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from devcluster import versions
from devcluster.errors import DevclusterError, NoBinariesError
from devcluster.locking import locked
from devcluster.process import Process
from devcluster.progress import Progress

THREE_WAYS = (
    "install Go {go} or newer to have them built, or set KUBEBUILDER_ASSETS to a folder that has them, "
    "or use an existing cluster with --kubeconfig PATH"
)

#: Main packages that go.mod's modules contain, and that no cluster needs: built when somebody asks for them by name.
ON_DEMAND = {"leader-election": "k8s.io/client-go/examples/leader-election"}

#: Printed before a build. Measured for all programs of a control plane.
DURATION = "with an empty Go cache a whole control plane takes 6 to 10 minutes on two cores"


def cache_folder() -> Path:
    """Return this project's cache folder, under $XDG_CACHE_HOME or ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):  # the specification says to ignore relative paths
        return Path(base) / "kopf-ha"
    try:
        return Path.home() / ".cache" / "kopf-ha"
    except RuntimeError as error:
        raise DevclusterError("there is no home folder for a cache: set XDG_CACHE_HOME") from error


def bin_folder(go_mod: Path | None = None) -> Path:
    """Return the folder for programs of this version, machine and set of modules. It may not exist yet."""
    go_mod = go_mod or versions.go_mod()
    wanted = versions.read(go_mod)
    digest = hashlib.sha256(wanted.ldflags.encode())
    for name in ("go.mod", "go.sum"):
        digest.update(go_mod.with_name(name).read_bytes())
    system = f"{platform.system()}-{platform.machine()}".lower()
    key = f"k8s-{wanted.kubernetes}-etcd-{wanted.etcd}-{system}-{digest.hexdigest()[:12]}"
    return cache_folder() / "devcluster" / key / "bin"


def build(names: Sequence[str], progress: Progress | None = None) -> dict[str, Path]:
    """Return the path of each program. Build those that are not in the cache, which takes minutes.

    Progress goes to stderr unless another `progress` is given.

    Raises:
        NoBinariesError: Go is missing or too old.
        DevclusterError: a build failed.
    """
    progress = progress or Progress(sys.stderr)
    found: dict[str, Path] = {}
    for go_mod in dict.fromkeys(versions.go_mod(name) for name in names):
        found |= _build_from(go_mod, [name for name in names if versions.go_mod(name) == go_mod], progress)
    return {name: found[name] for name in names}


def _build_from(go_mod: Path, names: Sequence[str], progress: Progress) -> dict[str, Path]:
    folder = bin_folder(go_mod)
    if _missing(folder, names):
        go = _go(go_mod, _missing(folder, names))
        with locked(folder.parent, "another process is building: waiting for it", progress):
            for left in folder.parent.glob("building-*"):  # left by a build that was killed
                shutil.rmtree(left, ignore_errors=True)
            missing = _missing(folder, names)  # another process may just have built them
            if missing:
                count = "1 program" if len(missing) == 1 else f"{len(missing)} programs"
                progress.line(f"building {count} from Go modules: {', '.join(missing)}")
                progress.line(f"  {DURATION}; the programs are kept in {folder}")
            began = time.monotonic()
            for number, name in enumerate(missing, 1):
                rest = partial(_rest, len(missing) - number, began)
                _build_one(go, go_mod, name, folder, f"[{number}/{len(missing)}] {name}", progress, rest)
    return {name: folder / name for name in names}


def _missing(folder: Path, names: Sequence[str]) -> list[str]:
    return [name for name in names if not (folder / name).exists()]


def _go(go_mod: Path, missing: Sequence[str]) -> str:
    wanted = versions.read(go_mod).go
    ways = THREE_WAYS.format(go=wanted)
    lacking = f"{', '.join(missing)} cannot be built here"
    go = shutil.which("go")
    if go is None:
        raise NoBinariesError(f"{lacking}, as there is no Go: {ways}.")
    # Run in the module's folder: with GOTOOLCHAIN=auto, an older Go fetches the version that go.mod asks for.
    asked = subprocess.run(
        [go, "env", "GOVERSION"], cwd=go_mod.parent, env=_environment(), capture_output=True, text=True
    )
    found = re.search(r"go(\d+)\.(\d+)", asked.stdout)
    if asked.returncode != 0 or found is None:
        reason = (asked.stderr.strip() or asked.stdout.strip() or "without output").splitlines()[-1]
        raise NoBinariesError(f"{lacking}, as `go env GOVERSION` fails ({reason}): {ways}.")
    if (int(found[1]), int(found[2])) < tuple(int(part) for part in wanted.split(".")[:2]):
        raise NoBinariesError(f"{lacking}, as this Go is {asked.stdout.strip().removeprefix('go')}: {ways}.")
    return go


def _environment() -> dict[str, str]:
    # Build for this machine, only from this go.mod. The user's GOFLAGS, GOPROXY and so on stay.
    dropped = ("GOOS", "GOARCH")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return kept | {"CGO_ENABLED": "0", "GOWORK": "off"}


def _rest(left: int, began: float) -> str:
    return f"{left} left, {_seconds(began)} in all"


def _seconds(began: float) -> str:
    return f"{time.monotonic() - began:.0f} s"


def _build_one(
    go: str, go_mod: Path, name: str, folder: Path, label: str, progress: Progress, rest: Callable[[], str]
) -> None:
    wanted = versions.read(go_mod)
    package = {**ON_DEMAND, **wanted.packages}.get(name)
    if package is None:
        raise DevclusterError(f"{name} is not in the tool block of {go_mod}")
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    progress.line(f"{label}: building {package}")
    with tempfile.TemporaryDirectory(prefix="building-", dir=folder.parent) as scratch:
        result, log = Path(scratch, name), Path(scratch, "log")
        argv = [go, "build", "-trimpath", "-ldflags", wanted.ldflags, "-o", str(result), package]
        with Process(f"go build of {name}", argv, _environment(), log, go_mod.parent) as child:
            while child.running:
                progress.live(f"{label}: {_seconds(started)}, {rest()}")
                try:
                    child.wait(timeout=1.0)
                except DevclusterError:
                    pass  # it is still building
        if child.returncode != 0:
            progress.line(f"{label}: failed after {_seconds(started)}")
            raise DevclusterError(f"go build of {name} failed with status {child.returncode}:\n{child.log_tail(15)}")
        os.replace(result, folder / name)
    progress.line(f"{label}: built in {_seconds(started)}")
