"""An API server that hears nothing of Terms any more: what it lets pass, and that its leader sees it."""

from __future__ import annotations

import kubernetes

from devcluster import ControlPlane
from devcluster.waiting import until
from kopf_ha._context import boottime
from kopf_ha.api import Api, single_attempts
from kopf_ha.core.grant import Grant
from kopf_ha.core.token import Stamp
from kopf_ha.run.termobject import TermObject
from kopf_ha.settings import Settings
from testbed.terms import Pod, Terms

#: How etcd's keys of Terms begin.
KEYS = "/registry/kopf-ha.dev/terms/"


def api(plane: ControlPlane, pod: Pod, server: int) -> Api:
    configuration = kubernetes.client.Configuration()
    config = str(plane.kubeconfig_for(pod.token, server))
    kubernetes.config.load_kube_config(config, client_configuration=configuration)
    configuration.retries = False
    return Api(single_attempts(kubernetes.client.ApiClient(configuration)))


def test_a_leader_sees_that_its_api_server_hears_nothing(cluster: ControlPlane, terms: Terms) -> None:
    old, new = terms.pod("old"), terms.pod("new")
    terms.take(old, old.raw())
    for server in (0, 1):
        until("both to hear of it", lambda: terms.is_heard(old, server) and not terms.is_heard(new, server))  # noqa: B023
    lease = terms.description.lease
    holder = f"new_{new.uid}_1"
    settings = Settings(
        lease_name=terms.name, lease_namespace=terms.namespace, identity=holder, pod_uid=new.uid, level="term"
    )
    mine = api(cluster, new, 1)
    term, grant = TermObject(mine, settings, lambda: mine), Grant(Stamp(2, holder, lease, new.uid), boottime() + 600)
    cluster.watch_lag.freeze(KEYS)
    try:
        term.write(grant)
        term.hear(grant)
        assert "has not heard of term 2, but knows term 1" in term.missing()[0]
        assert (terms.is_heard(new, 0), terms.is_heard(old, 0)) == (True, False)
        assert (terms.is_heard(new, 1), terms.is_heard(old, 1)) == (False, True), "the stale pod writes there"
    finally:
        cluster.watch_lag.delay(0.0, KEYS)
    until("it to hear again", lambda: terms.is_heard(new, 1) and not terms.is_heard(old, 1))
    term.look(grant)
    assert term.missing() == []
