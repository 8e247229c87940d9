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
    """

    lease_duration: float
    renew_deadline: float
    retry_period: float

    @property
    def spread(self) -> float:
        """How much later than planned a renewal or a retry may come."""
        return self.retry_period * (JITTER_FACTOR - 1)

    @property
    def request_timeout(self) -> float:
        """How long one request to the Lease may take: a second attempt must fit into the renew deadline."""
        return self.renew_deadline / 2
