"""When the operator's modules are loaded: at the start, or when the term begins.

A follower may follow for weeks. If a module reads objects while it is imported, and keeps them in a global (a list of
what exists), it would lead with what was true weeks ago. So a replica that sees such a read starts itself again, and
loads the modules in its first term, after the barrier: what they read then is current.

All other operators are loaded at the start only. So errors in them are known there, a takeover need not wait for
imports, and ports that a module opens are served by followers, too.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping

import kopf

from kopf_ha import _kopf, _registry, adapters
from kopf_ha.settings import Settings

logger = logging.getLogger("kopf_ha.run")

#: The signals that ask the process to stop. `cli` lets them through when it handles them.
ASKING = (signal.SIGTERM, signal.SIGINT)
#: Tells the second start of a process that the first one found the modules loadable.
_MARK = "_KOPF_HA_LOADS_IN_TERM"


def is_second_start() -> bool:
    """Return whether this process is to load the modules in its term. Its children do not see the mark."""
    return os.environ.pop(_MARK, "") == str(os.getpid())


def load_at_start(settings: Settings, load: Callable[[], None]) -> None:
    """Load the operator's modules. If they read objects meanwhile, start this process again and do not return."""
    environment, folder = dict(os.environ), os.getcwd()  # the modules may change both
    with adapters.noting_reads() as reads:
        load()
    if not reads or settings.fence != "full":
        return
    kinds = ", ".join(sorted(set(reads)))
    if why := _stays(settings):
        logger.warning(
            "the operator's modules read objects while they are imported (%s), and are not loaded again when a term"
            " begins, since %s: what they keep may be as old as this process; read it in an on.startup handler",
            kinds,
            why,
        )
        return
    logger.info(
        "the operator's modules read objects while they are imported (%s): starting again, to load them when the term"
        " begins",
        kinds,
    )
    start_again(environment, folder)


def _stays(settings: Settings) -> str:
    if settings.load == "start":
        return "--load is start"
    if settings.after_loss == "follow":
        return "--after-loss=follow keeps them for later terms"
    everywhere = _registry.everywhere()
    if _kopf.storing_handlers(everywhere) or not _kopf.only_logs_in(everywhere):
        return "handlers of kopf_ha.everywhere have to run before"
    if _kopf.webhooks(kopf.get_default_registry()):
        return "its webhooks have to be served before"
    return ""


def start_again(environment: Mapping[str, str], folder: str) -> None:
    """Replace this process by a new one with the same command and process id. Nobody has heard of the first one yet."""
    # Until the new program handles them. Before that, SIGTERM would end it, or, in process 1, be lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
    os.chdir(folder)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    command = [sys.executable, *sys.orig_argv[1:]]
    os.execve(sys.executable, command, {**environment, _MARK: str(os.getpid())})  # noqa: S606  it is our own command
