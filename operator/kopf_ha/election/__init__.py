"""The leader election at work: everything between the Lease and the grant.

`Elector` is the thread that takes part. It drives the state machine of `kopf_ha.core.election` (`driver`), which
decides all that the protocol decides. `listwatch` brings the news of the Lease and of the Pods, `podjudge` tells which
holders are gone, and `runlock` which earlier processes of this pod are dead. Nothing here knows of Kopf, objects or
stamps: leadership and writes meet only at the grant.
"""

from kopf_ha.election.elector import Elector
from kopf_ha.election.replicas import PodWatcher
from kopf_ha.election.runlock import RunLock

__all__ = ["Elector", "PodWatcher", "RunLock"]
