"""Running an operator in terms: follower, leader, follower, in one process.

Joins what must not know each other: the election hands out a grant, the adapters put it to use, and Kopf runs
once per term in a thread and loop of its own. Signals are the runner's, the gate closes first, and what an
old term left behind is refused for good.
"""

from kopf_ha.run.entry import operator, run
from kopf_ha.run.logs import TermFields

__all__ = ["TermFields", "operator", "run"]
