"""Puts the fence into the clients: Kopf's aiohttp session, `kubernetes`, pykube-ng and requests, httpx and what is
built on it (kr8s, lightkube, easykube), and kubernetes_asyncio.

Each adapter calls the fence at one point below the client's own retries, so every attempt is judged (I8). There it also
notes reads (`_wiring.note_read`), unless only Kopf's handlers use the client. An adapter knows its client and the
fence. It does not know Leases, terms or operators.

Call `install()` before the operator's code is loaded. `uncovered()` and `programs()` name what no adapter reaches.
"""

from kopf_ha.adapters._clusters import PATH as KUBE_SYSTEM
from kopf_ha.adapters._clusters import Clusters
from kopf_ha.adapters._install import install, programs, uncovered
from kopf_ha.adapters._ports import open_ports, share_ports
from kopf_ha.adapters._waiting import may_begin
from kopf_ha.adapters._wiring import Outcome, Wiring, is_wired, noting_reads, refused_before, wired, wiring

__all__ = [
    "KUBE_SYSTEM",
    "Clusters",
    "Outcome",
    "Wiring",
    "install",
    "is_wired",
    "may_begin",
    "noting_reads",
    "open_ports",
    "programs",
    "refused_before",
    "share_ports",
    "uncovered",
    "wired",
    "wiring",
]
