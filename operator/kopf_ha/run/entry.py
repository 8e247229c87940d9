"""The two ways to run an operator: in a command's main thread, and as a coroutine of an application."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import kopf

from kopf_ha import adapters
from kopf_ha.errors import ConfigurationError, KopfHAError, TermEnded
from kopf_ha.run.build import build
from kopf_ha.run.ending import EXIT_EVERYWHERE, EXIT_SIGNAL, EXIT_UNFENCED
from kopf_ha.run.everywhere import name_unserved
from kopf_ha.run.kopf_thread import KopfOptions
from kopf_ha.run.loading import is_second_start, load_at_start
from kopf_ha.run.threads import in_thread
from kopf_ha.settings import Settings

logger = logging.getLogger("kopf_ha.run")


def options_for(
    registry: kopf.OperatorRegistry | None, namespaces: tuple[str, ...], clusterwide: bool, **more: Any
) -> KopfOptions:
    """Return the options for the Kopf of each term.

    Raises:
        ConfigurationError: both `namespaces` and `clusterwide` are given.
    """
    if namespaces and clusterwide:
        raise ConfigurationError("give either namespaces or clusterwide=True, not both")
    return KopfOptions(
        registry=registry if registry is not None else kopf.get_default_registry(),
        namespaces=namespaces,
        clusterwide=clusterwide or not namespaces,
        **{k: v for k, v in more.items() if v is not None},
    )


def run(
    settings: Settings,
    *,
    registry: kopf.OperatorRegistry | None = None,
    namespaces: tuple[str, ...] = (),
    clusterwide: bool = False,
    prepare: Callable[[], None] = lambda: None,
) -> int:
    """Run an operator in the main thread until SIGTERM or SIGINT; return the exit status.

    A second signal ends the process without waiting for handlers.

    Args:
        settings: of the Lease and the fence.
        registry: the handlers; Kopf's default registry by default.
        namespaces: those to serve; all if empty.
        clusterwide: serve all namespaces.
        prepare: loads the operator's code; called after the clients are fenced. If the code reads objects, the process
            is started again, and calls it when its term begins.

    Raises:
        ConfigurationError: an option or a handler is not allowed, or there are no credentials.
    """
    adapters.install()
    loads_in_term = is_second_start()
    if not loads_in_term:
        load_at_start(settings, prepare)
    options = options_for(registry, namespaces, clusterwide)

    def check_loaded() -> None:
        _name_uncovered()
        name_unserved(options.registry)

    def load() -> None:
        prepare()
        take_signals()  # the operator's code may have taken them
        check_loaded()

    if not loads_in_term:
        check_loaded()
    runner = build(settings, options, load=load if loads_in_term else None)

    def on_signal(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if runner.asked:
            # In a thread: the log's lock may be held by the code that the signal interrupted.
            threading.Thread(target=runner.abandon, args=(name, EXIT_SIGNAL + number), daemon=True).start()
        # Set by signals only: when the Pod's deletion was seen first, the kubelet's SIGTERM is the first one still.
        runner.asked = True
        runner.quit(name)

    def take_signals() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, on_signal)

    take_signals()
    return runner.run()


async def operator(
    settings: Settings | None = None,
    *,
    registry: kopf.OperatorRegistry | None = None,
    namespaces: tuple[str, ...] = (),
    clusterwide: bool = False,
    lifecycle: Any = None,
    make_settings: Callable[[], kopf.OperatorSettings] | None = None,
    make_memo: Callable[[], Any] | None = None,
    everywhere: kopf.OperatorRegistry | None = None,
) -> None:
    """Run a fenced operator inside an application, as `kopf.operator()` does; cancel it to stop.

    It returns by itself when the Pod is being deleted, as `kopf.operator()` does at a SIGTERM.

    Each term runs in its own thread and event loop, so that the Lease is not lost when the application's loop is
    blocked.

    Args:
        settings: of the Lease and the fence; read from ``KOPF_HA_*`` by default.
        registry: the handlers; Kopf's default registry by default.
        namespaces: those to serve; all if empty.
        clusterwide: serve all namespaces.
        lifecycle: Kopf's order of handlers.
        make_settings: makes Kopf's settings for a term.
        make_memo: makes the memo for a term.
        everywhere: handlers that run on every replica and only read; `kopf_ha.everywhere` by default.

    Raises:
        ConfigurationError: an option or a handler is not allowed, or there are no credentials.
        TermEnded: the Lease was lost and `after_loss` is `exit`.
        KopfHAError: the handlers that run on every replica ended; or `on_unfenced` is `exit`, and the operator's code
            tried a write that is refused in every term.
    """
    adapters.install()
    _name_uncovered()
    options = options_for(
        registry, namespaces, clusterwide, lifecycle=lifecycle, make_settings=make_settings, make_memo=make_memo
    )
    name_unserved(options.registry)
    given = settings or Settings.from_env()
    # Credentials may come from a program. Not in the loop's executor: its threads are the application's.
    runner = await in_thread(lambda: build(given, options, everywhere), "kopf-ha-build")
    done = in_thread(runner.run, "kopf-ha-runner")
    try:
        status = await asyncio.shield(done)
    except asyncio.CancelledError:
        runner.quit("cancelled")
        await asyncio.shield(done)
        raise
    if status == EXIT_EVERYWHERE:
        raise KopfHAError("kopf_ha.everywhere ended; the log names the cause")
    if status == EXIT_UNFENCED:
        raise KopfHAError("the operator's code tried a write that is refused in every term; the log names it")
    if status:
        raise TermEnded("the Lease was lost; the log names the cause")


def _name_uncovered() -> None:
    for name in adapters.uncovered():
        logger.warning(
            "%s is imported and not fenced: a stale leader's writes through it may be accepted; write with a client"
            " that is fenced",
            name,
        )
    if found := adapters.programs():
        logger.info("if this operator starts %s, what that writes is not fenced", " or ".join(found))
