"""Fenced clients, and a term to write in. What the adapters change is put back."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import httpx
import httpx2
import kubernetes.aio.client.rest
import kubernetes_asyncio.client.rest
import pytest
from kubernetes.client import rest
from pykube.http import KubernetesHTTPAdapter
from requests.adapters import HTTPAdapter

from devcluster import Cluster
from kopf_ha import adapters
from kopf_ha._context import boottime, entered
from kopf_ha.adapters import Outcome, Wiring, _servers, wired
from kopf_ha.core.fence import Fence
from kopf_ha.core.grant import Grant
from kopf_ha.core.token import Stamp
from tests.fencing.http_fake import HttpFake
from tests.fencing.kinds import GROUP, KINDS
from tests.kit import world as kit
from tests.kit.world import apply_kinds


class Terms:
    """The fence of this process, and terms to enter."""

    def __init__(self, lease: str) -> None:
        self.lease = lease
        self.fence = Fence(lease)
        self.outcomes: list[Outcome] = []
        self.now = boottime

    def grant(self, token: int, left: float = 600.0) -> Grant:
        return Grant(Stamp(token, f"pod{token}", self.lease, f"uid-pod{token}"), boottime() + left)

    @contextlib.contextmanager
    def term(self, token: int) -> Iterator[Grant]:
        """Run the body in a term of a process that knows nothing of other terms."""
        self.fence.known.new_term()
        grant = self.grant(token)
        with entered(grant):
            yield grant


#: What the adapters change, as the clients have it.
PLAIN = [
    (owner, name, vars(owner)[name])
    for owner, names in (
        (rest.RESTClientObject, ("__init__", "request")),
        (kubernetes.aio.client.rest.RESTClientObject, ("__init__", "request")),
        (kubernetes_asyncio.client.rest.RESTClientObject, ("__init__", "request")),
        (KubernetesHTTPAdapter, ("_do_send",)),
        (HTTPAdapter, ("send",)),
        (httpx.HTTPTransport, ("handle_request",)),
        (httpx.AsyncHTTPTransport, ("handle_async_request",)),
        (httpx2.HTTPTransport, ("handle_request",)),
        (httpx2.AsyncHTTPTransport, ("handle_async_request",)),
    )
    for name in names
]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_servers, "_configured", set())
    for owner, name, plain in PLAIN:
        monkeypatch.setattr(owner, name, plain)
    adapters.install()


@pytest.fixture
def terms(installed: None) -> Iterator[Terms]:
    made = Terms("ns/op")
    with wired(Wiring(made.fence, made.outcomes.append, lambda: made.now())):
        yield made


@pytest.fixture
def http(terms: Terms, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpFake]:
    """The API server that a pod's environment names."""
    fake = HttpFake()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(fake.port))
    yield fake
    fake.close()


@pytest.fixture
def other(terms: Terms) -> Iterator[HttpFake]:
    """Another service."""
    fake = HttpFake()
    yield fake
    fake.close()


@pytest.fixture(scope="session")
def kinds(cluster: Cluster) -> Cluster:
    """Gadgets with a stamp, Frames whose schema keeps half of it, Plains without."""
    apply_kinds(cluster, *KINDS)
    return cluster


class World(kit.World):
    """One namespace, with objects of all kinds, by the names that kubectl has for them."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        super().__init__(cluster, namespace, GROUP)
        self.kubeconfig = str(cluster.kubeconfig)

    def get(self, plural: str, name: str) -> Any:
        return json.loads(self.kubectl("get", plural, name, "-o", "json").stdout)

    def there(self, kind: str, name: str) -> bool:
        return bool(self.kubectl("get", kind, name, "-o", "name", "--ignore-not-found").stdout)

    def maps(self, name: str = "") -> str:
        return f"/api/v1/namespaces/{self.namespace}/configmaps" + (f"/{name}" if name else "")


@pytest.fixture
def world(kinds: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("KUBECONFIG", str(kinds.kubeconfig))
    return World(kinds, namespace)
