"""Passes a connection on to a server, byte by byte: the middle of every proxy that looks at nothing."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

#: A connection, as asyncio hands it to a server.
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def dial(server: str) -> Streams:
    """Connect to the server of a URL."""
    parts = urlsplit(server)
    return await asyncio.open_connection(parts.hostname, parts.port)


async def relay(one: Streams, other: Streams) -> None:
    """Copy both ways until one end closes or breaks; then close both."""
    ways = [asyncio.create_task(_copy(one[0], other[1])), asyncio.create_task(_copy(other[0], one[1]))]
    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    for end in (one[1], other[1]):
        end.close()
    await asyncio.gather(*ways)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while block := await reader.read(1 << 16):
            writer.write(block)
            await writer.drain()
    except OSError:
        pass  # the other end is gone
