"""A replica from before kopf-ha: it leads by the election of the `kubernetes` package, and writes lines while it does.

Its argument names the lock's resource. `configmaps` is the package's own lock. `endpoints` keeps the record as old
client-go did, and gives it back at a SIGTERM as client-go does.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from typing import Any

from kubernetes import client, config
from kubernetes.client.rest import ApiException
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock

from tests.adoption.locks.op import line

KEY = "control-plane.alpha.kubernetes.io/leader"


class EndpointsLock:
    """client-go's `EndpointsLock`: the JSON of its `LeaderElectionRecord` in an annotation of an Endpoints object."""

    def __init__(self, name: str, namespace: str, identity: str) -> None:
        self.name, self.namespace, self.identity = name, namespace, identity
        self.api = client.CoreV1Api()
        self.seen: Any = None
        self.record: dict[str, Any] = {}

    def get(self, name: str, namespace: str) -> tuple[bool, Any]:
        try:
            self.seen = self.api.read_namespaced_endpoints(name, namespace)
        except ApiException as error:
            return False, error
        self.record = json.loads((self.seen.metadata.annotations or {}).get(KEY, "{}"))
        if not self.record.get("holderIdentity"):
            return True, None
        r = self.record
        return True, LeaderElectionRecord(
            r["holderIdentity"], r["leaseDurationSeconds"], r["acquireTime"], r["renewTime"]
        )

    def create(self, name: str, namespace: str, election_record: Any) -> bool:
        meta = {"name": name, "annotations": {KEY: json.dumps(self._json(election_record, 0))}}
        return self._done(lambda: self.api.create_namespaced_endpoints(namespace, client.V1Endpoints(metadata=meta)))

    def update(self, name: str, namespace: str, updated_record: Any) -> bool:
        transitions = int(self.record.get("leaderTransitions", 0))
        if self.record.get("holderIdentity") != updated_record.holder_identity:
            transitions += 1
        return self._put(self._json(updated_record, transitions))

    def release(self) -> None:
        self.get(self.name, self.namespace)
        if self.record.get("holderIdentity") == self.identity:
            self._put(self.record | {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": now()})

    def _put(self, record: dict[str, Any]) -> bool:
        self.seen.metadata.annotations = (self.seen.metadata.annotations or {}) | {KEY: json.dumps(record)}
        return self._done(lambda: self.api.replace_namespaced_endpoints(self.name, self.namespace, self.seen))

    @staticmethod
    def _json(record: Any, transitions: int) -> dict[str, Any]:
        return {
            "holderIdentity": record.holder_identity,
            "leaseDurationSeconds": int(record.lease_duration),
            "acquireTime": now(),
            "renewTime": now(),
            "leaderTransitions": transitions,
        }

    @staticmethod
    def _done(request: Any) -> bool:
        try:
            request()
        except ApiException:
            return False
        return True


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def lead() -> None:
    while True:
        line()
        time.sleep(0.05)


def lose() -> None:
    os._exit(1)  # as client-go's users do


def main() -> None:
    logging.basicConfig(level=logging.INFO)
    config.load_kube_config()
    sort = ConfigMapLock if sys.argv[1] == "configmaps" else EndpointsLock
    lock = sort("old", os.environ["POD_NAMESPACE"], os.environ["WHO"])

    def give_back(*_: Any) -> None:
        if isinstance(lock, EndpointsLock):
            lock.release()
        os._exit(0)

    signal.signal(signal.SIGTERM, give_back)
    times = {"lease_duration": 6, "renew_deadline": 5, "retry_period": 1}
    given = electionconfig.Config(lock, onstarted_leading=lead, onstopped_leading=lose, **times)
    leaderelection.LeaderElection(given).run()


if __name__ == "__main__":
    main()
