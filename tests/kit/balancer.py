"""A load balancer before several API servers: each connection goes to the next one, byte by byte."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit


@contextmanager
def balanced(servers: Sequence[str]) -> Iterator[str]:
    """Give the URL at which it listens, in a thread of its own, in the body of the `with` statement."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    targets = itertools.cycle([(parts.hostname, parts.port) for parts in map(urlsplit, servers)])

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = next(targets)
        theirs = await asyncio.open_connection(host, port)
        ways = [asyncio.create_task(_copy(reader, theirs[1])), asyncio.create_task(_copy(theirs[0], writer))]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for end in (writer, theirs[1]):
            end.close()

    server = asyncio.run_coroutine_threadsafe(asyncio.start_server(accept, "127.0.0.1", 0), loop).result()
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while block := await reader.read(1 << 16):
            writer.write(block)
            await writer.drain()
    except OSError:
        pass  # the other end is gone
