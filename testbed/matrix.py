"""Runs the tests that a version of Kubernetes can break, on each: `make matrix`, or KUBERNETES="1.34 1.37" for some.

What came out are rows of a table in docs/compatibility.md. Those of versions that did not run stay as they are.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

import click

from devcluster import versions

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "compatibility.md"
BEGIN, END = "<!-- make matrix writes this table -->\n", "<!-- end of the table -->\n"

#: What runs, of these only tests that need a cluster. Chosen to take ten minutes on two cores.
AREAS: Mapping[str, Sequence[str]] = {
    "fencing": ("tests/fencing", "tests/ipam/test_ipam_crds.py"),
    "policies": tuple(
        f"tests/policies/test_policies_{name}.py"
        for name in ("annotations", "failover", "model", "namespace", "recognised", "refused", "term", "users")
    ),
    "election": ("tests/election",),
    "survival": tuple(f"tests/survival/test_survival_{name}.py" for name in ("floors", "lease", "outage")),
}


@dataclass
class Outcome:
    """What came out on one version: how many tests passed, failed or were skipped, by area; and which failed."""

    kubernetes: str
    etcd: str
    day: date
    counts: dict[str, Counter[str]] = field(default_factory=lambda: {area: Counter() for area in AREAS})
    failed: list[str] = field(default_factory=list)

    def read(self, report: str) -> None:
        """Add what a report in JUnit's XML says. Raises ValueError for a test that belongs to no area."""
        for case in ElementTree.fromstring(report).iter("testcase"):  # noqa: S314  # written by pytest a moment ago
            module, name = case.get("classname", ""), case.get("name", "")
            bad = [child for child in case if child.tag in ("failure", "error")]
            what = "failed" if bad else "skipped" if case.find("skipped") is not None else "passed"
            self.counts[area_of(module)][what] += 1
            if bad:
                self.failed.append(f"{module.replace('.', '/')}.py::{name}")

    def row(self) -> str:
        """Return its row of the table."""
        cells = [self.kubernetes.removeprefix("v"), self.etcd.removeprefix("v")]
        for counted in self.counts.values():
            told = [f"{counted[what]} {what}" for what in ("passed", "failed", "skipped") if counted[what]]
            cells.append(", ".join(told) or "none ran")
        return f"| {' | '.join([*cells, self.day.isoformat()])} |\n"


def area_of(module: str) -> str:
    """Return the area of a test module, such as ``tests.fencing.test_cluster``."""
    path = PurePosixPath(module.replace(".", "/") + ".py")
    for area, parts in AREAS.items():
        if any(path.is_relative_to(part) for part in parts):
            return area
    raise ValueError(f"{path} belongs to no area of the matrix")


def written(page: str, rows: Iterable[str]) -> str:
    """Return the page with these rows in the table, in place of those of the same minors."""
    before, rest = page.split(BEGIN)
    table, after = rest.split(END)
    head, dashes, *old = table.splitlines(keepends=True)
    by_minor = {_minor(row): row for row in [*old, *rows]}
    in_order = sorted(by_minor, key=lambda minor: [int(part) for part in minor.split(".")])
    return before + BEGIN + head + dashes + "".join(by_minor[minor] for minor in in_order) + END + after


def _minor(row: str) -> str:
    found = re.match(r"\| (\d+\.\d+)\.", row)
    if found is None:
        raise ValueError(f"a row of {PAGE.name} begins without a version: {row}")
    return found[1]


def run(minor: str) -> Outcome:
    """Build the programs of a version, and run the tests on it. Raises RuntimeError if they could not be run."""
    told = versions.read(versions.minors()[minor])
    outcome = Outcome(told.kubernetes, told.etcd, datetime.now(UTC).date())
    # CI: a test that cannot run fails, where it would be skipped. Assets would be of one version only.
    environment = {name: value for name, value in os.environ.items() if name != "KUBEBUILDER_ASSETS"}
    environment |= {"KUBERNETES": minor, "CI": "true"}
    click.echo(f"matrix: Kubernetes {told.kubernetes}, etcd {told.etcd}", err=True)
    if subprocess.run([sys.executable, "-m", "devcluster", "build"], cwd=ROOT, env=environment, stdout=2).returncode:
        raise RuntimeError(f"the programs of Kubernetes {minor} could not be built")
    report = ROOT / "build" / "matrix" / f"{minor}.xml"
    report.unlink(missing_ok=True)
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2", "--dist", "loadscope"]
    paths = [path for parts in AREAS.values() for path in parts]
    argv += ["--no-loadscope-reorder", f"--junitxml={report}", "-m", "cluster", *paths]
    status = subprocess.run(argv, cwd=ROOT, env=environment, stdout=2).returncode
    if status not in (0, 1) or not report.exists():
        raise RuntimeError(f"pytest ended with status {status} on Kubernetes {minor}")
    outcome.read(report.read_text())
    return outcome


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("minors", nargs=-1, metavar="[1.NN]...")
def main(minors: Sequence[str]) -> None:
    """Run the tests on these minors of Kubernetes, all by default, and write docs/compatibility.md."""
    if unknown := set(minors) - set(versions.minors()):
        raise click.UsageError(
            f"{', '.join(sorted(unknown))}: there is a go.mod for {', '.join(versions.minors())} only"
        )
    outcomes = []
    for minor in minors or versions.minors():
        outcomes.append(run(minor))
        PAGE.write_text(written(PAGE.read_text(), [outcomes[-1].row()]))
    for outcome in outcomes:
        click.echo(outcome.row(), nl=False)
        for name in outcome.failed:
            click.echo(f"failed on {outcome.kubernetes}: {name}")
    if any(outcome.failed for outcome in outcomes):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
