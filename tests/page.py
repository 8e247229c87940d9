"""Pages whose commands are run as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from devcluster import ControlPlane

ROOT = Path(__file__).parents[1]


def blocks(path: Path, section: str = "") -> list[str]:
    """The console blocks of a page, or of one section; those under `<!-- not run -->` are left out."""
    text = path.read_text()
    if section:
        text = text.split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
    found = re.findall(r"(?ms)^(<!-- not run -->\n)?```console\n(.*?)^```$", text)
    made = [block for not_run, block in found if not not_run]
    assert made
    return made


@dataclass(frozen=True, slots=True)
class Shown:
    """A command of a page, and what the page shows of its output.

    Args:
        command: what stands behind ``$``.
        lines: below it; ``…`` stands for what is left out.
    """

    command: str
    lines: tuple[str, ...]

    def missing(self, printed: str) -> str:
        """Give the first line of the page that was not printed; empty if all were.

        Names of pods, numbers, times and spaces may be others. More may be printed, and in another order.
        """
        rest = [_without_numbers(line) for line in printed.splitlines()]
        for line in self.lines:
            if line.strip() in ("", "…"):
                continue
            wanted = ".*".join(re.escape(part) for part in _without_numbers(line).split("…"))
            found = next((n for n, there in enumerate(rest) if re.fullmatch(wanted, there)), None)
            if found is None:
                return line
            del rest[found]
        return ""


def shown(path: Path, section: str) -> list[Shown]:
    """The commands of a section of a page that are shown with their output, in order."""
    text = path.read_text()
    head = re.search(rf"(?m)^(#+) {re.escape(section)}$", text)
    assert head, f"{path} has no section {section}"
    body = re.split(rf"(?m)^#{{1,{len(head[1])}}} ", text[head.end() :])[0]
    parts = [p for b in re.findall(r"(?ms)^```console\n(\$ .*?)^```$", body) for p in re.split(r"(?m)^\$ ", b)[1:]]
    return [Shown(lines[0], tuple(lines[1:])) for lines in (part.splitlines() for part in parts)]


#: What differs from one run to the next.
_OTHERS = (
    (r" --kubeconfig=\S+", ""),
    (r" by \S+ since ", " by SOMEBODY since "),
    (r"\b([a-z][-a-z0-9]*-[bcdf-hj-np-tv-z24-9]{8,10})-[bcdf-hj-np-tv-z24-9]{5}\b", "POD"),
    (r"\b[bcdf-hj-np-tv-z24-9]{8,10}\b", "REVISION"),
    (r"\d{4}-\d\d-\d\d[T ][\d:.]+Z?", "TIME"),
    (r"\d+(\.\d+)?([dhms]\d+)*[dhms]?\b", "N"),
    (r"\b(error|warning)s\b", r"\1"),
    (r"\s+", " "),
)


def _without_numbers(line: str) -> str:
    for pattern, put in _OTHERS:
        line = re.sub(pattern, put, line)
    return line.strip()


class Page:
    """The console blocks of one page, to be run one after the other by a shell, as administrator.

    Args:
        name: of the page in docs/.
        plane: the cluster.
        cwd: where a reader would stand.
        section: the heading of the part that is meant; all of the page if empty.
    """

    def __init__(self, name: str, plane: ControlPlane, cwd: Path, section: str = "") -> None:
        self.blocks = blocks(ROOT / "docs" / name, section)
        assert all(re.match(r"(kubectl|kopf-ha) ", block) for block in self.blocks)
        self.plane, self.cwd, self.done = plane, cwd, 0

    def next(self, contains: str) -> str:
        """Run the next block, which must be the one that the test means; give what it printed.

        Raises:
            AssertionError: a command failed, or the page and the test no longer go together.
        """
        block = self.blocks[self.done]
        assert contains in block, f"the next block is another: {block}"
        self.done += 1
        return shell(self.plane, block, self.cwd)

    def check_at_end(self) -> None:
        """Make sure that the test left nothing of the page out."""
        assert self.blocks[self.done :] == []


def shell(plane: ControlPlane, commands: str, cwd: Path) -> str:
    """Run commands as an administrator would, each of whom must succeed."""
    programs = f"{plane.kubectl_path.parent}:{Path(sys.executable).parent}"
    env = plane.kubectl_env() | {"KUBECONFIG": str(plane.kubeconfig)}
    env["PATH"] = f"{programs}:{env['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands], cwd=cwd, env=env, capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
    return done.stdout
