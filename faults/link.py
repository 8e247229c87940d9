"""What stands between one replica and an API server: passes every request on, and can do what networks and servers do.

A link speaks HTTP/1.1 on both sides, with the API server's own certificate, so a replica sees no difference. It sees
each request as a whole, and so can hold one between the replica and the API server, or its answer after the API server
stored what it asked for. That is where faults bite. In a partition, a black hole is one for bytes: connections stay.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

#: Seconds between two looks at whether a replica has closed the connection of its watch.
LOOK = 0.25
WRITES = ("POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True)
class Request:
    """One request of a replica."""

    method: str
    target: str
    body: bytes = b""

    @property
    def text(self) -> str:
        """What patterns are looked for in: method, path and query, and body."""
        return f"{self.method} {self.target} {self.body.decode(errors='replace')}"

    @property
    def is_watch(self) -> bool:
        """Whether it is a watch."""
        return re.search(r"[?&]watch=(1|t)", self.target) is not None

    @property
    def is_write(self) -> bool:
        """Whether it writes something of ours: no Event, no Lease, no question about rights, no dry run."""
        other = re.search(r"/events|/leases|/terms|review|dryRun", self.target)
        return self.method in WRITES and other is None


Match = Callable[[Request], bool]


@dataclass
class Trap:
    """Holds one request of many, before it is passed on or with its answer.

    Args:
        match: which requests count.
        after: whether the answer is held, and not the request.
        nth: which of them.
    """

    match: Match
    after: bool = False
    nth: int = 1
    hit: threading.Event = field(default_factory=threading.Event)  #: set once it holds one
    request: Request | None = None
    _open: asyncio.Event = field(default_factory=asyncio.Event)
    deliver: bool = True  #: whether what was held is passed on in the end, or lost with its connection

    def takes(self, request: Request, *, after: bool) -> bool:
        """Whether it holds this one."""
        if after != self.after or self.hit.is_set() or not self.match(request):
            return False
        self.nth -= 1
        return self.nth == 0


class Lost(Exception):
    """The connection ends here."""


class Link:
    """A proxy in a thread of its own; runs from `start` to `stop`.

    Args:
        upstream: the URL of the API server.
        cert: the API server's certificate.
        key: its key.
        ca: by which the API server is verified.
    """

    def __init__(self, upstream: str, cert: str, key: str, ca: str) -> None:
        self._server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._server_side.load_cert_chain(cert, key)
        self._client_side = ssl.create_default_context(cafile=ca)
        self._upstream = upstream
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="link", daemon=True)
        self._connections: set[asyncio.Task[None]] = set()
        self._streams: dict[asyncio.Task[None], Request] = {}
        self._silent: set[asyncio.Task[None]] = set()
        self._trap: Trap | None = None
        self.heal()

    def heal(self) -> None:
        """Have it do nothing any more. What is held goes on, in order."""
        self.delay = 0.0  #: seconds that each request and each piece of an answer takes longer
        self.rate = 0.0  #: bytes a second that an answer may have; 0 for any number
        self.hears = self.tells = True  #: whether bytes reach the API server, and the replica
        self.holds: Match | None = None  #: requests that do not pass
        self.loses: Match | None = None  #: requests whose answer is lost, with the connection
        self.answers: Callable[[Request], bytes | None] | None = None  #: answers in the API server's place
        self.silences: Match | None = None  #: watches that bring nothing
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._silent.clear)

    # --- what a fault does

    def arm(self, match: Match, *, after: bool = False, nth: int = 1) -> Trap:
        """Hold the next request that matches, or its answer; give what tells when."""
        self._trap = Trap(match, after, nth)
        return self._trap

    def release(self, trap: Trap, *, deliver: bool = True) -> None:
        """Let go of what is held, if anything is."""
        trap.deliver = deliver
        self._trap = None
        self._loop.call_soon_threadsafe(trap._open.set)

    def silence(self, match: Match) -> None:
        """Have the watches that are open now, and that match, bring nothing more. New ones do."""

        def do() -> None:
            self._silent |= {task for task, request in self._streams.items() if match(request)}

        self._loop.call_soon_threadsafe(do)

    def cut(self, match: Match | None = None) -> None:
        """Close all connections, or those of the watches that match."""

        def do() -> None:
            for task in list(self._connections):
                if match is None or (task in self._streams and match(self._streams[task])):
                    task.cancel()

        self._loop.call_soon_threadsafe(do)

    def turn(self, upstream: str) -> None:
        """Have it use another API server, from now on and for all."""
        self._upstream = upstream
        self.cut()

    # --- running

    def start(self) -> None:
        """Listen, on a free port."""
        self._thread.start()
        self._server = self._run(
            asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._server_side, limit=1 << 20)
        )
        self.url = f"https://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def stop(self) -> None:
        """Close everything."""
        if self._thread.is_alive():
            self._run(self._end())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    async def _end(self) -> None:
        self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(_Connection(self, reader, writer).run())
        self._connections.add(task)
        await asyncio.wait([task])
        self._connections.discard(task)
        self._streams.pop(task, None)
        self._silent.discard(task)

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        at = urlsplit(self._upstream)
        return await asyncio.open_connection(at.hostname, at.port, ssl=self._client_side, limit=1 << 20)

    async def _trapped(self, request: Request, *, after: bool) -> None:
        trap = self._trap
        if trap is not None and trap.takes(request, after=after):
            trap.request = request
            trap.hit.set()
            await trap._open.wait()
            if not trap.deliver:
                raise Lost

    async def _passes(self, wanted: Callable[[], bool]) -> None:
        while not wanted():  # noqa: ASYNC110  other threads change it, so there is no event to wait for
            await asyncio.sleep(0.05)


class _Connection:
    """One connection of a replica."""

    def __init__(self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._link, self._reader, self._writer = link, reader, writer
        self._up: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def run(self) -> None:
        """Pass requests on until either side ends."""
        try:
            while True:
                await self._one()
        except (Lost, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass
        finally:
            for writer in (self._writer, *((self._up[1],) if self._up else ())):
                writer.transport.abort()

    async def _one(self) -> None:
        link = self._link
        head = await self._reader.readuntil(b"\r\n\r\n")
        fields = _fields(head)
        body = await self._reader.readexactly(int(fields.get("content-length", "0")))
        if "chunked" in fields.get("transfer-encoding", ""):
            body = b"".join([piece async for piece in _chunks(self._reader)])
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
        request = Request(method, target, body)
        await asyncio.sleep(link.delay)
        if link.answers is not None and (told := link.answers(request)) is not None:
            await self._tell(told)
            return
        await link._trapped(request, after=False)
        await link._passes(lambda: link.hears and not (link.holds and link.holds(request)))
        if self._up is None or self._up[0].at_eof():
            self._up = await link._open()
        reader, writer = self._up
        writer.write(head + body)
        await writer.drain()
        answer = await reader.readuntil(b"\r\n\r\n")
        await link._trapped(request, after=True)
        if link.loses and link.loses(request):
            raise Lost
        await self._answer(request, answer, reader)

    async def _answer(self, request: Request, head: bytes, reader: asyncio.StreamReader) -> None:
        fields, status = _fields(head), int(head.split(b" ", 2)[1])
        await self._tell(head)
        if request.method == "HEAD" or status in (204, 304):
            return
        if "chunked" in fields.get("transfer-encoding", ""):
            if request.is_watch:
                await self._stream(request, reader)
            else:
                async for piece in _chunks(reader):
                    await self._tell(piece)
        elif "content-length" in fields:
            await self._tell(await reader.readexactly(int(fields["content-length"])))
        else:
            await self._tell(await reader.read())
            raise Lost

    async def _stream(self, request: Request, reader: asyncio.StreamReader) -> None:
        """Pass a watch's events on, for as long as the replica listens."""
        link, me = self._link, asyncio.current_task()
        assert me is not None  # noqa: S101  a task runs this
        link._streams[me] = request

        async def events() -> None:
            async for piece in _chunks(reader):
                await link._passes(lambda: me not in link._silent and not (link.silences and link.silences(request)))
                await self._tell(piece)

        flow = asyncio.create_task(events())
        try:
            while not flow.done():
                await asyncio.wait([flow], timeout=LOOK)
                if self._reader.at_eof():
                    raise Lost
            flow.result()
        finally:
            flow.cancel()
            link._streams.pop(me, None)

    async def _tell(self, data: bytes) -> None:
        link = self._link
        await asyncio.sleep(link.delay + (len(data) / link.rate if link.rate else 0))
        await link._passes(lambda: link.tells)
        self._writer.write(data)
        await self._writer.drain()


async def _chunks(reader: asyncio.StreamReader) -> Any:
    """Yield the chunks of a body, each with its frame."""
    while True:
        size = await reader.readuntil(b"\r\n")
        length = int(size.split(b";")[0], 16)
        yield size + await reader.readexactly(length + 2)
        if not length:
            return


def _fields(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    return {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name}
