"""The parts of one replica, made and joined."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import kopf

import kopf_ha
from kopf_ha import _registry
from kopf_ha.adapters import KUBE_SYSTEM, Clusters
from kopf_ha.api import Api
from kopf_ha.core.fence import Fence
from kopf_ha.core.grant import Grant
from kopf_ha.election import Elector, PodWatcher, RunLock
from kopf_ha.run.credentials import make_client
from kopf_ha.run.ending import EXIT_EVERYWHERE
from kopf_ha.run.enforcement import Enforcement
from kopf_ha.run.everywhere import Everywhere
from kopf_ha.run.inbox import Ended, Held, Inbox, Load, Ordered, Quit, Reopened, Started, Stopped
from kopf_ha.run.journal import Journal
from kopf_ha.run.kopf_thread import KopfOptions
from kopf_ha.run.namespaces import Namespaces
from kopf_ha.run.preparation import Preparation
from kopf_ha.run.runner import Runner
from kopf_ha.run.selftest import SelfTest
from kopf_ha.run.term import Term
from kopf_ha.run.termobject import TermObject
from kopf_ha.settings import Settings
from kopf_ha.trace import Trace


def build(
    settings: Settings,
    options: KopfOptions,
    everywhere: kopf.OperatorRegistry | None = None,
    load: Callable[[], None] | None = None,
) -> Runner:
    """Make a replica that is ready to run. It reads credentials, and sends nothing yet.

    Args:
        settings: the replica's.
        options: for the Kopf of each term.
        everywhere: handlers that run on every replica; `kopf_ha.everywhere` by default.
        load: loads the operator's code when the first term begins; None if it is loaded.

    Raises:
        ConfigurationError: there are no credentials, a handler cannot run on every replica, a port is taken twice, or
            the trace cannot be written.
    """
    if options.liveness is not None:
        options.liveness.check(settings)
    inbox: Inbox = queue.SimpleQueue()
    namespaces = Namespaces(tuple(options.namespaces))
    journal = Journal(settings, lambda: Api(_client(fenced=False)))
    fence = Fence(settings.lease, settings.fence, settings.deciding, settings.exempt)
    trace = Trace(settings.trace, settings, kopf_ha.__version__) if settings.trace else None
    elector = Elector(
        settings,
        lambda: _client("-election", fenced=False),
        on_started=lambda grant: inbox.put(Started(grant)),
        on_stopped=lambda grant, cause: inbox.put(Stopped(grant, cause)),
        on_ordered=lambda grant, cause: inbox.put(Ordered(grant, cause)),
        on_held=lambda grant, cause: inbox.put(Held(grant, cause)),
        on_reopened=lambda grant: inbox.put(Reopened(grant)),
        on_new_leader=lambda holder, token: pods.nudge(),
        floor=lambda: fence.known.floor,
        observer=journal.metrics,
        record=trace.step if trace is not None else lambda event, now, wall, actions: None,
    )
    journal.watch(elector)
    term = TermObject(Api(_client(fenced=False)), settings, lambda: Api(_client(fenced=False)))
    enforcement = Enforcement(
        SelfTest(Api(_client(fenced=False)), settings, namespaces),
        fence,
        journal,
        token=lambda: elector.observed_token,
        required=settings.require_policies,
        tell=elector.note,
        hear=lambda: elector.observed.enforced if elector.observed else "",
        begin_again=lambda grant, cause: inbox.put(Ordered(grant, cause)),
        term=term,
    )
    pods = PodWatcher(
        settings,
        lambda: _client("-election", fenced=False),
        holder=lambda: elector.observed,
        gone=elector.holder_gone,
        head_start=elector.head_start,
        deleted=lambda cause: runner.quit(cause),
        confirm=enforcement.confirm,
    )
    on_all = Everywhere(
        everywhere if everywhere is not None else _registry.everywhere(),
        options,
        settings.identity,
        failed=lambda cause: inbox.put(Quit(cause, EXIT_EVERYWHERE)),
    )
    preparation = Preparation(
        api=Api(_client(fenced=True)),
        fence=fence,
        journal=journal,
        enforcement=enforcement,
        policies_first=settings.require_policies,
        term=term,
        namespaces=namespaces,
        each=settings.barrier == "each",
    )

    def prepare(grant: Grant) -> None:
        preparation.before_kopf(grant)
        if runner.load is not None:
            done: Future[None] = Future()
            inbox.put(Load(grant, done))
            done.result()

    def make_term(grant: Grant) -> Term:
        return Term(
            grant,
            on_all.for_terms,
            before=lambda: prepare(grant),
            beat=elector.beat,
            ended=lambda term, error: inbox.put(Ended(term, error)),
            asks=preparation.asks,
            pulse=min(1.0, settings.retry_period / 2),
        )

    runner = Runner(
        load=load,
        trace=trace,
        clusters=_clusters(),
        liveness=options.liveness,
        settings=settings,
        inbox=inbox,
        elector=elector,
        fence=fence,
        journal=journal,
        enforcement=enforcement,
        make_term=make_term,
        pods=pods,
        run_lock=RunLock(settings, elector.holder_gone),
        everywhere=on_all,
    )
    return runner


def _clusters() -> Clusters:
    client = _client("-clusters", fenced=False)
    return Clusters(lambda: Api(client).request("GET", KUBE_SYSTEM, timeout=10.0), client.configuration.host)


def _client(what: str = "", *, fenced: bool) -> Any:
    return make_client(f"kopf-ha{what}/{kopf_ha.__version__}", fenced=fenced)
