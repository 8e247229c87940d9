"""The runbook shows commands that there are, and its sections go with the checks."""

from __future__ import annotations

import re
import shlex

import pytest
from click.testing import CliRunner

from kopf_ha.cli import main
from kopf_ha.oncall.checks.table import CHECKS
from testbed.deployment import ROOT
from tests.oncall.test_check_cluster import MISTAKES
from tests.page import Shown, shown

RUNBOOK, ONCALL = ROOT / "docs" / "runbook.md", ROOT / "docs" / "oncall.md"


def headings() -> list[str]:
    return re.findall(r"(?m)^##+ (.*)$", RUNBOOK.read_text())


@pytest.mark.parametrize("command", sorted({one.command for h in headings() for one in shown(RUNBOOK, h)}))
def test_commands_and_their_options_exist(command: str) -> None:
    program, *words = shlex.split(command)
    assert program == "kopf-ha"
    done = CliRunner().invoke(main, [*words, "--help"])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("printed", "missing"),
    [
        ("Lease a/b: web-7d9f8c6b5d-x2x4k leads, token 7\nmore\n  for  12s of 13m", ""),
        ("Lease a/b: web-5f9f8c6b5d-bq7wn leads, token 123\n  for 3h12m of 1s\nmore", ""),
        ("Lease a/b: nobody leads\n  for 1s of 2s", "Lease a/b: web-7d9f8c6b5d-x2x4k leads, token 7"),
        ("Lease a/b: web-5f9f8c6b5d-bq7wn leads, token 9\n  for 3s of 1s or so", "  for 1s of 15s"),
        ("Lease a/b: web-5f9f8c6b5d-bq7wn leads, token 9\n  for 3s of 1s", "kopf-ha … --only rbac"),
    ],
)
def test_a_page_is_compared_with_what_is_printed(printed: str, missing: str) -> None:
    lines = "Lease a/b: web-7d9f8c6b5d-x2x4k leads, token 7", "…", "  for 1s of 15s", "kopf-ha … --only rbac"
    command = "" if missing == lines[-1] else "\nkopf-ha --kind pools --only rbac"
    assert Shown("kopf-ha status", lines).missing(printed + command) == missing


def test_each_section_of_the_runbook_has_its_checks() -> None:
    """In the table at the end of docs/oncall.md. On a real API server each of them finds its mistake, alone."""
    page = ONCALL.read_text().partition("### Which check finds what the runbook describes\n")[2]
    rows = dict(re.findall(r"(?m)^\| (.*?) \| (.*) \|$", page.partition("\n#")[0]))
    named = " ".join(rows)
    # What is no trouble: how to look, and orders.
    orders = {"First look", "Have another replica lead", "Stop the operator for a repair", "Alerts"}
    headings = {*re.findall(r"(?m)^##+ (.*)$", RUNBOOK.read_text())} - orders
    links = {re.sub(r"-+", "-", re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-")): h for h in headings}
    assert [h for anchor, h in links.items() if f"runbook.md#{anchor})" not in named and h not in named] == []
    told = {name for text in rows.values() for name in re.findall(r"`(\w+\.\w+)`", text)}
    assert told - {check.name for check in CHECKS} == set()
    broken = {name for mistake in MISTAKES.values() for name in mistake.found}
    # A slow API server, and an old definition of the Term, would be everybody's.
    assert told - broken == {"election.latency", "definitions.term"}
