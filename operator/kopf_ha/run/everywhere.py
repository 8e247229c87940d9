"""What runs on every replica, leader or not: a second Kopf for the whole life of the process, in no term.

Webhooks have to answer while nobody leads, and there must be more than one to ask; indices serve them. It
cannot write: no term means no grant, so the fence refuses whatever leaves it (I8), whichever client is used.
What Kopf would write there by itself is kept from arising: no handlers that store their progress, no webhook
configurations of Kopf's own, no finalizers.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import kopf

from kopf_ha import _kopf
from kopf_ha._context import entered_everywhere
from kopf_ha.errors import ConfigurationError
from kopf_ha.run.kopf_thread import LOOK, KopfOptions, KopfThread

logger = logging.getLogger("kopf_ha.everywhere")

#: Seconds for which webhooks are served after SIGTERM: a Service names the pod for a moment longer.
LINGER = 5.0
#: Kopf removes its finalizer from objects that its registry has no need of it for. Those of the terms' Kopf carry
#: that one's; no object carries this.
FINALIZER = "everywhere.kopf-ha.dev/none"

_MANAGED = (
    "settings.admission.managed is set for what runs on every replica: Kopf would write the webhook configuration from"
    " each of them, and remove the webhooks when one stops; leave it unset, apply a ValidatingWebhookConfiguration or"
    " MutatingWebhookConfiguration of your own, and have its caBundle filled in by cert-manager or from your own CA"
)


class Everywhere:
    """One replica's Kopf for what only reads. Nothing at all when the registry has no handlers.

    Args:
        registry: the handlers. Without a login of its own it logs in as the terms do.
        options: of the terms: the same namespaces, and their registry's logins.
        holder: the holder identity.
        failed: called with the cause, from its thread, when it ended without having been asked to.

    Raises:
        ConfigurationError: a handler that has to write; the sentence names it.
    """

    def __init__(
        self, registry: kopf.OperatorRegistry, options: KopfOptions, holder: str, failed: Callable[[str], None]
    ) -> None:
        check(registry)
        self._options = replace(
            options,
            registry=_kopf.with_logins_of(registry, options.registry),
            make_settings=kopf.OperatorSettings,  # those of the options are the terms'
            make_memo=kopf.Memo,
        )
        self._holder = holder
        self._failed = failed
        self._serves = bool(_kopf.webhooks(registry))
        self._ready = False
        self._ended = threading.Event()
        self._thread = KopfThread(
            name="kopf-ha-everywhere",
            inside=entered_everywhere,
            main=self._main,
            root_ended=self._root_ended,
            over=self._end,
        )
        self.wanted = not _kopf.only_logs_in(registry)

    @property
    def ready(self) -> bool:
        """Whether webhooks are listened for and indices filled; for a readiness probe. True if nothing is to run."""
        return not self.wanted or (self._ready and not self._ended.is_set())

    def start(self) -> None:
        """Run it in a thread and loop of its own."""
        if self.wanted:
            self._thread.start()

    def stop(self, timeout: float, linger: float = 0.0) -> None:
        """Let requests in flight end, stop Kopf, and wait for it.

        Args:
            timeout: seconds to wait; what hangs longer ends with the process.
            linger: seconds to serve webhooks before that, since a Service leads here for a moment longer.
        """
        if not self._thread.started:
            return
        if linger and self._serves and not self._ended.is_set():
            logger.info("webhooks are served for %g s more, while Services may still lead here", linger)
            self._ended.wait(linger)
        self._thread.stop()
        if not self._thread.join(timeout):
            logger.warning("what runs on every replica still does %g s after it was asked to stop", timeout)

    def _end(self, error: BaseException | None) -> None:
        """Tell about the first end, unless it was asked for."""
        if self._ended.is_set():
            return
        self._ended.set()
        if self._thread.asked:
            return
        error = (error.__cause__ or error) if error else None  # Kopf's own says only that handlers failed
        if isinstance(error, ConfigurationError):
            cause = str(error)
        else:
            cause = f"{type(error).__name__}: {error}" if error else "Kopf stopped by itself; its log has the reason"
        logger.error("what runs on every replica (kopf_ha.everywhere) ended: %s", cause)
        self._failed(f"what runs on every replica ended: {cause}")

    async def _main(self) -> None:
        settings, server = self._options.make_settings(), _Server()
        operator = await self._thread.spawn(
            self._options, settings, self._holder, configured=lambda: self._configure(server, settings)
        )
        asyncio.get_running_loop().call_later(LOOK, self._look, server, operator)
        await operator.run()

    def _configure(self, server: _Server, settings: kopf.OperatorSettings) -> None:
        try:
            server.configure(settings)
        except ConfigurationError as error:
            self._end(error)
            raise

    def _root_ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled():  # those are what Kopf ends because of another
            self._end(task.exception())
        self._thread.stop_kopf()

    def _look(self, server: _Server, operator: _kopf.SpawnedOperator) -> None:
        """Look until all is there. A callback and no task: Kopf would wait for it when it stops."""
        if self._thread.asked or self._ended.is_set():
            return
        if not server.indexed.is_set() and operator.has_filled_indices():
            server.indexed.set()
        if server.indexed.is_set() and (server.listening or not self._serves):
            self._ready = True
            logger.info("what runs on every replica is up")
            return
        asyncio.get_running_loop().call_later(LOOK, self._look, server, operator)


class _Server:
    """The operator's own webhook server, seen from outside."""

    def __init__(self) -> None:
        self.listening = False
        self.indexed = asyncio.Event()
        self._server: Any = None

    def configure(self, settings: kopf.OperatorSettings) -> None:
        """Settle what startup handlers may not decide.

        Raises:
            ConfigurationError: they want Kopf to write webhook configurations.
        """
        if settings.admission.managed is not None:
            raise ConfigurationError(_MANAGED)
        settings.persistence.finalizer = FINALIZER
        if settings.admission.server is not None:
            self._server, settings.admission.server = settings.admission.server, self

    async def __call__(self, answer: Any) -> AsyncIterator[Any]:
        """Serve as the operator's server does; requests wait until the indices are filled."""

        async def answered(*args: Any, **kwargs: Any) -> Any:
            await self.indexed.wait()
            return await answer(*args, **kwargs)

        if hasattr(self._server, "__aexit__"):
            async with self._server as server:
                async for config in server(answered):
                    self.listening = True
                    yield config
        else:
            async for config in self._server(answered):
                self.listening = True
                yield config


def check(registry: kopf.OperatorRegistry) -> None:
    """Refuse handlers that cannot do without writing.

    Raises:
        ConfigurationError: there is one; the sentence names it.
    """
    for handler in _kopf.storing_handlers(registry):
        raise ConfigurationError(
            f"handler {handler} is registered to run on every replica, and cannot: Kopf writes the progress of"
            " handlers for changes, timers and daemons into their objects, which the leader alone may do; leave"
            " out registry=kopf_ha.everywhere, which is for webhooks, indices and event handlers that only read"
        )


def name_unserved(registry: kopf.OperatorRegistry) -> None:
    """Say in the log which handlers of the terms' registry are not what they seem to be."""
    for webhook in _kopf.webhooks(registry):
        logger.warning(
            "webhook %s is served by the leader alone, and by nobody between two terms; register it with"
            " registry=kopf_ha.everywhere to have every replica serve it",
            webhook,
        )
    for probe in _kopf.probes(registry):
        logger.warning("probe %s is never asked: Kopf's liveness endpoint is not served; use --health-port", probe)
