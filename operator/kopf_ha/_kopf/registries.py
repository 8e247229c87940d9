"""Registries of handlers: what is in one, and others that are made of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import kopf
from kopf._cogs.structs import ids
from kopf._core.actions import invocation
from kopf._core.intents import causes, handlers, registries

added_first: set[str] = set()  #: the ids of handlers that `watch_first` added


def new_registry() -> kopf.OperatorRegistry:
    """Return a new registry with Kopf's own login handlers, like the default registry."""
    return registries.SmartOperatorRegistry()


def only_logs_in(registry: kopf.OperatorRegistry) -> bool:
    """Return whether the registry has only logins: no webhooks, indices, event handlers or other activities."""
    parts = (registry._webhooks, registry._indexing, registry._watching)
    return not activities(registry) and not any(part.get_all_handlers() for part in parts)


def storing_handlers(registry: kopf.OperatorRegistry) -> list[str]:
    """Return the ids of handlers whose progress Kopf writes into their objects: for changes, timers, daemons."""
    return [str(h.id) for part in (registry._changing, registry._spawning) for h in part.get_all_handlers()]


def webhooks(registry: kopf.OperatorRegistry) -> list[str]:
    """Return the ids of the registry's admission webhooks."""
    return [str(h.id) for h in registry._webhooks.get_all_handlers()]


def with_logins_of(registry: kopf.OperatorRegistry, other: kopf.OperatorRegistry) -> kopf.OperatorRegistry:
    """Return the registry with the other one's login handlers, unless it has some besides Kopf's default ones.

    Neither registry is changed. A new registry has no handlers for changes, timers and daemons.
    """
    mine, theirs = logins(registry), logins(other)
    if not all(h._fallback for h in mine) or not theirs:
        return registry
    made = kopf.OperatorRegistry()
    made._webhooks, made._indexing, made._watching = registry._webhooks, registry._indexing, registry._watching
    made._activities._handlers = [*theirs, *activities(registry)]
    return made


def for_every_replica(
    registry: kopf.OperatorRegistry, alone: Callable[[str, Callable[..., Any]], Callable[..., Any]]
) -> kopf.OperatorRegistry:
    """Return a registry with the other one's webhooks, indices, logins, and startup and cleanup handlers.

    Args:
        registry: is not changed.
        alone: takes the id and the function of a startup or cleanup handler, both a coroutine function or neither, and
            returns the function to call.
    """
    made = kopf.OperatorRegistry()
    made._webhooks, made._indexing = registry._webhooks, registry._indexing
    own = (causes.Activity.STARTUP, causes.Activity.CLEANUP)
    made._activities._handlers = [
        *logins(registry),
        *(dataclasses.replace(h, fn=alone(str(h.id), h.fn)) for h in activities(registry) if h.activity in own),
    ]
    return made


def with_lasting_webhooks(registry: kopf.OperatorRegistry) -> kopf.OperatorRegistry:
    """Return a registry with the same handlers, whose Kopf leaves its webhook configurations behind when it stops."""
    made = kopf.OperatorRegistry()
    vars(made).update(vars(registry))
    made._webhooks = registries.WebhooksRegistry()
    made._webhooks._handlers = [dataclasses.replace(h, persistent=True) for h in registry._webhooks.get_all_handlers()]
    return made


def is_async(fn: Callable[..., Any]) -> bool:
    """Return whether Kopf awaits the handler, and does not run it in a thread."""
    return invocation.is_async_fn(fn)


def watch_first(registry: kopf.OperatorRegistry, fn: Callable[..., Any], name: str) -> bool:
    """Call `fn` for each event of every object that the registry has handlers for, before those handlers.

    Kopf runs event handlers at the beginning of an object's cycle, in the order of the registry, with the body that all
    other handlers will see.

    Args:
        registry: the registry; the first call changes it.
        fn: an event handler.
        name: the handler's id.

    Returns:
        True for the first call. Later calls do nothing and return False.
    """
    spies = registry._watching
    if any(h.id == name for h in spies.get_all_handlers()):
        return False
    added_first.add(name)
    selectors = {
        handler.selector: None
        for part in (registry._watching, registry._spawning, registry._changing)
        for handler in part.get_all_handlers()
        if handler.selector is not None
    }
    # There is no public way to create a handler with another handler's selector.
    spies._handlers[:0] = [
        handlers.WatchingHandler(
            fn=fn, id=ids.HandlerId(name), param=None,
            errors=None, timeout=None, retries=None, backoff=None,
            selector=selector, labels=None, annotations=None, when=None, field=None, value=None,
        )
        for selector in selectors
    ]  # fmt: skip
    return True


def logins(registry: kopf.OperatorRegistry) -> list[handlers.ActivityHandler]:
    return [h for h in registry._activities.get_all_handlers() if h.activity == causes.Activity.AUTHENTICATION]


def activities(registry: kopf.OperatorRegistry) -> list[handlers.ActivityHandler]:
    """Return all activities except the logins."""
    return [h for h in registry._activities.get_all_handlers() if h.activity != causes.Activity.AUTHENTICATION]
