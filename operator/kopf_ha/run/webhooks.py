"""Webhooks of an unchanged operator: every replica serves them, with their indices, and only the leader writes (I9).

A Service routes to all replicas, so one that serves no webhooks would fail its part of the requests. By default the
webhooks of the ordinary registry are therefore served by the Kopf of every replica (`everywhere`), unless
`kopf_ha.everywhere` has handlers of its own: then the author has decided.

- Startup and cleanup handlers run there too, since they choose the server and prepare what webhooks need. What they
  write is refused there and done in each term, where they run again.
- Only the leader's Kopf writes webhook configurations (`settings.admission.managed`). It names the server of its
  replica, and leaves them behind when the term ends: the other replicas go on serving.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any

import kopf

from kopf_ha import _kopf
from kopf_ha._context import entered_everywhere
from kopf_ha.adapters import share_ports
from kopf_ha.errors import Refused
from kopf_ha.run.kopf_thread import KopfOptions

logger = logging.getLogger("kopf_ha.everywhere")

#: Seconds between two looks for what the server of this replica says about itself.
LOOK = 0.2


def are_served_everywhere(registry: kopf.OperatorRegistry, everywhere: kopf.OperatorRegistry) -> bool:
    """Return whether every replica serves the webhooks of the ordinary registry.

    Args:
        registry: of the terms.
        everywhere: of every replica, as its author filled it.
    """
    return bool(_kopf.webhooks(registry)) and _kopf.only_logs_in(everywhere)


class Bridge:
    """The webhook server of this replica, as the Kopf of a term sees it: an address that it need not serve."""

    def __init__(self) -> None:
        self._config: Any = None  #: one assignment, so any thread may read it

    def tell(self, config: Any) -> None:
        """Note what the server says about itself: its address, and the authority of its certificate."""
        self._config = config

    async def __call__(self, answer: Any) -> AsyncIterator[Any]:
        """Yield what the server says, now and whenever it changes."""
        told: Any = None
        while True:
            if self._config is not None and self._config != told:
                told = self._config
                yield told
            await asyncio.sleep(LOOK)


def for_terms(options: KopfOptions, bridge: Bridge) -> KopfOptions:
    """Return the options for the Kopf of each term: it serves no webhooks, but may write their configurations."""

    def overrule(settings: kopf.OperatorSettings) -> None:
        options.overrule(settings)
        settings.admission.server = bridge

    return replace(options, registry=_kopf.with_lasting_webhooks(options.registry), overrule=overrule)


def for_every_replica(options: KopfOptions) -> KopfOptions:
    """Return the options for the Kopf that serves the webhooks. Ports of startup handlers may be opened twice."""
    share_ports()

    def make_settings() -> kopf.OperatorSettings:
        # The parts that differ, since an application may give the same settings to each Kopf.
        settings = options.make_settings()
        return replace(settings, admission=replace(settings.admission), persistence=replace(settings.persistence))

    # What else the options have is for the Kopf of the terms.
    return KopfOptions(
        registry=_kopf.for_every_replica(options.registry, _alone),
        namespaces=options.namespaces,
        clusterwide=options.clusterwide,
        lifecycle=options.lifecycle,
        make_settings=make_settings,
        make_memo=options.make_memo,
    )


def _alone(name: str, fn: Callable[..., Any]) -> Callable[..., Any]:
    """Run a startup or cleanup handler outside of any term. A refused write ends the handler, and is no error."""
    if _kopf.is_async(fn):

        @functools.wraps(fn)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            with _ending_quietly(name):
                return await fn(*args, **kwargs)

        return awaited

    @functools.wraps(fn)
    def called(*args: Any, **kwargs: Any) -> Any:
        with _ending_quietly(name):
            return fn(*args, **kwargs)

    return called


@contextlib.contextmanager
def _ending_quietly(name: str) -> Iterator[None]:
    """Run a handler in the body, where it can only read. It ends at the first refused write, and the log says so."""
    with entered_everywhere(again=True):
        try:
            yield
        except Exception as error:
            if (refused := _refusal_in(error)) is None:
                raise
            logger.info(
                "handler %s writes, which only the leader may: on every replica it ends there, and in each term it runs"
                " whole (%s)",
                name,
                refused,
            )


def _refusal_in(error: BaseException | None) -> Refused | None:
    """Return the refused write that an error comes from: handlers turn it into errors of their own, or of Kopf's."""
    while error is not None and not isinstance(error, Refused):
        error = error.__cause__ or error.__context__
    return error


def warn_of_certificate(server: Any) -> None:
    """Warn if each replica makes a certificate of its own, since a configuration can name the leader's only."""
    if isinstance(server, kopf.WebhookServer) and not server.insecure and not (server.certfile and server.pkeyfile):
        logger.warning(
            "kopf.WebhookServer makes a certificate of its own in each process, and a webhook configuration can name"
            " one only: requests that a Service routes to other replicas fail. Give all replicas the same certificate:"
            " WebhookServer(certfile=…, pkeyfile=…, cafile=…)"
        )
