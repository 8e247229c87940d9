"""The registry of what runs on every replica; `kopf_ha.everywhere` is its public name."""

from __future__ import annotations

import functools

import kopf

from kopf_ha import _kopf


@functools.cache
def everywhere() -> kopf.OperatorRegistry:
    """Give the registry of handlers that run on every replica, leader or not, and can only read.

    Made when it is asked for, as Kopf's own: finding the logins imports all of the kubernetes client.
    """
    return _kopf.new_registry()
