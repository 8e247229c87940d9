"""docs/refused.md is what the API server answers, not what we think that it does.

``KOPF_HA_REWRITE=1 pytest tests/policies/test_policies_refused.py`` writes it anew.
"""

from __future__ import annotations

import copy
import importlib
import os
from collections.abc import Iterator

import pytest
import yaml

from devcluster.waiting import until
from testbed.deployment import ROOT
from tests.fourth_line.page import HEADING
from tests.kit.client import MERGE
from tests.policies.fenced import Fenced
from tests.policies.page import page
from tests.policies.refused import Attempts
from tests.policies.unrefused import Cases

#: The package has a function of the same name.
policies = importlib.import_module("kopf_ha.manifests.policies")
PAGE = ROOT / "docs" / "refused.md"

#: What a stale leader may do on objects that the current one has stamped. Everything else is refused.
ACCEPTED = {
    "status, merge patch, an invented token 99",
    "merge patch, an invented token 99",
    "create",
    "create, its own stamp",
    "acquire with a raised count, PUT",
}
#: What nobody may do, or the kind cannot.
NOBODY = {
    "status, merge patch, the other’s stamp",
    "status, merge patch, the stamp removed",
    "status, merge patch, the whole status removed",
    "status, merge patch, its own stamp, another Lease",
    "status, strategic merge patch",
    "delete",
    "delete, as a collection",
    "scale",
    "merge patch, the other’s stamp",
    "merge patch, the stamp removed",
    "create, no stamp",
    "create, no label of a child",
}


@pytest.fixture
def whole(fenced: Fenced, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The policy `stamped` without its shortcut, which only warns; give its name."""
    shortcut = policies.stamped(fenced.description).objects()
    monkeypatch.setattr(policies, "_news", lambda _: {"name": "news", "expression": "true"})
    policy, binding = copy.deepcopy(policies.stamped(fenced.description).objects())
    assert [policy, binding] != shortcut
    name = policy["metadata"]["name"] + "-whole"
    policy["metadata"]["name"] = binding["metadata"]["name"] = binding["spec"]["policyName"] = name
    binding["spec"]["validationActions"] = ["Warn"]
    fenced.cluster.kubectl("apply", "-f", "-", input=yaml.safe_dump_all([policy, binding]))
    path = fenced.pool()
    try:
        until(
            "the whole policy to warn",
            lambda: name in fenced.old("PATCH", f"{path}/status?dryRun=All", {"status": {"free": 1}}, MERGE).warning,
        )
        yield name
    finally:
        fenced.cluster.kubectl("delete", "validatingadmissionpolicy,validatingadmissionpolicybinding", name)


def test_the_page_is_what_the_api_server_answers(fenced: Fenced, whole: str) -> None:
    rows = list(Attempts(fenced).rows())
    for row in rows:
        where = f"{row.target}: {row.verb}"
        for answer in (row.stale, row.current):
            # The condition `news` leaves out only what every rule allows.
            assert not (answer.ok and whole in answer.warning), f"{where}: {answer.warning}"
        assert row.stale.ok == (row.verb in ACCEPTED), f"{where}: {row.stale.status} {row.stale.message}"
        if row.target != "Lease":
            assert row.current.ok != (row.verb in NOBODY), f"{where}: {row.current.status} {row.current.message}"
    text = page(fenced, rows, list(Cases(fenced).all()))
    _, heading, term = PAGE.read_text().partition(HEADING)  # that part has a test of its own
    if os.environ.get("KOPF_HA_REWRITE"):
        PAGE.write_text(text + heading + term)
    assert PAGE.read_text() == text + heading + term, (
        "the answers are others than docs/refused.md says; KOPF_HA_REWRITE=1 writes it anew"
    )
