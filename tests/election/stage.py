"""Electors with threads, on a real API server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kubernetes import config
from kubernetes.client import ApiClient

from devcluster import Cluster
from devcluster.waiting import until
from kopf_ha.core.grant import Grant
from kopf_ha.election import Elector
from kopf_ha.settings import Settings
from testbed.replica import PATIENCE, TIMES
from tests.kit.world import World

#: So long that nothing which waits for an expiry passes a test.
LONG: dict[str, Any] = {"lease_duration": 900, "renew_deadline": 600, "retry_period": 2}


class Replica:
    """An elector, a heart that beats for it, and a record of what it was told."""

    def __init__(self, settings: Settings, make_client: Callable[[], ApiClient], floor: Callable[[], int]) -> None:
        self.settings = settings
        self.grants: list[Grant] = []
        self.stopped: list[tuple[int, str]] = []
        self.held: list[str] = []
        self.reopened: list[Grant] = []
        self.open_when_stopped: list[bool] = []
        self.leaders: list[tuple[str, int]] = []
        self.elector = Elector(
            settings,
            make_client,
            on_started=self.grants.append,
            on_stopped=self._on_stopped,
            on_held=lambda grant, cause: self.held.append(cause),
            on_reopened=self.reopened.append,
            on_new_leader=self._on_leader,
            floor=floor,
        )
        self.on_leader: Callable[[], None] = lambda: None
        self._dead = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)

    def start(self) -> Replica:
        self.elector.start()
        self._heart.start()
        return self

    def end(self) -> None:
        self._dead.set()
        self.elector.stop()

    def block(self) -> None:
        """Block the loop: no beat comes any more."""
        self._dead.set()

    @property
    def tokens(self) -> list[int]:
        return [grant.stamp.token for grant in self.grants]

    def leads(self) -> Replica:
        """Wait until it leads and was told so: the grant is open a moment before `on_started` is called."""
        until(f"{self.settings.identity} to lead", self._leads, PATIENCE)
        return self

    def _leads(self) -> bool:
        return self.elector.leading and self.elector.grant in self.grants

    def lost(self, cause: str) -> None:
        until(
            f"{self.settings.identity} to be lost because of {cause!r}",
            lambda: any(cause in text for _, text in self.stopped),
            PATIENCE,
        )

    def fails(self, cause: str) -> None:
        until(f"{self.settings.identity} to say {cause!r}", lambda: cause in self.elector.last_error, PATIENCE)

    def _on_leader(self, holder: str, token: int) -> None:
        self.leaders.append((holder, token))
        self.on_leader()

    def _on_stopped(self, grant: Grant, cause: str) -> None:
        self.open_when_stopped.append(not grant.closed)
        self.stopped.append((grant.stamp.token, cause))

    def _beat(self) -> None:
        while not self._dead.wait(0.1):
            self.elector.beat()


class Stage:
    """Makes replicas on one Lease, and plays the administrator."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.replicas: list[Replica] = []
        self._world = World(cluster, namespace)

    def replica(
        self,
        identity: str,
        *,
        start: bool = True,
        kubeconfig: Path | None = None,
        floor: Callable[[], int] = lambda: 0,
        client: Callable[[ApiClient], None] = lambda api: None,
        uid: str = "uid",
        **values: Any,
    ) -> Replica:
        times = TIMES | {"recovery": 0}  # most tests here are about how a term ends
        given: dict[str, Any] = times | {"lease_name": "op", "lease_namespace": self.namespace} | values
        settings = Settings(identity=identity, pod_uid=uid, **given)

        def make_client() -> ApiClient:
            api = config.new_client_from_config(str(kubeconfig or self.cluster.kubeconfig))
            client(api)
            return api

        replica = Replica(settings, make_client, floor)
        self.replicas.append(replica)
        return replica.start() if start else replica

    def kubectl(self, *args: str, **options: Any) -> str:
        return self.cluster.kubectl("-n", self.namespace, *args, **options).stdout

    def create(self, spec: dict[str, Any]) -> None:
        self._world.make_lease(**spec)

    def patch(self, **spec: Any) -> None:
        self._world.edit_lease(**spec)

    @property
    def spec(self) -> dict[str, Any]:
        return self._world.lease()
