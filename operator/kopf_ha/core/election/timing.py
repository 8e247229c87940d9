"""The election's durations."""

from __future__ import annotations

from dataclasses import dataclass

#: Waits are lengthened at random by up to this factor, as in client-go, so that replicas do not act in step.
JITTER_FACTOR = 1.2


@dataclass(frozen=True, slots=True)
class Timing:
    """Durations in seconds, with lease_duration > renew_deadline > retry_period × JITTER_FACTOR.

    `kopf_ha.settings.Settings` checks the inequalities.

    Args:
        lease_duration: how long followers wait for a leader that does not renew; whole seconds.
        renew_deadline: how long a leader tries to renew before it gives up.
        retry_period: between two renewals or two attempts to acquire.
        recovery: how long after the renew deadline a term may still go on, with its gate held until the Lease is
            renewed; 0 ends it at the renew deadline.
    """

    lease_duration: float
    renew_deadline: float
    retry_period: float
    recovery: float = 0.0

    @property
    def spread(self) -> float:
        """How much later than planned a renewal or a retry may come."""
        return self.retry_period * (JITTER_FACTOR - 1)

    @property
    def request_timeout(self) -> float:
        """How long one request to the Lease may take: a second attempt must fit into the renew deadline."""
        return self.renew_deadline / 2

    @property
    def recovery_pause(self) -> float:
        """How long to wait between two attempts while the gate is held. Followers try every retry period.

        So after an outage the old leader is usually first, and its term goes on.
        """
        return self.retry_period / 4
