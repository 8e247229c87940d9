"""Puts the fence into the three clients: Kopf's aiohttp session, the `kubernetes` client, and pykube-ng.

Each adapter calls the fence at one point below the client's own retries, so every attempt is judged (I8). There it also
notes reads (`_wiring.note_read`), unless only Kopf's handlers use the client. An adapter knows its client and the
fence. It does not know Leases, terms or operators.

Call `install()` before the operator's code is loaded. `uncovered()` names clients that are imported and not fenced.
"""

from kopf_ha.adapters._install import install, uncovered
from kopf_ha.adapters._wiring import Outcome, Wiring, noting_reads, refused_before, wired, wiring

__all__ = ["Outcome", "Wiring", "install", "noting_reads", "refused_before", "uncovered", "wired", "wiring"]
