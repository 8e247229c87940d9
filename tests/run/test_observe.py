"""Which events Kopf's handlers do not see: those of stamps that came before a patch of Kopf's (I9)."""

from __future__ import annotations

from typing import Any

import kopf
import pytest

from kopf_ha.adapters import Wiring, wired
from kopf_ha.core.fence import Fence
from kopf_ha.core.target import Target
from kopf_ha.core.wire import Response
from kopf_ha.run.observe import is_our_stamp

RESOURCE = kopf.Resource("t.dev", "v1", "widgets")
WIDGET = Target("t.dev", "v1", "widgets", "a", "x")


def event(kind: str | None, version: str, **metadata: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "object": {"metadata": {"namespace": "a", "name": "x", "resourceVersion": version} | metadata},
    }


@pytest.mark.parametrize(
    ("shown", "hidden"),
    [
        (event("MODIFIED", "7"), True),
        (event("MODIFIED", "8"), False),
        (event("MODIFIED", "7", name="y"), False),
        (event("MODIFIED", "7", namespace="b"), False),
        # Handlers have to know of these at any revision.
        (event("DELETED", "7"), False),
        (event(None, "7"), False),
    ],
)
def test_only_the_revision_of_the_stamp_is_hidden(shown: dict[str, Any], hidden: bool) -> None:
    fence = Fence("ns/op")
    fence.known.told.keep(WIDGET.key, "7", Response(200))
    with wired(Wiring(fence, report=lambda outcome: None)):
        assert is_our_stamp(RESOURCE, shown) is hidden
