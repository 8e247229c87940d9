"""What `kopf-ha manifests -f` says beside the objects: what is left to do, was guessed, or is worth knowing."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, field

TO_DO, GUESSED, NOTED = "TO DO: ", "guessed: ", "noted: "
#: The first comment. Below it, those that begin like the others are written anew each time.
WRITTEN = "Written by kopf-ha manifests"
#: The last comment: what comes below it is somebody else's.
_END = "#\n"
#: Comments go on below themselves with this.
CONTINUED = "#   "


@dataclass
class Remarks:
    """Sentences about one operator's manifests, without their first words.

    Args:
        unfenced: what has to be done, and is seen in the manifests until it is.
        once: what has to be done, and is not seen in them later.
        remembered: what was in `once` when the manifests were written before.
        guessed: what no document says for certain, with the option that says otherwise.
        noted: what is certain, and matters.
    """

    unfenced: list[str] = field(default_factory=list)
    once: list[str] = field(default_factory=list)
    remembered: list[str] = field(default_factory=list)
    guessed: list[str] = field(default_factory=list)
    noted: list[str] = field(default_factory=list)

    def new_tasks(self) -> list[str]:
        """Return lines about what has to be done, without those that stand in the manifests already."""
        new = (s for s in self.once if s not in self.remembered)
        return [TO_DO + s for s in (*self.unfenced, *new)]

    def tasks(self) -> list[str]:
        """Return lines about all that has to be done."""
        return [TO_DO + s for s in dict.fromkeys((*self.unfenced, *self.remembered, *self.once))]

    def hints(self) -> list[str]:
        """Return lines about what was guessed, and what is worth knowing."""
        return [*(GUESSED + s for s in self.guessed), *(NOTED + s for s in self.noted)]


def comments(header: str, lines: Iterable[str]) -> str:
    """Return the comments at the top. `without_ours` takes them away again."""
    first, *more = header.splitlines()
    folded = _folded(first, "# ") + "".join(_folded(line, CONTINUED) for line in more)
    return folded + "".join(_folded(line, "# ") for line in lines) + _END


def without_ours(text: str) -> tuple[str, list[str]]:
    """Return a document without the comments that were written at its top, and the tasks that they named."""
    kept: list[str] = []
    tasks: list[str] = []
    last = ""  # the first words of our comment that goes on here; empty after all others
    lines = text.splitlines(keepends=True)
    for n, line in enumerate(lines):
        if not line.startswith("#"):
            return "".join(kept + lines[n:]), tasks
        if last and line.startswith(CONTINUED):
            if last == TO_DO:
                tasks[-1] += " " + line.removeprefix(CONTINUED).strip()
            continue
        if last and line == _END:
            last = ""
            continue
        last = _first_words(line, inside=bool(last))
        if last == TO_DO:
            tasks.append(line.removeprefix("# " + TO_DO).strip())
        elif not last:
            kept.append(line)
    return "".join(kept), tasks


def _first_words(line: str, *, inside: bool) -> str:
    known = (WRITTEN, TO_DO, GUESSED, NOTED) if inside else (WRITTEN, GUESSED)
    return next((words for words in known if line.startswith("# " + words)), "")


def _folded(line: str, start: str) -> str:
    if ": kubectl " in line:
        return f"{start}{line}\n"  # to be copied
    return (
        textwrap.fill(
            line,
            118,
            initial_indent=start,
            subsequent_indent=CONTINUED,
            break_on_hyphens=False,
            break_long_words=False,
        )
        + "\n"
    )
