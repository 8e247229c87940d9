"""README's commands run as they stand there, and do what it says."""

from __future__ import annotations

import re
from pathlib import Path

from devcluster import Binaries, ControlPlane
from tests.page import ROOT, blocks, shell

README = ROOT / "README.md"


def block(language: str, contains: str) -> str:
    found: list[str] = [
        text for text in re.findall(rf"(?ms)^```{language}\n(.*?)^```$", README.read_text()) if contains in text
    ]
    assert len(found) == 1
    return found[0]


def test_the_operator_shown_is_the_example() -> None:
    _, _, code = (ROOT / "examples" / "backups.py").read_text().split('"""', 2)
    assert block("python", "back_up").strip() == code.strip()


def test_a_paused_leader_is_refused_as_shown(binaries: Binaries, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    lines = [
        "trap 'kill -KILL $(jobs -p)' EXIT",
        *blocks(README, "Run an operator"),
        *blocks(README, "Kill the leader"),
        "kubectl get backup photos -o jsonpath='{.status.fencing.token}'",
    ]
    (tmp_path / "lines.sh").write_text("\n".join(lines))
    with ControlPlane(tmp_path / "state", binaries=binaries) as plane:
        # `timeout` ends the replicas, too, if the lines wait in vain.
        said = shell(plane, "timeout --signal=KILL 140 bash -euo pipefail lines.sh", tmp_path)
    shown, _, _ = block("", "refused by gate").partition(" (")  # the reason, which is what the process noticed first
    assert numberless(shown) in numberless(said)
    assert said.splitlines()[-1] == "2"  # the new leader's stamp


def numberless(text: str) -> str:
    return re.sub(r"[\d.:,-]+", "#", text)
