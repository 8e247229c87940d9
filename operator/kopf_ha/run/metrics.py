"""The metrics for Prometheus: those of kopf-ha, in a registry of each runner, with the operator's own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.exposition import MetricsHandler
from prometheus_client.registry import Collector

from kopf_ha._context import boottime
from kopf_ha.adapters import Outcome
from kopf_ha.core.grant import Grant
from kopf_ha.core.history import EXPIRED, FAILED, FLOOR, GONE, HANDOVER, LOST, MENDED, PAUSED, RELEASED, STOPPED
from kopf_ha.core.target import parse_path
from kopf_ha.core.wire import WRITES
from kopf_ha.election.signs import Observer
from kopf_ha.errors import NoTerm, Refused, TermEnded, Unfenced
from kopf_ha.run.level import LEVELS
from kopf_ha.run.serving import Server
from kopf_ha.settings import Settings

#: Why a term ends: against the replica's will, with its process, or by choice, as `core.orders` puts it.
ENDS = (LOST, STOPPED, PAUSED, HANDOVER, MENDED)
#: How the term before ended, as the next leader learns it: also of a process that is gone and counts nothing itself.
#: `none`: there was no Lease. `other`: the Lease names a reason that this release does not know.
NONE, OTHER = "none", "other"
AFTER = (STOPPED, HANDOVER, PAUSED, MENDED, FAILED, LOST, FLOOR, EXPIRED, GONE, RELEASED, NONE, OTHER)
#: Buckets: from an answer of a near API server to a takeover that waited for a lease to expire and for a barrier.
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0)
#: The lines of the fence, in the words of docs/promises.md.
LINES = ("gate", "precondition", "server", "term")
#: How many kinds get their own label. Code that builds paths from its data must not fill Prometheus.
KINDS = 200

_KIND = re.compile(r"[a-z0-9][a-z0-9.-]{0,252}(/[a-z]{1,63})?")


class _OperatorsOwn(Collector):
    """The metrics that the operator's code registered in prometheus_client's default registry."""

    def collect(self) -> Iterator[Metric]:
        """Collect them at each scrape."""
        yield from REGISTRY.collect()


class Metrics(Observer):
    """The metrics of one replica. All but `kopf_ha_writes_total` have a value from the start.

    `leader_election_master_status` has the name that Kubernetes' own components use.
    """

    def __init__(self, settings: Settings) -> None:
        self.registry = registry = CollectorRegistry()
        name = settings.lease_name
        self._status = Gauge(
            "leader_election_master_status",
            "1 while this replica leads, 0 while it follows; name is the Lease's.",
            ["name"],
            registry=registry,
        ).labels(name)
        self._token = Gauge(
            "kopf_ha_token", "Token of this replica's newest term; 0 before the first.", ["name"], registry=registry
        ).labels(name)
        self._remaining = Gauge(
            "kopf_ha_lease_remaining_seconds",
            "Seconds for which this leader may still write without a renewal; 0 while it follows.",
            ["name"],
            registry=registry,
        ).labels(name)
        self._term = Gauge(
            "kopf_ha_term_seconds",
            "Seconds since this replica's present term began; 0 while it follows.",
            ["name"],
            registry=registry,
        ).labels(name)
        self._began = (0, 0.0)  #: the newest term's token, and when it began
        self._now: Callable[[], float] = boottime
        self._renew = self._histogram("kopf_ha_renew_seconds", "Latency of successful renewals of the Lease.", name)
        self._renew_failures = Counter(
            "kopf_ha_renew_failures",
            "Attempts to renew the Lease that were refused or got no answer.",
            ["name"],
            registry=registry,
        ).labels(name)
        self._takeover = self._histogram(
            "kopf_ha_takeover_seconds",
            "From the moment when the Lease was free (released, expired, its holder gone) to the begin of this term.",
            name,
        )
        begun = Counter(
            "kopf_ha_terms_begun",
            "Terms of this replica that began, by how the term before, of any replica, had ended.",
            ["name", "after"],
            registry=registry,
        )
        self._begun = {after: begun.labels(name, after) for after in AFTER}
        ended = Counter(
            "kopf_ha_terms_ended",
            "Terms of this replica that ended: lost, stopped with the process, or by choice: paused, handover, mended.",
            ["name", "reason"],
            registry=registry,
        )
        self._ended = {reason: ended.labels(name, reason) for reason in ENDS}
        self._paused = Gauge(
            "kopf_ha_paused",
            "1 while the Lease, as this replica sees it, is paused, so that nobody leads; 0 otherwise.",
            ["name"],
            registry=registry,
        ).labels(name)
        self._barrier = self._histogram(
            "kopf_ha_barrier_seconds", "Time to stamp all objects of the deciding kinds.", name
        )
        recoveries = Counter(
            "kopf_ha_recoveries",
            "Times that writes waited since the Lease could not be renewed, by how that ended: the term recovered, or"
            " was lost.",
            ["outcome"],
            registry=registry,
        )
        self._recoveries = {outcome: recoveries.labels(outcome) for outcome in ("recovered", "lost")}
        self._held = Gauge(
            "kopf_ha_held", "1 while writes of this leader wait since the Lease cannot be renewed.", registry=registry
        )
        self._writes = Counter(
            "kopf_ha_writes",
            "Attempts to write by client, kind and outcome: a status class, or the line of the fence that refused.",
            ["client", "kind", "outcome"],
            registry=registry,
        )
        refused = Counter(
            "kopf_ha_refused_writes",
            "Writes refused because their writer's term was over or had to end, by the line of the fence that refused.",
            ["line"],
            registry=registry,
        )
        self._refused = {line: refused.labels(line) for line in LINES}
        never = Counter(
            "kopf_ha_unfenced_refusals",
            "Writes that were refused and would be in every term, by the error: the operator's code has to change.",
            ["reason"],
            registry=registry,
        )
        self._never = {error.__name__: never.labels(error.__name__) for error in (NoTerm, Unfenced)}
        self.missing = Gauge(
            "kopf_ha_not_enforced", "Protections that the API server lacks, as of the last answer.", registry=registry
        )
        level = Gauge(
            "kopf_ha_enforced_level",
            "1 for the level at which the API server enforces the fence, as of this replica's last term; 0 for others.",
            ["level"],
            registry=registry,
        )
        self._levels = {name: level.labels(name) for name in LEVELS}
        self._aside = Gauge(
            "kopf_ha_set_aside",
            "Deciding objects that could not be stamped in the present term. Nothing is decided from them.",
            registry=registry,
        )
        self._kinds: set[str] = set()

    def _histogram(self, metric: str, text: str, name: str) -> Histogram:
        return Histogram(metric, text, ["name"], buckets=SECONDS, registry=self.registry).labels(name)

    def watch(
        self,
        grant: Callable[[], Grant | None],
        now: Callable[[], float] = boottime,
        paused: Callable[[], bool] = lambda: False,
    ) -> None:
        """Look at each scrape at what is left of the present term's grant, what is set aside in it, and the Lease.

        If this were noted when a term begins and ends, a leader that wakes from a pause would report that it leads.

        Args:
            grant: returns the present term's grant; None between terms.
            now: the machine's boot-time clock, in seconds.
            paused: returns whether the Lease is paused.
        """

        def remaining() -> float:
            present = grant()
            return present.remaining(now()) if present is not None else 0.0

        def aside() -> float:
            present = grant()
            return len(present.set_aside) if present is not None and present.remaining(now()) else 0.0

        def held() -> float:
            present = grant()
            return 1.0 if present is not None and present.held and not present.closed else 0.0

        def term() -> float:
            """Count on while the grant is held: the term may go on."""
            (token, began), present = self._began, grant()
            if present is None or present.stamp.token != token:
                return 0.0
            return now() - began if present.remaining(now()) or present.may_reopen(now()) else 0.0

        self._now = now
        self._term.set_function(term)
        self._held.set_function(held)
        self._remaining.set_function(remaining)
        self._status.set_function(lambda: 1.0 if remaining() > 0 else 0.0)
        self._aside.set_function(aside)
        self._paused.set_function(lambda: 1.0 if paused() else 0.0)

    def serve(self, port: int) -> Server | None:
        """Serve them on all addresses; return None for port 0.

        Raises:
            ConfigurationError: the port is not available.
        """
        if not port:
            return None
        self.registry.register(_OperatorsOwn())
        return Server("metrics", port, MetricsHandler.factory(self.registry))

    def leads(self, token: int, after: str = "") -> None:
        """Note that a term began.

        Args:
            token: of the term.
            after: how the term before ended, in a word; empty if there was none. The Lease says it, so it may be any.
        """
        self._began = (token, self._now())
        self._token.set(token)
        after = after or NONE
        self._begun[after if after in AFTER else OTHER].inc()

    def ended(self, reason: str) -> None:
        """Note that a term ended, for one of the reasons of `ENDS`."""
        self._ended[reason].inc()

    def renewed(self, seconds: float) -> None:
        """Note how long a renewal took."""
        self._renew.observe(seconds)

    def not_renewed(self) -> None:
        """Note a renewal that failed."""
        self._renew_failures.inc()

    def recovered(self) -> None:
        """Note that a term goes on after its writes waited."""
        self._recoveries["recovered"].inc()

    def not_recovered(self) -> None:
        """Note that a term ended while its writes waited."""
        self._recoveries["lost"].inc()

    def took_over(self, seconds: float) -> None:
        """Note how long the Lease was free before it was acquired."""
        self._takeover.observe(max(0.0, seconds))

    def enforces(self, level: str) -> None:
        """Note at which level the API server enforces the fence."""
        for name, gauge in self._levels.items():
            gauge.set(1.0 if name == level else 0.0)

    def barrier_took(self, seconds: float) -> None:
        """Note how long a barrier took."""
        self._barrier.observe(max(0.0, seconds))

    def count(self, outcome: Outcome) -> None:
        """Count one attempt to write."""
        if outcome.request.method not in WRITES:
            return
        self._writes.labels(outcome.client, self._kind(outcome.request.path), outcome.result).inc()
        if isinstance(outcome.refused, TermEnded):
            self._refused[outcome.refused.line].inc()

    def count_never(self, refused: Refused) -> None:
        """Count one write that is refused in every term."""
        self._never[NoTerm.__name__ if isinstance(refused, NoTerm) else Unfenced.__name__].inc()

    def _kind(self, path: str) -> str:
        """Return the kind of a path, or `OTHER` when too many kinds are known."""
        kind = kind_of(path)
        if kind not in self._kinds:
            if len(self._kinds) >= KINDS:
                return OTHER
            self._kinds.add(kind)
        return kind


def kind_of(path: str) -> str:
    """Return ``plural[.group][/subresource]`` of an API path, without any name; ``other`` for other paths."""
    target = parse_path(path)
    if target is None:
        return OTHER
    # In `services/x/proxy/a/b`, what follows the subresource is the service's own path.
    kind = target.kind + (f"/{target.subresource.partition('/')[0]}" if target.subresource else "")
    return kind if _KIND.fullmatch(kind) else OTHER
