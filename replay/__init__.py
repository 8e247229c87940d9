"""Puts traces through the core again: did what shipped do what the core does?

    python -m replay a.trace b.trace
    python -m replay *.trace --etcd https://127.0.0.1:2379 --ca … --cert … --key …

A trace is what `kopf-ha run --trace FILE` wrote. Each step of the election's machine, and each step of each write of
the fence, is done again by the functions of `kopf_ha/core` from what the trace says came in. They must give the same
actions, requests and outcomes. With etcd's history, the traces of all replicas are joined with what was stored: who is
stamped as the writer did send the write, in a term of its own, with a grant that its election gave it.
"""

from replay.again import Difference, redo
from replay.joined import join
from replay.tracefile import Line, Run, TraceError, read

__all__ = ["Difference", "Line", "Run", "TraceError", "join", "read", "redo"]
