"""The command `kopf-ha`."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import click

from kopf_ha import __version__
from kopf_ha.errors import ConfigurationError
from kopf_ha.manifests.command import manifests
from kopf_ha.options import Option, as_markdown, options_of
from kopf_ha.settings import Settings

#: Options of `kopf run` that are not supported: how they are given, whether with a value, and why they are not.
_REFUSED = (
    (("-P", "--peering"), True, "a Lease elects the leader; use --lease-name"),
    (
        ("-p", "--priority"),
        True,
        "a Lease elects the leader, and it has no priorities: the first replica that acquires it leads",
    ),
    (
        ("--dev",),
        False,
        "it raises the priority in a peering, and a Lease has none; scale the deployed operator down first",
    ),
    (
        ("-L", "--liveness"),
        True,
        "Kopf serves that endpoint only on the leader, so the kubelet would kill followers; use --health-port, which"
        " serves /livez and /readyz",
    ),
)


def _refused_options(command: Any) -> Any:
    for flags, with_value, why in _REFUSED:
        command = click.option(
            *flags,
            is_flag=not with_value,
            hidden=True,
            expose_value=False,
            is_eager=True,
            callback=_refuser(flags[-1], why),
        )(command)
    return command


def _refuser(flag: str, why: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def refuse(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value:
            raise click.UsageError(f"{flag} is not supported: {why}", ctx)

    return refuse


def _settings_options(command: Any) -> Any:
    """Add the options that `Settings` declares. What is not given stays None, so that the environment counts."""
    for one in reversed(options_of(Settings)):
        text = f"{one.help.replace('`', '')}  [default: {one.default.replace('`', '')}]"
        if not one.values.metavar:
            command = click.option("/".join(one.flags), one.name, is_flag=True, default=None, help=text)(command)
            continue
        more: Any = {"multiple": True} if one.values.many else {"callback": _reader(one)}
        command = click.option(*one.flags, one.name, metavar=one.values.metavar, help=text, **more)(command)
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
@click.option("-m", "--module", "modules", multiple=True, help="A module of the operator. May be repeated.")
@click.option("-A", "--all-namespaces", "clusterwide", is_flag=True, help="Serve all namespaces.")
@click.option("-n", "--namespace", "namespaces", multiple=True, help="A namespace to serve. May be repeated.")
@click.option(
    "--standalone", is_flag=True, hidden=True, expose_value=False, help="Accepted and not needed: there is no peering."
)
@_settings_options
@click.option("-v", "--verbose", is_flag=True, help="Log debug messages, too.")
@click.option("-d", "--debug", is_flag=True, help="As --verbose, with messages of the event loop.")
@click.option("-q", "--quiet", is_flag=True, help="Log warnings and errors only.")
@click.option("--log-format", type=click.Choice(["plain", "full", "json"], case_sensitive=False), default="full",
              show_default=True, help="How log lines look.")  # fmt: skip
@click.option("--log-prefix/--no-log-prefix", default=None, help="Whether log lines begin with the object's name.")
@click.option("--log-refkey", metavar="KEY", help="The key that names the object in JSON log lines.")
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
    """Run an operator as `kopf run` does, with one fenced leader among its replicas.

    PATHS are the operator's Python files. Most options have an environment variable, too, such as
    KOPF_HA_LEASE_DURATION=15 for --lease-duration.
    """
    if not paths and not modules:
        raise click.UsageError("name the operator's file, or its module with -m")
    # As `kopf run` does, so that a Deployment's environment keeps its meaning.
    if legacy := os.environ.get("KOPF_RUN_NAMESPACE"):
        namespaces = (*namespaces, legacy)
    if namespaces and clusterwide:
        raise click.UsageError("Either --namespace or --all-namespaces can be used, not both.")
    try:
        # An empty tuple is an option that was not given, so that the environment counts.
        settings = Settings.from_env(**{k: (v if v != () else None) for k, v in given.items()})
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from error
    # Until the runner sets its own handler: the kernel ignores signals for process 1 that it has no handler for.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    # If this is its second start, one may have come before (run/loading.py).
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))

    import kopf

    from kopf_ha.run import run as run_operator
    from kopf_ha.run.ending import end_by
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
        if log_format == "json":  # whoever reads the log expects JSON only
            logging.getLogger("kopf_ha.run").critical("%s", error)
            raise SystemExit(1) from error
        raise click.ClickException(str(error)) from error
    # Threads of the operator's code may never end, and the pod has to restart.
    end_by(settings.drain_timeout, status)
    _ended_with.append(status)
    raise SystemExit(status)


@main.command(hidden=True)
def options() -> None:
    """Print the options of `kopf-ha run` as the table that the documentation shows."""
    click.echo(as_markdown(options_of(Settings)), nl=False)


_ended_with: list[int] = []  #: the exit status of `run`, once it is decided


def entry() -> None:
    """Run the program `kopf-ha`. It skips the interpreter's own shutdown.

    Before Python 3.14, that shutdown often aborts the process, with another exit status, when a thread still waits for
    an API server that does not answer.
    """
    # The callback registered first runs last: by then the other callbacks ran, and non-daemon threads have ended.
    atexit.register(_leave)
    main(prog_name="kopf-ha")


def _leave() -> None:
    if _ended_with:
        from kopf_ha.run.ending import end_quietly

        end_quietly(_ended_with[-1])


def _load(paths: tuple[str, ...], modules: tuple[str, ...]) -> None:
    """Load the operator as `kopf run` does. Errors in its code keep their tracebacks."""
    from kopf_ha import _kopf

    for path in paths:
        if not path.endswith(".py"):
            raise click.UsageError(f"{path} is not a Python file; use -m to name a module")
    try:
        _kopf.load(paths, modules)
    except ModuleNotFoundError as error:
        if error.name and any(f"{module}.".startswith(f"{error.name}.") for module in modules):
            raise click.UsageError(
                f"module {error.name} is neither in {os.getcwd()} nor installed; check the name after -m"
            ) from error
        raise
