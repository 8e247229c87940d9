"""Gives memory back to the system after a term.

A term runs in a thread of its own, and glibc gives each thread one of many places to take memory from. What a term
used at its busiest (256 kB for each connection of asyncio, for example) stays with that place when the term is over,
and the next term often gets another one. So a replica that leads now and then would grow by some ten MB each time,
until all places are used. Connections that nobody closed are the same: a follower makes so few objects that Python
hardly ever looks for those that only refer to each other.
"""

from __future__ import annotations

import ctypes
import gc


def give_back() -> None:
    """Collect what nobody uses, and return free memory to the system, if the C library can.

    It takes about a tenth of a second, once for each term.
    """
    gc.collect()
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return  # another library than glibc, which has other habits
    trim(0)
