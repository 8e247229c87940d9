"""Recognises `kopf run` in a container's command, whether it is a list of words or a shell script."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

#: `kopf run` and `python -m kopf run` in a shell script.
_IN_SCRIPT = re.compile(r"(?<![\w.-])kopf(?=\s+run\b)")
_PROGRAM = re.compile(r"(.*/)?(kopf|kopf-ha|kopf_ha)")
#: Between commands of a script.
_ENDS = re.compile(r"&&|\|\||(?<![<>])&(?!>)|[;|\n]")
#: What stands before the program in its command: variables, `exec`, and `python -m` or a path.
_START = re.compile(r"(?P<set>\s*(?:\w+=\S*\s+)*)(?P<exec>exec\s+)?(?:\S*python[\d.]*\s+(?:-\w+\s+)*?-m\s+|\S*/)?")
_FENCED = re.compile(r"(?<![\w.-])(kopf-ha|kopf_ha)(?=\s+(run|exec)\b)")


def is_fenced(container: Any) -> bool:
    """Return whether the container's command is `kopf-ha run` or `kopf-ha exec`."""
    return _FENCED.search(_line(container)) is not None


def runs_kopf(container: Any) -> bool:
    """Return whether the container's command is `kopf run`."""
    return _IN_SCRIPT.search(_line(container)) is not None


def fence(container: Any) -> None:
    """Put `kopf-ha run` in the place of `kopf run`. Paths, quotes and the rest of a script stay.

    At the end of a script it gets `exec`: a shell that is process 1 does not pass SIGTERM on.
    """
    before = ""
    for words, n in _places(container):
        word = str(words[n])
        following = next((str(w) for w in words[n + 1 :]), "")
        if following == "run" and re.fullmatch(r"(.*/)?kopf", word):
            words[n] = _like(words[n], _named(word, before))
        elif any(c.isspace() for c in word):
            words[n] = _like(words[n], _in_script(word))
        before = word
    # `command: [kopf]` and `args: [run, …]`
    command, args = container.get("command") or (), container.get("args") or ()
    if command and args and str(args[0]) == "run" and re.fullmatch(r"(.*/)?kopf", str(command[-1])):
        before = str(command[-2]) if len(command) > 1 else ""
        command[-1] = _like(command[-1], _named(str(command[-1]), before))


def shows_run(container: Any) -> bool:
    """Return whether the arguments of `kopf run` or `kopf-ha run` are seen, so that what is not there is not said."""
    return _run_at(_words(container)) is not None


def below_a_shell(container: Any) -> bool:
    """Return whether a script runs `kopf-ha` without `exec`, so that it gets no SIGTERM."""
    scripts = [str(words[n]) for words, n in _places(container) if any(c.isspace() for c in str(words[n]))]
    commands = ((s, match) for s in scripts for match in _FENCED.finditer(s))
    return any(not re.search(r"\bexec\s", _command_before(s, match)) for s, match in commands)


def option(container: Any, *flags: str) -> list[str]:
    """Return the values that the command gives to an option, in order.

    Args:
        container: of a Pod.
        flags: all ways to write it, such as ``-L`` and ``--liveness``.
    """
    words, found = _own_words(container), []
    for n, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in flags and equals:
            found.append(value)
        elif word in flags and n + 1 < len(words):
            found.append(words[n + 1])
    return found


def has_flag(container: Any, *flags: str) -> bool:
    """Return whether the command has one of these flags."""
    return not set(flags).isdisjoint(_own_words(container))


def _own_words(container: Any) -> list[str]:
    """Return the words of the command without what stands before `run`, which is another program's."""
    words = _words(container)
    at = _run_at(words)
    return words if at is None else words[at + 1 :]


def _run_at(words: list[str]) -> int | None:
    """Return where `run` stands behind its program, or first, if the image has the program; None if nowhere."""
    if words[:1] == ["run"]:
        return 0
    return next((n for n in range(1, len(words)) if words[n] == "run" and _PROGRAM.fullmatch(words[n - 1])), None)


def _places(container: Any) -> Iterator[tuple[Any, int]]:
    for part in ("command", "args"):
        words = container.get(part) or ()
        yield from ((words, n) for n in range(len(words)))


def _line(container: Any) -> str:
    return " ".join(str(words[n]) for words, n in _places(container))


def _words(container: Any) -> list[str]:
    """Return all words of the command, those of scripts as well."""
    made: list[str] = []
    for words, n in _places(container):
        word = str(words[n])
        try:
            made += shlex.split(word, comments=True) if any(c.isspace() for c in word) else [word]
        except ValueError:
            made += word.split()
    return made


def _in_script(script: str) -> str:
    def replaced(match: re.Match[str]) -> str:
        return _named("kopf", script[: match.start()].split()[-1] if script[: match.start()].split() else "")

    for match in reversed(list(_IN_SCRIPT.finditer(script))):
        before = _command_before(script, match)
        start = _START.fullmatch(before)
        traps = re.search(r"\btrap\s", script)  # they would not run any more
        if start and not start["exec"] and not traps and _is_last(script[match.end() :]):
            at = match.start() - len(before) + start.end("set")
            script = f"{script[:at]}exec {script[at:]}"
    return _IN_SCRIPT.sub(replaced, script)


def _command_before(script: str, match: re.Match[str]) -> str:
    """Return what stands before the match in its command."""
    ends = [end.end() for end in _ENDS.finditer(script, 0, match.start())]
    return script[ends[-1] if ends else 0 : match.start()]


def _is_last(rest: str) -> bool:
    """Return whether a script ends with the command of which this is the rest. Where that is not clear, it does not."""
    line, *more = rest.replace("\\\n", " ").split("\n")
    if any(text.strip() and not text.lstrip().startswith("#") for text in more):
        return False
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        return not {"&&", "||", ";", "|", "&", ";;", "(", ")", "}"} & set(lexer)
    except ValueError:
        return False


def _named(program: str, before: str) -> str:
    return "kopf_ha" if before == "-m" else f"{program}-ha"


def _like(old: Any, new: str) -> Any:
    """Return a text in the style of the old one: quotes, or a block."""
    return type(old)(new)
