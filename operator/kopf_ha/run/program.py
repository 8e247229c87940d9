"""`kopf-ha exec -- python -m their.main`: a program that runs its operator by itself, with the fenced one in its place.

The command is run by the interpreter that it names, with this module in front, which fences the clients and then runs
the program as ``__main__``. So there is no way to start the program without the fence: if the interpreter does not have
kopf-ha, it ends with an error. A hook in ``sitecustomize`` would be skipped silently by ``python -I`` or by another
``sitecustomize``.
"""

from __future__ import annotations

import os
import re
import runpy
import shutil
import sys
import types
import zipfile
from collections.abc import Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path

from kopf_ha import adapters
from kopf_ha.errors import ConfigurationError, KopfHAError
from kopf_ha.run import nested
from kopf_ha.run.entry import spawn_tasks

_MODULE = "kopf_ha.run.program"
_INTERPRETER = re.compile(r"(python|pypy)[0-9.]*")


def command(words: Sequence[str]) -> list[str]:
    """Return the command that runs a program with the fence in it.

    Args:
        words: the program's own command: a Python interpreter and its arguments, or a script written in Python.

    Raises:
        ConfigurationError: it is no Python program, or does not exist.
    """
    program = shutil.which(words[0])
    if program is None:
        raise ConfigurationError(f"{words[0]}: no such program")
    if _INTERPRETER.fullmatch(os.path.basename(words[0])):
        flags, rest = _split(words[1:])
        if not rest or rest[0] == "-":
            raise ConfigurationError("name the program after python: -m MODULE, -c CODE or a file")
        return [program, *flags, "-m", _MODULE, *rest]
    return [*_interpreter_of(program), "-m", _MODULE, program, *words[1:]]


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split what follows an interpreter into its flags, and the program with its arguments."""
    flags: list[str] = []
    left = list(words)
    while left and left[0].startswith("-") and left[0] != "-":
        word = left.pop(0)
        if word == "--check-hash-based-pycs" and left:
            flags += [word, left.pop(0)]
            continue
        for at, letter in enumerate(word[1:], 1) if not word.startswith("--") else ():
            if letter not in "mcWX":
                continue
            value = [word[at + 1 :]] if word[at + 1 :] else [left.pop(0)] if left else []
            if letter in "mc":
                flags += [word[:at]] if at > 1 else []
                return flags, [f"-{letter}", *value, *left] if value else []
            flags += [word[: at + 1], *value]
            break
        else:
            flags.append(word)
    return flags, left


def _interpreter_of(script: str) -> list[str]:
    """Return the interpreter that a script's first line names, with its flags."""
    with Path(script).open("rb") as file:
        first = file.readline(1000)
    words = first[2:].decode(errors="replace").split() if first.startswith(b"#!") else []
    if words and os.path.basename(words[0]) == "env":
        words = words[2:] if words[1:2] == ["-S"] else words[1:]
    if not words or not _INTERPRETER.fullmatch(os.path.basename(words[0])):
        raise ConfigurationError(
            f"{script} is no Python program, so the fence cannot be put into it; if it starts one, write kopf-ha exec"
            " -- before the command in it"
        )
    return words


def main(words: Sequence[str]) -> None:
    """Run a program as ``__main__``: ``-m MODULE``, ``-c CODE`` or a file, and its arguments."""
    adapters.install()
    nested.install(spawn_tasks)
    kind, rest = (words[0], list(words[1:])) if words[0] in ("-m", "-c") else ("", list(words))
    name = rest[0]
    try:
        if kind == "-m":
            sys.argv = rest
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        elif kind == "-c":
            sys.argv = ["-c", *rest[1:]]
            _run(name, "<string>", "")
        else:
            sys.argv = rest
            if os.path.isdir(name) or zipfile.is_zipfile(name):
                runpy.run_path(name, run_name="__main__")
            else:
                _run(Path(name).read_bytes(), os.path.abspath(name), os.path.dirname(os.path.realpath(name)))
    except ConfigurationError as error:
        sys.exit(f"kopf-ha: {error}")
    except KopfHAError as error:
        if error.exit_status == 1:
            raise
        sys.exit(error.exit_status)  # the log has said why


def _run(source: str | bytes, file: str, folder: str) -> None:
    """Run a source as ``__main__``, with its folder as the first place for imports, as the interpreter does.

    `runpy` would give a script another ``__file__`` or another ``sys.argv[0]``.
    """
    if not sys.flags.safe_path:
        sys.path[0] = folder
    module = types.ModuleType("__main__")
    if file != "<string>":
        module.__file__ = file
        module.__loader__ = SourceFileLoader("__main__", file)
    sys.modules["__main__"] = module
    exec(compile(source, file, "exec"), vars(module))  # noqa: S102  it is the program


if __name__ == "__main__":
    main(sys.argv[1:])
