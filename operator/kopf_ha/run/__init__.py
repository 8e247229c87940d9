"""Runs an operator in terms: a replica follows, leads and follows again in one process.

It joins two parts that know nothing of each other: the election, which creates a grant, and the adapters, which let
writes pass by it. In each term, Kopf runs once, in its own thread and event loop. `build` joins the parts, and `runner`
is where to begin to read.
"""

from kopf_ha.run.entry import operator, run
from kopf_ha.run.logs import TermFields

__all__ = ["TermFields", "operator", "run"]
