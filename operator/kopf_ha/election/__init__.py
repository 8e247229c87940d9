"""The leader election at work: a thread that drives the state machine of `kopf_ha.core.election`.

Charter: everything between the Lease and the grant. `client` talks HTTP and turns what fails into sentences,
`watcher` tells what happens to the Lease, `pods` what becomes of the replicas' Pods, `runlock` of earlier processes
of my own; `elector` owns the thread, the clock and the timer. No rule of the protocol is decided here, and nothing
here knows of Kopf, objects or stamps: the two paths meet at the grant.
"""

from kopf_ha.election.elector import Elector
from kopf_ha.election.pods import PodWatcher
from kopf_ha.election.runlock import RunLock

__all__ = ["Elector", "PodWatcher", "RunLock"]
