"""Lets one API server learn late what others write, while all that it reads and writes itself passes at once.

An API server hears of changes by etcd's watches. Whatever it answers from memory comes from there: watches and lists of
its clients, and its own informers, for example of the parameters of policies. `WatchLag` stands between one API server
and etcd, and holds back what the watches bring. Nothing else tells such a server from a healthy one: it gives 200 for
/readyz, and a GET or a write is as consistent as ever.

The API server has one connection for each resource, on which gRPC sends reads, writes and watches as HTTP/2 streams. So
bytes cannot be delayed (a TCP proxy would delay the reads, too), and only the frames of watches are.
"""

from __future__ import annotations

import asyncio
import math
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from devcluster.certs import Pki
from devcluster.errors import DevclusterError

#: Where the API server keeps all of its objects in etcd.
EVERYTHING = "/registry/"

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _WINDOW_UPDATE = 0, 1, 3, 4, 8
#: What a sender may send before the receiver asks for more (RFC 9113).
_WINDOW = 65535
#: What etcd may send ahead of that. It has to be able to send what is held back here.
_AHEAD = 1 << 30


class WatchLag:
    """A proxy in a thread of this process. As a context manager, it runs from entry to exit.

    Args:
        host: where it listens, and where etcd is.
        port: where it listens.
        etcd: the port of an etcd member, for clients.
        pki: keys and certificates. Like etcd, the proxy wants a client certificate.
    """

    def __init__(self, host: str, port: int, etcd: int, pki: Pki) -> None:
        self.url = f"https://{host}:{port}"
        self._host, self._port, self._etcd = host, port, etcd
        self._to_clients = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(pki.etcd_ca))
        self._to_clients.load_cert_chain(pki.etcd_server.cert, pki.etcd_server.key)
        self._to_clients.verify_mode = ssl.CERT_REQUIRED
        self._to_etcd = ssl.create_default_context(cafile=str(pki.etcd_ca))
        self._to_etcd.load_cert_chain(pki.etcd_client.cert, pki.etcd_client.key)
        for context in (self._to_clients, self._to_etcd):
            context.set_alpn_protocols(["h2"])
        self._delays = {EVERYTHING: 0.0}
        self._connections: set[_Connection] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="devcluster-watchlag", daemon=True)

    def __enter__(self) -> WatchLag:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen. Raises OSError if the port is taken."""
        self._thread.start()
        listens = asyncio.start_server(self._accept, self._host, self._port, ssl=self._to_clients)
        self._server = asyncio.run_coroutine_threadsafe(listens, self._loop).result()

    def stop(self) -> None:
        """Drop all connections, and end. Does nothing if it does not run."""
        if not self._thread.is_alive():
            return
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def delay(self, seconds: float, keys: str = EVERYTHING) -> None:
        """Have the API server learn of each change that many seconds late, from now on; 0 for at once.

        Args:
            seconds: the delay; `math.inf` holds everything back until the next call.
            keys: only of resources whose keys in etcd begin with this. If several calls fit, the longest text counts.
        """
        if seconds < 0 or math.isnan(seconds):
            raise DevclusterError("changes cannot be told before they happen")
        self._delays[keys] = seconds
        self._loop.call_soon_threadsafe(self._changed)

    def freeze(self, keys: str = EVERYTHING) -> None:
        """Have the API server learn nothing more until the next `delay`, which then tells all of it."""
        self.delay(math.inf, keys)

    def _delay_of(self, key: str) -> float:
        return self._delays[max((k for k in self._delays if key.startswith(k)), key=len)]

    def _changed(self) -> None:
        for connection in self._connections:
            connection.release_all()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            etcd = await asyncio.open_connection(self._host, self._etcd, ssl=self._to_etcd)
        except OSError:
            writer.close()
            return
        connection = _Connection(writer, etcd[1], self._delay_of)
        self._connections.add(connection)
        try:
            await connection.run(reader, etcd[0])
        finally:
            self._connections.discard(connection)

    async def _end(self) -> None:
        self._server.close()
        for connection in list(self._connections):
            connection.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait(others, timeout=5) if others else None


@dataclass
class _Watch:
    """The stream of a resource's watches: what came on it from etcd and was not passed on yet."""

    key: str
    credit: int  #: bytes that the API server is ready to take
    held: deque[tuple[float, bytes, int]] = field(default_factory=deque)  #: when it came, frame, bytes that count
    timer: asyncio.TimerHandle | None = None


