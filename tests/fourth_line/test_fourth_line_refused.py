"""What the Term's policy refuses by itself, whatever sends it; docs/refused.md has the table of a run.

``KOPF_HA_REWRITE=1 pytest tests/fourth_line/test_fourth_line_refused.py`` writes it anew, by more takeovers.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from devcluster import ControlPlane
from testbed.terms import Terms
from tests.fourth_line.page import PAGE, numberless, section, spliced, table
from tests.fourth_line.stale import Row, Stale
from tests.fourth_line.ways import Way, Ways

#: Takeovers for each way to write when the page is written.
MANY = 5


def test_whatever_a_stale_leader_sends_is_refused_after_the_takeover(
    cluster: ControlPlane, terms: Terms, tmp_path: Path
) -> None:
    rewrite = bool(os.environ.get("KOPF_HA_REWRITE"))
    ways = Ways(terms, tmp_path)
    ways.prepare()
    rows: dict[Way, list[Row]] = {}
    try:
        stale = Stale(cluster, terms, ways)
        turns = itertools.cycle([(0, 1), (1, 0)])
        for _ in range(MANY if rewrite else 1):
            for way in ways.judged():
                old, new = next(turns)
                rows.setdefault(way, []).append(stale.row(way, stale.pods[old], stale.pods[new]))
        exempt = [stale.exempt(way, *stale.pods) for way in ways.exempt()]
    finally:
        ways.close()
    for way, found in rows.items():
        for row in found:
            assert not terms.is_refusal(row.before.code, row.before.message), f"{way} was refused to the leader"
            assert terms.is_refusal(row.after.code, row.after.message), f"{way}: {row.after}"
    for row in exempt:
        assert row.before.code == row.after.code == 201, row
    text = table(terms, rows, exempt)
    if rewrite:
        PAGE.write_text(spliced(PAGE.read_text(), text))
    assert numberless(section(PAGE.read_text())) == numberless(text), (
        "the answers are others than docs/refused.md says; KOPF_HA_REWRITE=1 writes it anew"
    )
