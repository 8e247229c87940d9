"""Thousands of bound claims in seconds: copies of one that the operator bound, written into etcd while nobody leads.

By the API server they would take three requests each, and policies would refuse their stamps to an administrator. The
copies have what the original has, in its claim, its ConfigMap and its pool's record; names, uids and addresses differ.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import uuid
from collections.abc import Iterator
from typing import Any

import requests

from devcluster import ControlPlane

#: Keys that one transaction of etcd may write.
BATCH = 120
#: Writes of something else after that. A leader's early watch begins a thousand revisions before it leads, and in a
#: real cluster not all objects are as new as that.
LATER = 1100
#: Addresses of one pool, at most.
POOL = 1000
CLAIMS = "/registry/ipam.kopf-ha.dev/addressclaims/"
POOLS = "/registry/ipam.kopf-ha.dev/addresspools/"
MAPS = "/registry/configmaps/"


class Copies:
    """Writes copies.

    Args:
        plane: the cluster, which stores JSON.
        namespace: of the claims.
        original: the name of a bound claim there.
    """

    def __init__(self, plane: ControlPlane, namespace: str, original: str) -> None:
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = str(plane.etcd_ca)
        self._session.cert = (str(plane.etcd_cert), str(plane.etcd_key))
        self._url = plane.etcd_endpoints[0].rstrip("/")
        self._namespace = namespace
        self._claim = self._read(f"{CLAIMS}{namespace}/{original}")
        self._map = self._read(f"{MAPS}{namespace}/{original}-{self._claim['metadata']['uid'][:8]}")
        self._pool = self._read(POOLS + self._claim["spec"]["poolName"])

    def write(self, first: int, last: int) -> None:
        """Write the claims of these numbers, without the last, and the pools that record them."""
        pools: dict[int, dict[str, str]] = {}
        puts: list[tuple[str, dict[str, Any]]] = []
        for number in range(first, last):
            pool, place = divmod(number, POOL)
            address = str(ipaddress.ip_address(f"10.{100 + pool}.0.10") + place)
            uid, name = str(uuid.uuid4()), f"claim-{number:05}"
            pools.setdefault(pool, {})[address] = f"{self._namespace}/{name}/{uid}"
            puts += self._claim_puts(name, uid, pool, address)
        for pool, more in pools.items():
            key = f"{POOLS}copies-{pool}"
            body = self._read(key, needed=False) or self._new_pool(pool)
            body["status"]["allocations"].update(more)
            used, capacity = len(body["status"]["allocations"]), 4094
            body["status"] |= {"allocated": used, "free": capacity - used, "capacity": capacity}
            puts.append((key, body))
        for some in _batches(puts):
            wanted = [{"request_put": {"key": _64(key), "value": _64(_text(body))}} for key, body in some]
            self._ask("kv/txn", {"success": wanted})
        for number in range(LATER):
            self._ask("kv/put", {"key": _64("/copies"), "value": _64(str(number))})

    def _claim_puts(self, name: str, uid: str, number: int, address: str) -> Iterator[tuple[str, dict[str, Any]]]:
        old, was, had = self._claim, self._claim["metadata"], self._claim["spec"]["poolName"]
        pool = f"copies-{number}"
        swaps: tuple[tuple[str, str], ...] = (
            (was["uid"], uid),
            (f'"{was["name"]}"', f'"{name}"'),
            (old["status"]["address"], address),
            (f'"{had}"', f'"{pool}"'),
            (f"pool {had}.", f"pool {pool}."),
            (self._pool["spec"]["cidr"], _cidr(number)),
            (f'\\"{had}\\"', f'\\"{pool}\\"'),  # Kopf's annotation is a text in the text
        )
        child = f"{name}-{uid[:8]}"
        yield f"{CLAIMS}{self._namespace}/{name}", _swapped(old, swaps)
        own = self._map["metadata"]
        swaps = ((own["uid"], str(uuid.uuid4())), (f'"{own["name"]}"', f'"{child}"'), *swaps)
        yield f"{MAPS}{self._namespace}/{child}", _swapped(self._map, swaps)

    def _new_pool(self, number: int) -> dict[str, Any]:
        was = self._pool["metadata"]
        cidr = _cidr(number)
        body = _swapped(
            self._pool, ((was["uid"], str(uuid.uuid4())), (f'"{was["name"]}"', f'"copies-{number}"'),
                         (self._pool["spec"]["cidr"], cidr), (f'\\"{self._pool["spec"]["cidr"]}\\"', f'\\"{cidr}\\"'))
        )  # fmt: skip
        body["status"]["allocations"] = {}
        return body

    def _read(self, key: str, *, needed: bool = True) -> dict[str, Any]:
        found = self._ask("kv/range", {"key": _64(key)}).get("kvs") or ()
        if not found:
            if needed:
                raise AssertionError(f"etcd has no {key}")
            return {}
        return dict(json.loads(base64.b64decode(found[0]["value"])))

    def _ask(self, what: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._session.post(f"{self._url}/v3/{what}", json=body, timeout=60)
        answer.raise_for_status()
        return dict(answer.json())


def _cidr(number: int) -> str:
    return f"10.{100 + number}.0.0/20"


def _swapped(body: dict[str, Any], swaps: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    text = _text(body)
    for old, new in swaps:
        text = text.replace(old, new)
    return dict(json.loads(text))


def _text(body: dict[str, Any]) -> str:
    return json.dumps(body, separators=(",", ":"))


def _64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _batches(puts: list[tuple[str, dict[str, Any]]]) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    for begin in range(0, len(puts), BATCH):
        yield puts[begin : begin + BATCH]
