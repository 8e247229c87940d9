"""Gives memory back to the system after a term.

A term runs in a thread of its own, and glibc gives each thread one of many places to take memory from. What a term
used at its busiest (256 kB for each connection of asyncio, for example) stays with that place when the term is over,
and the next term often gets another one. So a replica that leads now and then would grow by some ten MB each time,
until all places are used.
"""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Return all memory that is free to the system, if the C library can. It takes milliseconds, without the GIL."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return  # another library than glibc, which has other habits
    trim(0)
