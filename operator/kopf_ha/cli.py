"""The command `kopf-ha`."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import click

from kopf_ha import __version__
from kopf_ha.errors import ConfigurationError
from kopf_ha.manifests.command import manifests
from kopf_ha.options import Option, as_markdown, options_of
from kopf_ha.settings import Settings

# Options of `kopf run` that mean nothing here, and why.
_REFUSED = {
    "--peering": "peering elects by wall clocks and priorities; the Lease elects here: use --lease-name",
    "--priority": "priorities belong to peering; the Lease elects here, the first that acquires it leads",
    "--dev": "it raises a peering priority; to take over for development scale the operator down first",
    "--liveness": "Kopf's endpoint lives only while this replica leads, so that the kubelet would kill followers:"
    " use --health-port, /livez and /readyz",
}


def _refuse(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value:
        option = param.opts[-1]
        raise click.UsageError(f"{option} is not for kopf-ha: {_REFUSED[option]}")


def _refused_options(command: Any) -> Any:
    for names, flag in ((("-P", "--peering"), False), (("-p", "--priority"), False), (("--dev",), True),
                        (("-L", "--liveness"), False)):  # fmt: skip
        command = click.option(*names, is_flag=flag, hidden=True, expose_value=False, callback=_refuse, is_eager=True)(
            command
        )
    return command


def _settings_options(command: Any) -> Any:
    """Add the options that `Settings` declares. What is not given stays None, so that the environment counts."""
    for one in reversed(options_of(Settings)):
        text = f"{one.help.replace('`', '')}  [default: {one.default.replace('`', '')}]"
        if not one.kind.metavar:
            command = click.option("/".join(one.flags), one.name, is_flag=True, default=None, help=text)(command)
            continue
        kind: Any = {"multiple": True} if one.kind.many else {"callback": _reader(one)}
        command = click.option(*one.flags, one.name, metavar=one.kind.metavar, help=text, **kind)(command)
    return command


def _reader(one: Option) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    def read(ctx: click.Context, param: click.Parameter, text: str | None) -> Any:
        try:
            return None if text is None else one.read(text, one.flags[0])
        except ConfigurationError as error:
            raise click.UsageError(str(error), ctx) from error

    return read


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kopf-ha")
def main() -> None:
    """Run Kopf operators with one fenced leader."""


main.add_command(manifests)


@main.command()
@click.argument("paths", nargs=-1, type=click.Path(exists=True, dir_okay=False))
@click.option("-m", "--module", "modules", multiple=True, help="A module to import; may be repeated.")
@click.option("-A", "--all-namespaces", "clusterwide", is_flag=True, help="Serve all namespaces.")
@click.option("-n", "--namespace", "namespaces", multiple=True, help="A namespace to serve; may be repeated.")
@click.option("--standalone", is_flag=True, hidden=True, expose_value=False, help="Always so: there is no peering.")
@_settings_options
@click.option("-v", "--verbose", is_flag=True)
@click.option("-d", "--debug", is_flag=True)
@click.option("-q", "--quiet", is_flag=True)
@click.option("--log-format", type=click.Choice(["plain", "full", "json"], case_sensitive=False), default="full",
              show_default=True)  # fmt: skip
@click.option("--log-prefix/--no-log-prefix", default=None)
@click.option("--log-refkey", metavar="KEY")
@_refused_options
def run(
    paths: tuple[str, ...],
    modules: tuple[str, ...],
    clusterwide: bool,
    namespaces: tuple[str, ...],
    verbose: bool,
    debug: bool,
    quiet: bool,
    log_format: str,
    log_prefix: bool | None,
    log_refkey: str | None,
    **given: Any,
) -> None:
    """Run an operator, given as files or modules, as `kopf run` does, with one fenced leader among its replicas.

    Each setting can be given as KOPF_HA_* in the environment, too: KOPF_HA_LEASE_DURATION=15.
    """
    if not paths and not modules:
        raise click.UsageError("name the operator: a file, or a module with -m")
    # As in `kopf run`, so that a deployment's environment goes on to mean what it meant.
    if legacy := os.environ.get("KOPF_RUN_NAMESPACE"):
        namespaces = (*namespaces, legacy)
    if namespaces and clusterwide:
        raise click.UsageError("Either --namespace or --all-namespaces can be used, not both.")
    try:
        # An empty tuple is an option that was not given, so that the environment counts.
        settings = Settings.from_env(**{k: (v if v != () else None) for k, v in given.items()})
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from error
    # Until the runner takes it over: process 1 of a container is not ended by a signal that it has no handler for.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))

    import kopf

    from kopf_ha.run import run as run_operator
    from kopf_ha.run.logs import configure

    configure(
        kopf.LogFormat[log_format.upper()],
        log_prefix,
        debug=debug,
        verbose=verbose,
        quiet=quiet,
        log_refkey=log_refkey,
    )
    try:
        status = run_operator(
            settings, namespaces=namespaces, clusterwide=clusterwide, prepare=lambda: _load(paths, modules)
        )
    except ConfigurationError as error:
        if log_format == "json":  # what reads the log cannot read anything else
            logging.getLogger("kopf_ha.run").critical("%s", error)
            raise SystemExit(1) from error
        raise click.ClickException(str(error)) from error
    _end_by(settings.drain_timeout, status)
    _ended_with.append(status)
    raise SystemExit(status)


@main.command(hidden=True)
def options() -> None:
    """Print the options of `kopf-ha run` as the table that the documentation shows."""
    click.echo(as_markdown(options_of(Settings)), nl=False)


_ended_with: list[int] = []  #: the exit status of `run`, once it is decided


def entry() -> None:
    """Be the program `kopf-ha`, which ends without the interpreter's last steps.

    Threads that still wait for an answer of an API server that is away would be ended there in the middle of C code,
    and before Python 3.14 that aborts the process as often as not, with another exit status.
    """
    # What is registered first runs last: threads that are no daemons have ended by then, and others' callbacks ran.
    atexit.register(_leave)
    main(prog_name="kopf-ha")


def _leave() -> None:
    if _ended_with:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(_ended_with[-1])


def _load(paths: tuple[str, ...], modules: tuple[str, ...]) -> None:
    """Load the operator as `kopf run` does; errors in its own code keep their tracebacks."""
    from kopf_ha import _kopf

    for path in paths:
        if not path.endswith(".py"):
            raise click.UsageError(f"{path} is no Python file; modules are named with -m")
    try:
        _kopf.load(paths, modules)
    except ModuleNotFoundError as error:
        if error.name and any(f"{module}.".startswith(f"{error.name}.") for module in modules):
            raise click.UsageError(
                f"there is no module {error.name} in {os.getcwd()} or among those installed"
            ) from error
        raise


def _end_by(seconds: float, status: int) -> None:
    """End the process even if threads of the operator's own do not: the pod has to start again."""

    def end() -> None:
        logging.getLogger("kopf_ha.run").critical("threads of the operator still run; ending the process")
        os._exit(status)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
