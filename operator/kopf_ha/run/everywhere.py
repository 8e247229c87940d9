"""A second Kopf that runs on every replica, leader or not, and belongs to no term.

Webhooks have to answer while no replica leads, and on more than one replica; indices serve them. Its handlers are those
of `kopf_ha.everywhere`; if there are none, the webhooks of the ordinary registry (`webhooks`).

This Kopf cannot write: without a term there is no grant, so the fence refuses every write, whichever client sends it
(I8). It does not try to write by itself either: handlers that store their progress are not allowed in it, and it
manages no webhook configurations and adds no finalizers.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import kopf

from kopf_ha import _kopf, _registry
from kopf_ha._context import entered_everywhere
from kopf_ha.errors import ConfigurationError
from kopf_ha.run.kopf_thread import LOOK, KopfOptions, KopfThread
from kopf_ha.run.webhooks import Bridge, are_served_everywhere, for_every_replica, for_terms, warn_of_certificate

logger = logging.getLogger("kopf_ha.everywhere")

#: Seconds for which webhooks are served after SIGTERM: a Service routes requests to the pod for a moment longer.
LINGER = 5.0
#: Kopf removes its finalizer from objects that its handlers do not need it for. So this Kopf gets another finalizer
#: than the Kopf of the terms, and no object carries it.
FINALIZER = "everywhere.kopf-ha.dev/none"

_MANAGED = (
    "settings.admission.managed is set for kopf_ha.everywhere: each replica would write the webhook configuration, and"
    " the first that stops would remove the webhooks; leave it unset, apply your own ValidatingWebhookConfiguration or"
    " MutatingWebhookConfiguration, and have cert-manager fill in its caBundle, or fill it in from your own CA"
)


class Everywhere:
    """One replica's Kopf for handlers that only read. It does nothing if there are none.

    Args:
        registry: the handlers. If it has no login handlers, those of the terms log in. If it has none at all, the
            webhooks of the terms' registry are served.
        options: as the operator's author gave them: the namespaces, and the registry of the terms.
        holder: the holder identity.
        failed: called with the cause, from its thread, when it ends without having been asked to.

    Attributes:
        for_terms: the options for the Kopf of each term, which leaves to this one what this one does.

    Raises:
        ConfigurationError: a handler has to write; the message names it.
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
            make_parts=dict,
            started=lambda: None,
        )
        self.for_terms = options
        self._bridge = Bridge() if are_served_everywhere(options.registry, registry) else None
        if self._bridge is not None:
            self._options, self.for_terms = for_every_replica(options), for_terms(options, self._bridge)
        self._holder = holder
        self._failed = failed
        self._serves = bool(_kopf.webhooks(self._options.registry))
        self._ready = False
        self._ended = threading.Event()
        self._thread = KopfThread(
            name="kopf-ha-everywhere",
            inside=entered_everywhere,
            main=self._main,
            root_ended=self._root_ended,
            over=self._end,
        )
        self.wanted = not _kopf.only_logs_in(self._options.registry)

    @property
    def ready(self) -> bool:
        """Whether the webhook server listens and the indices are filled. True if there are no handlers."""
        return not self.wanted or (self._ready and not self._ended.is_set())

    def start(self) -> None:
        """Run it in its own thread and event loop."""
        if self.wanted:
            self._thread.start()

    def stop(self, timeout: float, linger: float = 0.0) -> None:
        """Let requests in flight end, stop Kopf, and wait for it.

        Args:
            timeout: seconds to wait; what hangs longer ends with the process.
            linger: seconds to serve webhooks before that, since a Service routes requests here for a moment longer.
        """
        if not self._thread.started:
            return
        if linger and self._serves and not self._ended.is_set():
            logger.info("webhooks are served for %g s more, since Services may still route requests here", linger)
            self._ended.wait(linger)
        self._thread.stop()
        if not self._thread.join(timeout):
            logger.warning("kopf_ha.everywhere still runs %g s after it was asked to stop", timeout)

    def _end(self, error: BaseException | None) -> None:
        """Report that it ended, once, unless it was asked to."""
        if self._ended.is_set():
            return
        self._ended.set()
        if self._thread.asked:
            return
        error = (error.__cause__ or error) if error else None  # Kopf's own says only that handlers failed
        if isinstance(error, ConfigurationError):
            cause = str(error)
        else:
            cause = (
                f"{type(error).__name__}: {error}"
                if error
                else "Kopf stopped by itself; its log lines before this one say why"
            )
        logger.error("kopf_ha.everywhere ended: %s", cause)
        self._failed(f"kopf_ha.everywhere ended: {cause}")

    async def _main(self) -> None:
        settings, server = self._options.make_settings(), _Server(self._bridge)
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
        if not task.cancelled():  # Kopf cancels the others when one ends
            self._end(task.exception())
        self._thread.stop_kopf()

    def _look(self, server: _Server, operator: _kopf.SpawnedOperator) -> None:
        """Look until it is ready. A callback and not a task: Kopf would wait for a task when it stops."""
        if self._thread.asked or self._ended.is_set():
            return
        if not server.indexed.is_set() and operator.has_filled_indices():
            server.indexed.set()
        if server.indexed.is_set() and (server.listening or not self._serves):
            self._ready = True
            logger.info("kopf_ha.everywhere is up")
            return
        asyncio.get_running_loop().call_later(LOOK, self._look, server, operator)


