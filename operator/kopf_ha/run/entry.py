"""The ways to run an operator: as the command `kopf-ha run`, and inside an application, with Kopf's own arguments."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from types import FrameType
from typing import Any, Unpack

import kopf

from kopf_ha import adapters
from kopf_ha.errors import KopfHAError, TermEnded
from kopf_ha.run import nested
from kopf_ha.run.arguments import Arguments, check, options_for, options_from
from kopf_ha.run.build import build
from kopf_ha.run.ending import EXIT_EVERYWHERE, EXIT_SIGNAL, EXIT_UNFENCED
from kopf_ha.run.everywhere import name_unserved
from kopf_ha.run.flags import raise_flag, watching
from kopf_ha.run.loading import is_second_start, load_at_start
from kopf_ha.run.runner import Runner
from kopf_ha.run.threads import in_thread
from kopf_ha.settings import Settings

logger = logging.getLogger("kopf_ha.run")


@nested.beside_me()
def run_program(
    settings: Settings,
    *,
    registry: kopf.OperatorRegistry | None = None,
    namespaces: tuple[str, ...] = (),
    clusterwide: bool = False,
    liveness_endpoint: str | None = None,
    prepare: Callable[[], None] = lambda: None,
) -> int:
    """Run an operator in the main thread until SIGTERM or SIGINT; return the exit status.

    A second signal ends the process without waiting for handlers.

    Args:
        settings: of the Lease and the fence.
        registry: the handlers; Kopf's default registry by default.
        namespaces: those to serve; all if empty.
        clusterwide: serve all namespaces.
        liveness_endpoint: the URL of Kopf's liveness endpoint, if it is served.
        prepare: loads the operator's code; called after the clients are fenced. If the code reads objects, the process
            is started again, and calls it when its term begins.

    Raises:
        ConfigurationError: an option or a handler is not allowed, or there are no credentials.
    """
    adapters.install()
    loads_in_term = is_second_start()
    if not loads_in_term:
        load_at_start(settings, prepare)
    # After that, since the operator's code may set another default registry.
    options = options_for(registry, namespaces, clusterwide, liveness=liveness_endpoint)

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


def run(
    ha: Settings | None = None, /, *, loop: asyncio.AbstractEventLoop | None = None, **given: Unpack[Arguments]
) -> None:
    """Run a fenced operator until it is stopped, as `kopf.run()` does.

    Args:
        ha: of the Lease and the fence; read from ``KOPF_HA_*`` by default.
        loop: runs `operator`; a new one by default.
        given: as for `operator`, which also says what is raised.
    """
    coroutine = operator(ha, **given)
    with contextlib.suppress(asyncio.CancelledError):
        if loop is not None:
            loop.run_until_complete(coroutine)
        else:
            asyncio.run(coroutine)


async def spawn_tasks(ha: Settings | None = None, /, **given: Unpack[Arguments]) -> Collection[asyncio.Task[Any]]:
    """Start a fenced operator as `kopf.spawn_tasks()` does. Hand the tasks to `kopf.run_tasks()`.

    There is one task, since Kopf's own run in the loop of each term. `operator` says what it takes and raises.
    """
    check(given)
    return [asyncio.create_task(operator(ha, **given), name="kopf-ha operator")]


async def operator(ha: Settings | None = None, /, **given: Unpack[Arguments]) -> None:
    """Run a fenced operator inside an application, as `kopf.operator()` does; cancel it or set its flag to stop.

    It returns by itself when the Pod is being deleted, as `kopf.operator()` does at a SIGTERM. In the main thread it
    takes SIGTERM and SIGINT, too, and gives them back in the end.

    Each term runs in its own thread and event loop, so that the Lease is not lost when the application's loop is
    blocked.

    Args:
        ha: of the Lease and the fence; read from ``KOPF_HA_*`` by default.
        given: what `kopf.operator()` takes; see `Arguments`.

    Raises:
        ConfigurationError: an option or a handler is not allowed, or there are no credentials.
        TermEnded: the Lease was lost and `after_loss` is `exit`.
        KopfHAError: the handlers that run on every replica ended; or `on_unfenced` is `exit`, and the operator's code
            tried a write that is refused in every term.
    """
    options, loop = options_from(given), asyncio.get_running_loop()
    if (ready := given.get("ready_flag")) is not None:
        options = replace(options, started=lambda: raise_flag(ready, loop))
    adapters.install()
    _name_uncovered()
    name_unserved(options.registry)
    settings, everywhere = ha or Settings.from_env(), given.get("everywhere")
    with nested.beside_me():
        # Credentials may come from a program. Not in the loop's executor: its threads are the application's.
        runner = await in_thread(lambda: build(settings, options, everywhere), "kopf-ha-build")
        stopped = watching(given.get("stop_flag"), lambda: runner.quit("the stop flag is raised"))
        with stopped, _taking_signals(runner.quit):
            status = await _until_over(runner)
    if status:
        raise _left(status)


async def _until_over(runner: Runner) -> int:
    done = in_thread(runner.run, "kopf-ha-runner")
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        runner.quit("cancelled")
        await asyncio.shield(done)
        raise


def _left(status: int) -> KopfHAError:
    if status == EXIT_EVERYWHERE:
        error = KopfHAError("kopf_ha.everywhere ended; the log names the cause")
    elif status == EXIT_UNFENCED:
        error = KopfHAError("the operator's code tried a write that is refused in every term; the log names it")
    else:
        error = TermEnded("the Lease was lost; the log names the cause")
    error.exit_status = status
    return error


@contextlib.contextmanager
def _taking_signals(then: Callable[[str], None]) -> Iterator[None]:
    """Call a function with the name of each SIGTERM and SIGINT, if this is the main thread, as Kopf does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        then(signal.Signals(number).name)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is on_signal:  # the application may have taken it meanwhile
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _name_uncovered() -> None:
    for name in adapters.uncovered():
        logger.warning(
            "%s is imported and not fenced: a stale leader's writes through it may be accepted; write with a client"
            " that is fenced",
            name,
        )
    if found := adapters.programs():
        logger.info("if this operator starts %s, what that writes is not fenced", " or ".join(found))
