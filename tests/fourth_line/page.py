"""The part of docs/refused.md about the Term's policy, from a run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from testbed.deployment import ROOT
from testbed.terms import Terms
from tests.fourth_line.stale import Row
from tests.fourth_line.ways import Way

PAGE = ROOT / "docs" / "refused.md"
#: The part goes from this heading to the end of the page.
HEADING = "\n## What the Term’s policy refuses by itself\n"
INTRO = """
`KOPF_HA_REWRITE=1 pytest tests/fourth_line/test_fourth_line_refused.py` generates this section. Without the variable,
the test checks it, but for the last column.

Nothing has a stamp here, nothing fences the process, and the account may do everything: only
[line 4](fencing.md#line-4-the-term) is there. A pod writes all the time, while another pod takes the Term. The last
column is the most that the last accepted write was late, in ms: from the API server's answer to the write of the Term
until that write arrived, both by its audit log. A dash means that none was accepted after that answer. In namespaces
the objects are really created. Other creations are dry runs.

| client | write | before | after the takeover | last accepted, ms |
|---|---|---|---|---|
"""
END = """
The message is `{}`.
No policy judges writes of the kinds that configure admission, and this one leaves out events, reviews,
and what elects the leader.
"""


def table(terms: Terms, rows: Mapping[Way, Sequence[Row]], exempt: Sequence[Row]) -> str:
    """Give the section."""
    lines: list[str] = []
    for way, found in rows.items():
        late = max((row.late for row in found if row.late is not None), default=None)
        last = "–" if late is None else f"{late:.1f}"
        row = found[0]
        lines.append(f"| {way.client} | {way.write} | **{row.before.code}** | {row.after.code} term | {last} |\n")
    for row in exempt:
        after = f"**{row.after.code}** not judged"
        lines.append(f"| {row.way.client} | {row.way.write} | **{row.before.code}** | {after} | any time |\n")
    message = next(iter(rows.values()))[0].after.message.partition("denied request: ")[2]
    message = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "UID", message).replace(terms.namespace, "NAMESPACE")
    return HEADING + INTRO + "".join(lines) + END.format(re.sub(r"token \d+", "token 8", message))


def section(page: str) -> str:
    """Give the section of a page."""
    return HEADING + page.partition(HEADING)[2]


def spliced(page: str, text: str) -> str:
    """Give a page with another section."""
    return page.partition(HEADING)[0] + text


def numberless(text: str) -> str:
    """Give a section without what is another in each run."""
    return re.sub(r"\| (–|[\d.]+) \|\n", "| |\n", text)
