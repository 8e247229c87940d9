"""What Prometheus is told. One registry for each runner, so that an application's own metrics stay its own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from kopf_ha.adapters import Outcome
from kopf_ha.core.wire import WRITES
from kopf_ha.errors import ConfigurationError
from kopf_ha.settings import Settings


class Metrics:
    """The metrics of one replica.

    `leader_election_master_status` is named as Kubernetes' own components name it.
    """

    def __init__(self, settings: Settings) -> None:
        self.registry = CollectorRegistry()
        self._leads = Gauge(
            "leader_election_master_status",
            "1 while this replica leads, 0 while it follows.",
            ["name"],
            registry=self.registry,
        ).labels(settings.lease_name)
        self._token = Gauge("kopf_ha_token", "The token of this replica's newest term.", registry=self.registry)
        self._writes = Counter(
            "kopf_ha_writes",
            "Attempts to write by client and outcome: a status class, or the line of the fence that refused.",
            ["client", "outcome"],
            registry=self.registry,
        )
        self.missing = Gauge(
            "kopf_ha_not_enforced",
            "Protections that the API server lacks, as of the last term.",
            registry=self.registry,
        )

    def serve(self, port: int) -> None:
        """Serve them on all addresses; nowhere for port 0.

        Raises:
            ConfigurationError: the port cannot be had.
        """
        if not port:
            return
        try:
            start_http_server(port, registry=self.registry)
        except OSError as error:
            raise ConfigurationError(f"metrics cannot be served at port {port}: {error}") from error

    def leads(self, token: int) -> None:
        """Note a term's begin."""
        self._leads.set(1)
        self._token.set(token)

    def follows(self) -> None:
        """Note a term's end."""
        self._leads.set(0)

    def count(self, outcome: Outcome) -> None:
        """Count one attempt."""
        if outcome.request.method in WRITES:
            self._writes.labels(outcome.client, outcome.result).inc()