class _Server:
    """Wraps the operator's webhook server, to see when it listens and to let requests wait for the indices.

    Args:
        bridge: is told the server's address, if the Kopf of a term may write it into webhook configurations.
    """

    def __init__(self, bridge: Bridge | None = None) -> None:
        self.listening = False
        self._bridge = bridge
        self.indexed = asyncio.Event()
        self._server: Any = None

    def configure(self, settings: kopf.OperatorSettings) -> None:
        """Overrule the settings that startup handlers may not choose here.

        Raises:
            ConfigurationError: Kopf is to write webhook configurations.
        """
        if self._bridge is None and settings.admission.managed is not None:
            raise ConfigurationError(_MANAGED)
        if self._bridge is not None:
            settings.admission.managed = None  # the leader writes it
            warn_of_certificate(settings.admission.server)
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
                    yield self._told(config)
        else:
            async for config in self._server(answered):
                yield self._told(config)

    def _told(self, config: Any) -> Any:
        self.listening = True
        if self._bridge is not None:
            self._bridge.tell(config)
        return config


def check(registry: kopf.OperatorRegistry) -> None:
    """Refuse handlers that have to write.

    Raises:
        ConfigurationError: there is one; the message names it.
    """
    for handler in _kopf.storing_handlers(registry):
        raise ConfigurationError(
            f"handler {handler} cannot run on every replica: Kopf writes the progress of change handlers, timers and"
            " daemons into their objects, and only the leader may write; remove registry=kopf_ha.everywhere, which is"
            " for webhooks, indices and event handlers that only read"
        )


def name_unserved(registry: kopf.OperatorRegistry, everywhere: kopf.OperatorRegistry | None = None) -> None:
    """Log who serves the webhooks of the terms' registry, and a warning for what its author may not expect.

    Args:
        registry: of the terms.
        everywhere: of every replica; `kopf_ha.everywhere` by default.
    """
    found = _kopf.webhooks(registry)
    if are_served_everywhere(registry, everywhere if everywhere is not None else _registry.everywhere()):
        logger.info(
            "every replica serves the webhooks %s: their handlers and indices run in no term, so they can only read;"
            " startup handlers run on every replica, and again in each term",
            ", ".join(found),
        )
    else:
        for webhook in found:
            logger.warning(
                "webhook %s is served by the leader only, so it is not served between two terms, since"
                " kopf_ha.everywhere has handlers; register it with registry=kopf_ha.everywhere, and every replica"
                " serves it",
                webhook,
            )