class _Connection:
    """One connection of an API server to etcd."""

    def __init__(self, client: asyncio.StreamWriter, etcd: asyncio.StreamWriter, delay: Callable[[str], float]) -> None:
        self._client, self._etcd, self._delay = client, etcd, delay
        self._watches: dict[int, _Watch] = {}
        self._other: set[int] = set()  #: streams that are no watches
        self._window = _WINDOW

    async def run(self, client: asyncio.StreamReader, etcd: asyncio.StreamReader) -> None:
        """Pass everything on until one side ends."""
        ways = [asyncio.create_task(self._requests(client)), asyncio.create_task(self._answers(etcd))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.close()
            await asyncio.gather(*ways, return_exceptions=True)

    def close(self) -> None:
        for stream in list(self._watches):
            self._forget(stream)
        self._client.close()
        self._etcd.close()

    async def _requests(self, client: asyncio.StreamReader) -> None:
        self._etcd.write(await client.readexactly(len(_PREFACE)))
        first = True
        while True:
            kind, stream, head, payload = await _frame(client)
            if kind == _DATA and stream not in self._other and stream not in self._watches:
                self._learn(stream, payload)
            elif kind == _WINDOW_UPDATE and stream in self._watches:
                self._watches[stream].credit += int.from_bytes(payload) & 0x7FFFFFFF
                self._release(self._watches[stream])
            elif kind == _SETTINGS:
                self._settings(payload)
            elif kind == _RST_STREAM:
                self._forget(stream)
            self._etcd.write(head + payload)
            if first:  # after the client's settings, which have to be first
                self._etcd.write(_more(0))
                first = False
            await self._etcd.drain()

    async def _answers(self, etcd: asyncio.StreamReader) -> None:
        while True:
            kind, stream, head, payload = await _frame(etcd)
            watch = self._watches.get(stream)
            if watch is not None and kind == _DATA:
                watch.held.append((time.monotonic(), head + payload, len(payload)))
                self._release(watch)
                continue
            if watch is not None and kind in (_HEADERS, _RST_STREAM):
                # The end of the stream. Headers have to stay in their order among all streams.
                while watch.held:
                    self._client.write(watch.held.popleft()[1])
            if kind == _RST_STREAM or (kind == _HEADERS and head[4] & 1):
                self._forget(stream)
            self._client.write(head + payload)
            await self._client.drain()

    def _learn(self, stream: int, payload: bytes) -> None:
        key = watched_key(payload)
        if key is None:
            self._other.add(stream)
            return
        self._watches[stream] = _Watch(key, self._window)
        self._etcd.write(_more(stream))

    def _settings(self, payload: bytes) -> None:
        for at in range(0, len(payload), 6):
            if int.from_bytes(payload[at : at + 2]) == 4:  # SETTINGS_INITIAL_WINDOW_SIZE
                new = int.from_bytes(payload[at + 2 : at + 6])
                for watch in self._watches.values():
                    watch.credit += new - self._window
                self._window = new

    def _forget(self, stream: int) -> None:
        watch = self._watches.pop(stream, None)
        if watch is not None and watch.timer is not None:
            watch.timer.cancel()
        self._other.discard(stream)

    def release_all(self) -> None:
        """Pass on what is due."""
        for watch in list(self._watches.values()):
            self._release(watch)

    def _release(self, watch: _Watch) -> None:
        """Pass on what is due, if it can be taken, and come again when the next one is."""
        delay, now = self._delay(watch.key), time.monotonic()
        while watch.held and watch.held[0][0] + delay <= now and watch.held[0][2] <= watch.credit:
            _, frame, size = watch.held.popleft()
            watch.credit -= size
            self._client.write(frame)
        if watch.timer is not None:
            watch.timer.cancel()
            watch.timer = None
        if watch.held and delay < math.inf and watch.held[0][2] <= watch.credit:
            wait = watch.held[0][0] + delay - now
            watch.timer = asyncio.get_running_loop().call_later(wait, self._release, watch)


async def _frame(reader: asyncio.StreamReader) -> tuple[int, int, bytes, bytes]:
    """Read one frame of HTTP/2; give its type, its stream, its head and its payload."""
    head = await reader.readexactly(9)
    payload = await reader.readexactly(int.from_bytes(head[:3]))
    return head[3], int.from_bytes(head[5:]) & 0x7FFFFFFF, head, payload


def _more(stream: int) -> bytes:
    """Give the frame that lets a peer send more; on stream 0 for the whole connection."""
    return b"\x00\x00\x04\x08\x00" + stream.to_bytes(4) + _AHEAD.to_bytes(4)


def watched_key(payload: bytes) -> str | None:
    """Give the first key that a gRPC message asks etcd to watch; None if it is no WatchRequest that creates a watch.

    Field 1 of a WatchRequest is a message whose field 1 is the key. Field 1 of a RangeRequest is the key itself.
    """
    message = payload[5:]  # a flag for compression, which etcd's client does not use, and the length
    try:
        inner = _field_1(message)
        key = _field_1(inner)
    except (IndexError, ValueError):
        return None
    return key.decode(errors="replace") if key.startswith(EVERYTHING.encode()) else None


def _field_1(message: bytes) -> bytes:
    if message[0] != 0x0A:  # field 1, with a length
        raise ValueError("another field comes first")
    length, shift, at = 0, 0, 1
    while True:
        length |= (message[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if message[at - 1] < 0x80:
            break
    if at + length > len(message):
        raise ValueError("the field is longer than the message")
    return message[at : at + length]


__all__ = ["EVERYTHING", "WatchLag", "watched_key"]
