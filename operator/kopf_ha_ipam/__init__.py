"""The reference operator: an IP address manager (IPAM) on top of kopf_ha.

::

    handlers.py   thin Kopf handlers: what the world says goes into the term's memory
    claims.py     one claim: give an address, take it back, in the order that survives crashes
    pools.py      one pool: its record of who has what, written in batches from memory
    allocator.py  the memory of one term: all pools, who waits, what to look at again
    planning.py   the decisions, pure: no I/O, no clock
    writes.py     requests to the API server by pykube-ng
    model.py      what was read, as immutable values

Run it with ``kopf-ha run -m kopf_ha_ipam.handlers -A --deciding addresspools.ipam.kopf-ha.dev``.
"""
