"""A replica that elects with the `kubernetes` client's own module: a script, `KUBECONFIG NAMESPACE NAME IDENTITY`."""

from __future__ import annotations

import logging
import sys
import threading

from kubernetes import config
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock


def main() -> None:
    """Elect until the process ends, as the client's example does."""
    logging.basicConfig(level=logging.INFO)
    kubeconfig, namespace, name, identity = sys.argv[1:]
    config.load_kube_config(kubeconfig)
    settings = electionconfig.Config(
        LeaseLock(name, namespace, identity),
        lease_duration=15,
        renew_deadline=10,
        retry_period=2,
        onstarted_leading=threading.Event().wait,
        onstopped_leading=sys.exit,
    )
    leaderelection.LeaderElection(settings).run()


if __name__ == "__main__":
    main()
