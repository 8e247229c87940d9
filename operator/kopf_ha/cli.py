"""The command `kopf-ha`."""

from __future__ import annotations

import atexit
import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from kopf_ha import __version__
from kopf_ha.errors import ConfigurationError
from kopf_ha.manifests.command import manifests
from kopf_ha.options import Option, as_markdown, options_of, variables_of
from kopf_ha.settings import Settings


def _of_kopf(*names: str, **more: Any) -> Callable[[Any], Any]:
    """Declare an option of `kopf run`, with the variables that it has there."""

    name = next((one for one in names if not one.startswith("-")), names[-1].partition("/")[0].strip("-"))
    variables = [f"KOPF_RUN_{name.replace('-', '_').upper()}"]
    return click.option(
        *names, envvar=variables if name != "peering_name" else ["KOPF_RUN_PEERING", *variables], **more
    )


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


#: The commands for people on call, each with its module, in which it has the same name. `kopf-ha run` imports none.
ON_CALL = {
    "check": "kopf_ha.oncall.check",
    "handover": "kopf_ha.oncall.handover",
    "history": "kopf_ha.oncall.history",
    "pause": "kopf_ha.oncall.pause",
    "resume": "kopf_ha.oncall.pause",
    "status": "kopf_ha.oncall.status",
}


class _Commands(click.Group):
    """All commands. Those for people on call are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *ON_CALL})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in ON_CALL:
            found: click.Command = getattr(importlib.import_module(ON_CALL[cmd_name]), cmd_name)
            return found
        return super().get_command(ctx, cmd_name)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kopf-ha")
def main() -> None:
    """Run Kopf operators with one fenced leader."""


main.add_command(manifests)


@main.command()
@click.argument("paths", nargs=-1, type=click.Path(exists=True, dir_okay=False))
@_of_kopf("-m", "--module", "modules", multiple=True, help="A module of the operator. May be repeated.")
@_of_kopf("-A", "--all-namespaces", "clusterwide", is_flag=True, help="Serve all namespaces.")
@_of_kopf("-n", "--namespace", "namespaces", multiple=True, help="A namespace to serve. May be repeated.")
@_of_kopf("-L", "--liveness", "liveness_endpoint", metavar="URL",
          help="Serve Kopf's liveness endpoint, as in http://0.0.0.0:8080/healthz, on followers, too.")  # fmt: skip
@_settings_options
@_of_kopf("-v", "--verbose", is_flag=True, help="Log debug messages, too.")
@_of_kopf("-d", "--debug", is_flag=True, help="As --verbose, with messages of the event loop.")
@_of_kopf("-q", "--quiet", is_flag=True, help="Log warnings and errors only.")
@_of_kopf("--log-format", type=click.Choice(["plain", "full", "json"], case_sensitive=False), default="full",
          show_default=True, help="How log lines look.")  # fmt: skip
@_of_kopf("--log-prefix/--no-log-prefix", default=None, help="Whether log lines begin with the object's name.")
@_of_kopf("--log-refkey", metavar="KEY", help="The key that names the object in JSON log lines.")
# Accepted, since they stand in scripts; the Lease elects the leader.
@_of_kopf("--standalone", is_flag=True, hidden=True, expose_value=False)
@_of_kopf("-P", "--peering", "peering_name", hidden=True)
@_of_kopf("-p", "--priority", type=int, hidden=True)
@_of_kopf("--dev", is_flag=True, hidden=True)
def run(
    paths: tuple[str, ...],
    modules: tuple[str, ...],
    clusterwide: bool,
    namespaces: tuple[str, ...],
    liveness_endpoint: str | None,
    verbose: bool,
    debug: bool,
    quiet: bool,
    log_format: str,
    log_prefix: bool | None,
    log_refkey: str | None,
    peering_name: str | None,
    priority: int | None,
    dev: bool,
    **given: Any,
) -> None:
    """Run an operator as `kopf run` does, with one fenced leader among its replicas.

    PATHS are the operator's Python files. Most options have an environment variable, too, such as
    KOPF_HA_LEASE_DURATION=15 for --lease-duration. The variables of `kopf run` (KOPF_RUN_…) keep their meaning.
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

    from kopf_ha.run import run_program
    from kopf_ha.run.ending import end_by
    from kopf_ha.run.logs import configure
    from kopf_ha.run.peering import name_ignored

    configure(
        kopf.LogFormat[log_format.upper()],
        log_prefix,
        debug=debug,
        verbose=verbose,
        quiet=quiet,
        log_refkey=log_refkey,
    )
    try:
        name_ignored(peering_name, priority, dev=dev)
        status = run_program(
            settings,
            namespaces=namespaces,
            clusterwide=clusterwide,
            liveness_endpoint=liveness_endpoint,
            prepare=lambda: _load(paths, modules),
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


@main.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@_settings_options
def execute(command: tuple[str, ...], **given: Any) -> None:
    """Run a Python program whose operator becomes the fenced one: kopf-ha exec [OPTIONS] -- python -m their.main

    `kopf.run()`, `kopf.operator()` and `kopf.spawn_tasks()` in it run an operator with one fenced leader.
    """
    from kopf_ha.run.program import command as fenced_command

    chosen = {name: value for name, value in given.items() if value not in (None, ())}
    try:
        Settings.from_env(**chosen)
        words = fenced_command(command)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from error
    os.execvpe(words[0], words, {**os.environ, **variables_of(Settings, chosen)})  # noqa: S606  it is the user's command


@main.command(hidden=True)
def options() -> None:
    """Print the options of `kopf-ha run` as the table that the documentation shows."""
    click.echo(as_markdown(options_of(Settings)), nl=False)


#: The program's other name, by which `kubectl kopf-ha` finds it.
PLUGIN = "kubectl-kopf_ha"

_ended_with: list[int] = []  #: the exit status of `run`, once it is decided


def entry() -> None:
    """Run the program `kopf-ha`, also as a plugin of kubectl. It skips the interpreter's own shutdown.

    Before Python 3.14, that shutdown often aborts the process, with another exit status, when a thread still waits for
    an API server that does not answer.
    """
    # The callback registered first runs last: by then the other callbacks ran, and non-daemon threads have ended.
    atexit.register(_leave)
    main(prog_name="kubectl kopf-ha" if Path(sys.argv[0]).name == PLUGIN else "kopf-ha")


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
