"""The three clients, and where each one's attempts meet the fence.

Kopf's aiohttp session, the `kubernetes` client's urllib3 pool and pykube-ng's requests adapter: one call of
the fence each, below the client's own retries, so that every attempt is judged anew (I8). An adapter knows
its client and the fence, and nothing of Leases, terms or operators.

`install()` has to run before the operator's code is loaded; `uncovered()` names the clients that were
imported and are not fenced.
"""

from kopf_ha.adapters._install import install, uncovered
from kopf_ha.adapters._wiring import Outcome, Wiring, wired, wiring

__all__ = ["Outcome", "Wiring", "install", "uncovered", "wired", "wiring"]
