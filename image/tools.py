"""Runs programs. A failure becomes an error with a sentence, and a kill leaves no processes or mounts behind."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from devcluster.errors import DevclusterError
from devcluster.process import Process
from image.errors import ImageError, NotHereError


def need(program: str, what_for: str) -> None:
    """Raise NotHereError unless the program is installed."""
    if shutil.which(program) is None:
        raise NotHereError(f"{program} is needed to {what_for}: install the Debian package {program}.")


def need_root(what_for: str) -> None:
    """Raise NotHereError unless this is root on Linux."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        raise NotHereError(f"root is needed to {what_for}: run it as root, or start a docker engine for this user.")


def run(argv: Sequence[str], doing: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a program, and return its stdout. If it fails, raise ImageError with the end of its output."""
    done = subprocess.run(argv, env=env, cwd=cwd, capture_output=True, text=True, errors="replace")
    if done.returncode != 0:
        said = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-15:])
        raise ImageError(f"{doing} failed: {argv[0]} ended with status {done.returncode}:\n{said}")
    return done.stdout


def run_apart(argv: Sequence[str], doing: str, log: Path, env: Mapping[str, str] | None = None) -> None:
    """Run a program as root in new mount and process namespaces. Its mounts and child processes end with it.

    It ends with this process, even if that is killed by SIGKILL. Its output goes to `log`. If it fails, raise
    ImageError with the end of the output.
    """
    need("unshare", doing)
    apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", *argv]
    try:
        with Process(doing, apart, env, log) as child:
            status = child.wait()
    except DevclusterError as error:
        raise ImageError(f"{doing} failed: {error}") from error
    if status != 0:
        raise ImageError(f"{doing} failed: {argv[0]} ended with status {status}:\n{child.log_tail(15)}")
