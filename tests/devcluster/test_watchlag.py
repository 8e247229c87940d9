"""Which of etcd's streams are watches; tests/fourth_line has a real API server that lags."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from devcluster import DevclusterError
from devcluster.certs import make
from devcluster.watchlag import WatchLag, watched_key

KEY = b"/registry/kopf-ha.dev/terms/"


def field(number: int, content: bytes) -> bytes:
    size = len(content)
    length = bytes([size]) if size < 128 else bytes([size & 0x7F | 0x80, size >> 7])
    return bytes([number << 3 | 2]) + length + content


def message(content: bytes) -> bytes:
    """Frame it as gRPC does."""
    return b"\x00" + len(content).to_bytes(4) + content


@pytest.mark.parametrize("key", [KEY, b"/registry/" + b"x" * 200])
def test_a_watch_is_known_by_its_first_message(key: bytes) -> None:
    create = field(1, key) + field(2, key[:-1] + b"0") + b"\x18\x07"
    assert watched_key(message(field(1, create))) == key.decode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        field(1, KEY),  # RangeRequest
        field(1, KEY) + field(2, b"value"),  # PutRequest
        field(1, b"\x10\x03" + field(3, KEY)),  # TxnRequest: a comparison comes first
        field(1, b"\x08\x02"),
        field(3, b""),  # WatchRequest that asks for progress
        b"\x0a\x7f\x0a",
        b"\x0a\xff",
    ],
)
def test_what_is_no_watch(content: bytes) -> None:
    assert watched_key(message(content)) is None


def test_a_delay_that_is_none(tmp_path: Path) -> None:
    lag = WatchLag("127.0.0.1", 0, 0, make(tmp_path / "pki"))
    for seconds in (-1.0, float("nan")):
        with pytest.raises(DevclusterError):
            lag.delay(seconds)


def test_the_longest_prefix_that_fits_counts(tmp_path: Path) -> None:
    lag = WatchLag("127.0.0.1", 0, 0, make(tmp_path / "pki"))
    lag.delay(3.0, KEY.decode())
    assert [lag._delay_of(key) for key in (KEY.decode(), "/registry/pods/")] == [3.0, 0.0]
    lag.delay(1.0)
    lag.freeze("/registry/pods/")
    assert [lag._delay_of(f"/registry/{k}/") for k in ("kopf-ha.dev/terms", "pods", "nodes")] == [3.0, math.inf, 1.0]
