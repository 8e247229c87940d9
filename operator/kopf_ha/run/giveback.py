"""Gives memory back to the system after a term.

A term runs in a thread of its own, and glibc gives each thread one of many places to take memory from. What a term
used at its busiest (256 kB for each connection of asyncio, for example) stays with that place when the term is over,
and the next term often gets another one. So a replica that leads now and then would grow by some ten MB each time,
until all places are used. Connections that nobody closed are the same: a follower makes so few objects that Python
hardly ever looks for those that only refer to each other.

aiohttp raises one exception, which its module keeps, in whoever reads from a response that is closed. Python hangs each
frame that it passes on its traceback, so the watches of every term would stay, with all that the term refers to.
"""

from __future__ import annotations

import ctypes
import gc

from aiohttp import client_reqrep


def give_back() -> None:
    """Collect what nobody uses, and return free memory to the system, if the C library can.

    It takes about a tenth of a second, once for each term. The caller must not refer to the term any more.
    """
    closed = getattr(client_reqrep, "_CONNECTION_CLOSED_EXCEPTION", None)
    if isinstance(closed, BaseException):
        closed.__traceback__ = closed.__context__ = None
    gc.collect()
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return  # another library than glibc, which has other habits
    trim(0)
