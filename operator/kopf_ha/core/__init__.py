"""The protocol: token, lease record, election, grant, fence.

Nothing here does I/O, reads a clock, starts a thread or knows asyncio: requests, answers and the time are
handed in, decisions come out. That makes every rule of the protocol a unit test with a hand-driven clock.
"""
