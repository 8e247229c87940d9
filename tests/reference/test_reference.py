"""docs/reference.md says what the code does; ``KOPF_HA_REWRITE=1`` writes it anew."""

from __future__ import annotations

import os

from testbed.deployment import ROOT
from tests.reference.reference_page import page

PAGE = ROOT / "docs" / "reference.md"


def test_the_page_is_what_the_code_says() -> None:
    text = page()
    if os.environ.get("KOPF_HA_REWRITE"):
        PAGE.write_text(text)
    assert PAGE.read_text() == text, "docs/reference.md is old: KOPF_HA_REWRITE=1 pytest tests/reference"


def test_it_leaves_nothing_out() -> None:
    text = page()
    for part in ("### kopf-ha run", "### kopf-ha manifests", "--lease-name NAME", "`kopf_ha_writes_total`", "### Term",
                 "`kopf_ha_ipam_addresses_given_twice`", "`status.fencing.token`", "`spec.cidr`"):  # fmt: skip
        assert part in text, part
