"""The registry of what runs on every replica; `kopf_ha.everywhere` is its public name."""

from __future__ import annotations

import kopf
from kopf._core.intents.registries import SmartOperatorRegistry  # the default registry's class: it has Kopf's logins

#: Handlers that run on every replica, leader or not, for the whole life of the process, and that can only read:
#: `@kopf.on.validate("widgets", registry=kopf_ha.everywhere)`. See docs/terms.md.
everywhere: kopf.OperatorRegistry = SmartOperatorRegistry()
