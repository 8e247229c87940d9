"""One change of the code, and how it is made."""

from __future__ import annotations

from dataclasses import dataclass


class NotApplicable(Exception):
    """The text that a mutation replaces is not there exactly once, or what comes out is no Python."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """A mutation that somebody thought of.

    Args:
        name: of the mutation, unique.
        path: of the file, from the root of the tree.
        old: the text to replace. It occurs exactly once.
        new: what replaces it.
        breaks: what is wrong then, in a sentence.
        promise: which promise it concerns, such as ``I3``; or what else it is about.
        tests: what must notice it: files or node ids for pytest, all of them without a control plane; or
            ``model ARGUMENTS`` for an exploration (`python -m model`).
    """

    name: str
    path: str
    old: str
    new: str
    breaks: str
    promise: str
    tests: tuple[str, ...]

    def applied(self, text: str) -> str:
        """Return the file's text with the mutation.

        Raises:
            NotApplicable: it cannot be applied any more; the message says why.
        """
        found = text.count(self.old)
        if found != 1:
            times = "no longer occurs" if not found else f"occurs {found} times"
            raise NotApplicable(
                f"mutation {self.name}: its text {times} in {self.path}; find today's place and change mutants/named"
            )
        mutated = text.replace(self.old, self.new)
        if self.path.endswith(".py"):
            try:
                compile(mutated, self.path, "exec")
            except SyntaxError as error:
                raise NotApplicable(f"mutation {self.name}: {self.path} is no Python with it: {error}") from error
        return mutated
