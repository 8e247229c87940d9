"""The kind of the operator that knows nothing of stamps."""

from __future__ import annotations

from tests.kit.crd import crd, version

GROUP = "fourth.kopf-ha.test"
WIDGETS = crd(GROUP, "Widget", version(fencing=None))
