"""The command `python -m devcluster`: starts, shows and stops a control plane in the background.

Only the answer (a path, a table) goes to stdout, so that scripts can use it. Everything else goes to stderr.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from devcluster import background, supervisor
from devcluster.binaries import Binaries
from devcluster.cluster import find_kubectl
from devcluster.errors import BusyError, DevclusterError
from devcluster.node import load_image
from devcluster.progress import Progress
from devcluster.state import StateDir, folder_for
from devcluster.supervisor import Size

F = TypeVar("F", bound=Callable[..., Any])


class _Group(click.Group):
    """Shows an error as one sentence, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except DevclusterError as error:
            raise click.ClickException(str(error)) from error


def _which(command: F) -> F:
    for option in (
        click.option(
            *("--name", "name"),
            envvar="DEVCLUSTER_NAME",
            default="default",
            show_default=True,
            help="Which cluster, if there are several.",
        ),
        click.option(
            "--state",
            type=click.Path(file_okay=False, path_type=Path),
            help="The folder of the cluster, instead of a name.",
        ),
    ):
        command = option(command)
    return command


def _size(command: F) -> F:
    for option in (
        click.option("--nodes", type=click.IntRange(0, 9), default=0, help="How many nodes. They need root."),
        click.option("--node", is_flag=True, help="One node: the same as --nodes 1."),
        click.option("--apiservers", type=click.Choice(["1", "2"]), default="1", help="How many API servers."),
        click.option("--etcd", type=click.Choice(["1", "3"]), default="1", help="How many etcd members."),
    ):
        command = option(command)
    return command


def _state(name: str, state: Path | None) -> StateDir:
    return StateDir(state or folder_for(name))


@click.group(cls=_Group, help="A real Kubernetes control plane on this machine.")
def main() -> None:
    """Only holds the commands."""


@main.command()
@_which
@_size
@click.option(
    "--kubeconfig",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Use this existing cluster, and start nothing.",
)
@click.option("--foreground", is_flag=True, help="Run until Ctrl-C, then take the cluster down.")
def up(
    name: str,
    state: Path | None,
    kubeconfig: Path | None,
    foreground: bool,
    **size: Any,
) -> None:
    """Start a cluster, wait until it is ready, and print the path of its kubeconfig.

    export KUBECONFIG=$(python -m devcluster up)
    """
    folder, progress, wanted = _state(name, state), Progress(sys.stderr), _wanted(**size)
    if kubeconfig is not None:
        if folder.owner() is not None:
            raise DevclusterError(f"a cluster is up in {folder.path}: take it down first")
        click.echo(background.adopt(folder, kubeconfig, progress)["kubeconfig"])
    elif foreground:
        _foreground(folder, wanted, progress)
    else:
        click.echo(background.up(folder, wanted, progress)["kubeconfig"])


def _wanted(etcd: str, apiservers: str, nodes: int, node: bool) -> Size:
    return Size(int(etcd), int(apiservers), nodes or int(node))


def _foreground(folder: StateDir, size: Size, progress: Progress) -> None:
    def ready(record: dict[str, Any]) -> None:
        click.echo(record["kubeconfig"])
        progress.line("ready; press Ctrl-C to take it down")

    supervisor.supervise(folder, size, ready, progress)
    progress.line("down")


@main.command(hidden=True)
@_which
@_size
def supervise(name: str, state: Path | None, **size: Any) -> None:
    """Run a cluster for `up`: print one line of JSON on stdout, then write to a log."""
    folder = _state(name, state)

    def ready(record: dict[str, Any]) -> None:
        _say(record)
        os.chdir("/")  # so that the caller's folder can be removed
        log = os.open(folder.path / "logs" / "supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for stream in (1, 2):
            os.dup2(log, stream)
        os.close(log)

    try:
        supervisor.supervise(folder, _wanted(**size), ready, Progress(sys.stderr))
    except BusyError:
        _say({"busy": True})
    except DevclusterError as error:
        _say({"error": str(error)})


def _say(answer: dict[str, Any]) -> None:
    try:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        pass  # the caller is gone; the cluster is up anyway


@main.command()
@_which
def down(name: str, state: Path | None) -> None:
    """Stop the cluster, and remove all its files."""
    folder = _state(name, state)
    was_up = background.down(folder)
    click.echo(f"{folder.path} is down" if was_up else f"nothing is up in {folder.path}", err=True)


@main.command()
@_which
def status(name: str, state: Path | None) -> None:
    """Show what runs: versions, addresses, processes. The exit status is 1 if nothing is up."""
    folder = _state(name, state)
    owner, record = folder.owner(), folder.read()
    if record is None or (owner is None and not record.get("existing")):
        starting, ended = "is starting", "is down" if record is None else "ended without being taken down"
        click.echo(f"{folder.path} {starting if owner is not None else ended}")
        sys.exit(1)
    lines = {"state": str(folder.path), "kubeconfig": record["kubeconfig"]}
    lines |= {"Kubernetes": record["versions"]["kubernetes"]}
    lines["API servers"] = " ".join(record["servers"])
    if owner is not None:
        lines["etcd"] = " ".join(record["etcd"]) + f" ({record['versions']['etcd']})"
        for node, address in record["nodes"].items():
            lines[node] = address
        lines["supervisor"] = f"pid {owner}"
        for process, pid in record["processes"].items():
            lines[process] = f"pid {pid}" if _is_child(pid, owner) else "ended"
        lines["audit logs"] = " ".join(record["audit_logs"])
    width = max(len(key) for key in lines)
    for key, value in lines.items():
        click.echo(f"{key:<{width}}  {value}")


def _is_child(pid: int, parent: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    # the fields after the name (which may contain spaces and parentheses) are state and parent
    process_state, found = stat.rpartition(")")[2].split()[:2]
    return process_state != "Z" and int(found) == parent


@main.command()
@_which
@click.argument("archives", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def load(name: str, state: Path | None, archives: tuple[Path, ...]) -> None:
    """Load images from docker archives into the nodes, which cannot reach a registry."""
    folder = _state(name, state)
    record = folder.read()
    if record is None or folder.owner() is None or not record.get("nodes"):
        raise DevclusterError(f"there is no node in {folder.path}: `python -m devcluster up --node` starts one")
    for archive in archives:
        load_image(record["cells"].values(), archive.resolve())


@main.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@_which
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def kubectl(name: str, state: Path | None, args: tuple[str, ...]) -> None:
    """Run kubectl with the administrator's kubeconfig. --name and --state must come first."""
    folder = _state(name, state)
    record = folder.read()
    if record is None or (folder.owner() is None and not record.get("existing")):
        raise DevclusterError(f"nothing is up in {folder.path}: `python -m devcluster up` starts it")
    program = record["kubectl"] if Path(record["kubectl"]).exists() else str(find_kubectl(Progress(sys.stderr)))
    environment = os.environ | {
        "KUBECONFIG": record["kubeconfig"],
        # not the user's own cache, which is kept by address: other clusters had the same ports before
        "KUBECACHEDIR": str(folder.path / "kubectl-cache"),
    }
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these signals, and kubectl would inherit that
        signal.signal(number, signal.SIG_DFL)
    os.execve(program, ["kubectl", *args], environment)  # noqa: S606  no shell is needed


@main.command()
def build() -> None:
    """Find or build the programs, all of one version, and print their paths."""
    for program, path in Binaries.find(progress=Progress(sys.stderr), exact=True).paths.items():
        click.echo(f"{program}\t{path}")
