"""Every promise holds in every state within the smaller bounds; `make model` explores the larger ones."""

from __future__ import annotations

import pytest

from model import Clocks, Cluster, explore, story
from model.plans import QUICK, Plan


@pytest.mark.parametrize("plan", QUICK, ids=lambda plan: f"{'clocks: ' if plan.clocks else ''}{plan.bounds}")
def test_every_promise_holds_in_every_state(plan: Plan) -> None:
    model = Clocks(plan.bounds) if plan.clocks else Cluster(plan.bounds)
    found = explore(model, limit=plan.limit)
    print(found)
    assert found.broken is None, story(found, clocks=plan.clocks)
    assert found.whole
