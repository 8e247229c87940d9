"""The reference operator: an IP address manager (IPAM) on top of kopf_ha.

::

    handlers.py     Kopf handlers, thin: they report what changed to the term's memory
    allocator.py    the memory of one term: all pools and claims
    agenda.py       what the term still has to do, and when
    retries.py      does it
    claims.py       one claim: how it gets its address, and how the address is freed
    children.py     the ConfigMap that publishes a claim's address
    pools.py        one pool: who has which address, written in batches from memory
    pool_status.py  what a pool's status should say
    activation.py   how a pool becomes active
    conflicts.py    shows addresses that two claims have
    planning.py     the decisions: pure functions
    model.py        pools and claims as they were read, immutable
    conditions.py   the conditions in a status
    backoff.py      delays between retries
    writes.py       requests to the API server, by pykube-ng

Run it with ``kopf-ha run -m kopf_ha_ipam.handlers -A --deciding addresspools.ipam.kopf-ha.dev --barrier each``.
"""
