"""A load balancer before several API servers: each connection goes to one of them, byte by byte."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from testbed.relay import dial, relay


@contextmanager
def balanced(servers: Sequence[str]) -> Iterator[str]:
    """Give the URL at which it listens, in a thread of its own, in the body of the `with` statement."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    # Not in turn: a client that opens two connections for each of its steps would write to one server only.
    dice = random.Random(1)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await relay((reader, writer), await dial(dice.choice(servers)))

    server = asyncio.run_coroutine_threadsafe(asyncio.start_server(accept, "127.0.0.1", 0), loop).result()
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
