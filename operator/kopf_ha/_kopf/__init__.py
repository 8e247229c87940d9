"""The only package that uses Kopf's private parts. It offers what kopf-ha needs of them under stable names.

tests/test_kopf_contract.py has a test for each private part, which says what breaks if a release of Kopf changes it. An
import contract in pyproject.toml forbids `kopf._*` in all other files.
"""

from kopf_ha._kopf.discovery import discovers, exact_namespaces, serves
from kopf_ha._kopf.first_list import Flow, Kind, MakeFlow
from kopf_ha._kopf.holding import hold_handlers
from kopf_ha._kopf.logs import (
    Formatter,
    ObjectPrefix,
    TextFormatter,
    objects_log,
    running_log,
    tells_of_handler,
    tells_of_signals,
)
from kopf_ha._kopf.registries import (
    activities,
    for_every_replica,
    is_async,
    logins,
    new_registry,
    only_logs_in,
    storing_handlers,
    watch_first,
    webhooks,
    with_lasting_webhooks,
    with_logins_of,
)
from kopf_ha._kopf.spawning import (
    SpawnedOperator,
    load,
    plain_spawn_tasks,
    replace_spawn_tasks,
    sleeps_between_tries,
    spawn,
)
from kopf_ha._kopf.vault import PreparedVault

__all__ = [
    "Flow", "Formatter", "Kind", "MakeFlow", "ObjectPrefix", "PreparedVault", "SpawnedOperator", "TextFormatter",
    "activities", "discovers", "exact_namespaces", "for_every_replica", "hold_handlers", "is_async", "load", "logins",
    "new_registry", "objects_log", "only_logs_in", "plain_spawn_tasks", "replace_spawn_tasks", "running_log", "serves",
    "sleeps_between_tries", "spawn", "storing_handlers", "tells_of_handler", "tells_of_signals", "watch_first",
    "webhooks", "with_lasting_webhooks", "with_logins_of",
]  # fmt: skip
