"""The registry of handlers that run on every replica. Its public name is `kopf_ha.everywhere`."""

from __future__ import annotations

import functools

import kopf

from kopf_ha import _kopf


@functools.cache
def everywhere() -> kopf.OperatorRegistry:
    """Return the registry of handlers that run on every replica, leader or not, and can only read.

    It is created at the first call, as Kopf creates its own: looking for login handlers imports the whole kubernetes
    client.
    """
    return _kopf.new_registry()
