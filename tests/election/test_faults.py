"""Lost means lost, for every cause, and each has its sentence."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import urllib3
from kubernetes.client import ApiClient

from devcluster import ControlPlane
from devcluster.waiting import until
from tests.election.stage import LONG, Replica, Stage


def nobody(stage: Stage, name: str = "nobody") -> Path:
    """A kubeconfig of a service account without any rights."""
    stage.kubectl("create", "serviceaccount", name)
    return stage.cluster.kubeconfig_for(stage.kubectl("create", "token", name).strip())


def test_without_permission_the_sentence_says_which_and_is_logged_once(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "kopf_ha.election")
    a = stage.replica("a", kubeconfig=nobody(stage))
    user = f"system:serviceaccount:{stage.namespace}:nobody"
    sentence = (
        f"no permission to list leases.coordination.k8s.io in namespace {stage.namespace} as {user}: this replica's"
    )
    a.fails(sentence)
    stage.kubectl("create", "role", "op", "--verb=get,list,watch,create,update", "--resource=leases")
    stage.kubectl("create", "rolebinding", "leases", "--role=op", f"--serviceaccount={stage.namespace}:nobody")
    a.leads()
    assert a.elector.last_error == ""
    assert len([r for r in caplog.records if r.levelname == "WARNING" and sentence in r.getMessage()]) == 1
    assert any("works again" in r.getMessage() for r in caplog.records)


def test_without_permission_to_update_the_watch_works_and_the_sentence_names_the_verb(stage: Stage) -> None:
    path = nobody(stage)
    stage.kubectl("create", "role", "op", "--verb=get,list,watch", "--resource=leases")
    stage.kubectl("create", "rolebinding", "op", "--role=op", f"--serviceaccount={stage.namespace}:nobody")
    stage.create({"leaseTransitions": 1})
    a = stage.replica("a", kubeconfig=path)
    a.fails("no permission to update leases.coordination.k8s.io")


def test_permission_that_goes_ends_the_term(stage: Stage) -> None:
    path = nobody(stage)
    stage.kubectl("create", "role", "op", "--verb=get,list,watch,create,update", "--resource=leases")
    stage.kubectl("create", "rolebinding", "op", "--role=op", f"--serviceaccount={stage.namespace}:nobody")
    a = stage.replica("a", kubeconfig=path)
    a.leads()
    stage.kubectl("delete", "rolebinding", "op")
    a.lost("no permission to update leases.coordination.k8s.io")


def test_unknown_credentials(stage: Stage) -> None:
    a = stage.replica("a", kubeconfig=stage.cluster.kubeconfig_for("no-token-of-anybody"))
    a.fails("does not know these credentials (401)")


def test_a_namespace_that_does_not_exist(stage: Stage) -> None:
    a = stage.replica("a", lease_namespace="nowhere")
    a.fails("namespace nowhere does not exist")


def test_a_namespace_that_is_deleted_ends_the_term(stage: Stage) -> None:
    stage.kubectl("create", "configmap", "last")
    stage.kubectl("patch", "configmap", "last", "--type=merge", "-p", '{"metadata":{"finalizers":["x.example/y"]}}')
    try:
        a = stage.replica("a", **LONG)
        a.leads()
        stage.cluster.kubectl("delete", "namespace", stage.namespace, "--wait=false")
        a.lost("was deleted")
        a.elector.resume()
        a.fails(f"namespace {stage.namespace} is being deleted")
    finally:
        stage.kubectl("patch", "configmap", "last", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')


def test_nobody_listens(stage: Stage, tmp_path: Path) -> None:
    one = json.loads(stage.kubectl("config", "view", "--raw", "-o", "json"))
    one["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    path = tmp_path / "config"
    path.write_text(json.dumps(one))
    a = stage.replica("a", kubeconfig=path)
    a.fails("cannot reach the API server at https://127.0.0.1:1: connection refused")


def test_a_lease_made_by_hand_is_refused_and_its_sentence_repairs_it(stage: Stage) -> None:
    stage.create({})
    a = stage.replica("a")
    a.fails("leaseTransitions is missing")
    command = a.elector.last_error.split("kubectl ")[1].replace("'", "").replace("N}", "12}")
    stage.cluster.kubectl(*command.split())
    a.leads()
    assert a.tokens == [13]
    assert a.elector.last_error == ""


def test_a_counter_that_is_removed_ends_the_term(stage: Stage) -> None:
    a = stage.replica("a", **LONG)
    a.leads()
    stage.patch(leaseTransitions=None)
    a.lost("leaseTransitions is missing")


@pytest.mark.parametrize("how", ["stopped", "paused"])
def test_without_an_api_server_the_term_ends_and_begins_anew(
    stage: Stage, control_plane: ControlPlane, how: str
) -> None:
    """One that may recover goes on in the same term: nobody else acquired its Lease."""
    a, b = stage.replica("a"), stage.replica("b", lease_name="other", recovery=600)
    a.leads()
    b.leads()
    server = control_plane.apiserver(0)
    server.kill() if how == "stopped" else server.pause()
    try:
        a.lost("not renewed for")
        a.elector.resume()
        until("b to hold its grant", lambda: b.held)
        assert not b.elector.leading
    finally:
        server.start() if how == "stopped" else server.resume()
        server.wait_ready()
    _, cause = a.stopped[0]
    assert ("connection refused" if how == "stopped" else "gave no answer") in cause
    until("a new term", lambda: len(a.grants) == 2)
    assert a.tokens == [1, 2]
    until("the old term of b", lambda: b.reopened)
    assert b.elector.leading
    assert (b.tokens, b.stopped) == ([1], [])


def test_a_follower_outlives_an_api_server_and_its_watch(stage: Stage, control_plane: ControlPlane) -> None:
    a, b = stage.replica("a", **LONG), stage.replica("b", **LONG)
    until("one to lead", lambda: a.elector.leading or b.elector.leading)
    leader, follower = (a, b) if a.elector.leading else (b, a)
    server = control_plane.apiserver(0)
    server.kill()
    follower.fails("cannot reach the API server")
    server.start()
    server.wait_ready()
    until("the follower's watch", lambda: follower.elector.last_error == "")
    leader.elector.release(30)
    follower.leads()


class Losing:
    """Makes clients that lose the answers to some writes, which are done all the same."""

    def __init__(self, times: int) -> None:
        self.left = times
        self.lost: list[str] = []

    def __call__(self, api: ApiClient) -> None:
        inner = api.rest_client.request

        def request(method: str, url: str, *args: Any, **options: Any) -> Any:
            answer = inner(method, url, *args, **options)
            if method in ("PUT", "POST") and self.left > 0:
                self.left -= 1
                self.lost.append(f"{method} {answer.status}")
                answer.read()
                raise urllib3.exceptions.ProtocolError("Connection aborted.")
            return answer

        api.rest_client.request = request


def test_an_acquisition_whose_answer_is_lost_is_recognised(stage: Stage) -> None:
    losing = Losing(1)
    a = stage.replica("a", client=losing, **LONG)
    a.leads()
    assert losing.lost == ["POST 201"]
    assert a.tokens == [1]


def test_renewals_whose_answers_are_lost_cost_no_term(stage: Stage) -> None:
    losing = Losing(0)
    a = stage.replica("a", client=losing)
    a.leads()
    deadline = a.grants[0].deadline
    losing.left = 1
    until("a renewal after the lost one", lambda: losing.lost and a.grants[0].deadline > deadline)
    until("the next ones", lambda: a.elector.last_error == "")
    assert a.elector.leading
    assert a.tokens == [1]


def test_no_request_is_sent_again_by_the_client(stage: Stage) -> None:
    """A PUT that urllib3 sends again after a broken connection would be nobody's decision."""
    attempts: list[str] = []

    def breaking(api: ApiClient) -> None:
        pool = api.rest_client.pool_manager

        class Pool(urllib3.HTTPSConnectionPool):
            def _make_request(self, conn: Any, method: str, *args: Any, **options: Any) -> Any:
                if method in ("PUT", "POST"):
                    attempts.append(method)
                    raise urllib3.exceptions.ProtocolError("Connection aborted.")
                return super()._make_request(conn, method, *args, **options)

        pool.pool_classes_by_scheme = {"https": Pool}

    a = stage.replica("a", client=breaking, **LONG)
    a.fails("broke in POST /apis/coordination.k8s.io/v1/namespaces/")
    assert attempts == ["POST"]


def test_callbacks_that_fail_end_the_term_and_not_the_thread(stage: Stage) -> None:
    a = stage.replica("a", start=False)
    fail = [True]

    def on_started(grant: Any) -> None:
        a.grants.append(grant)
        if fail.pop():
            raise RuntimeError("the run layer's mistake")

    a.elector._leadership._on_started = on_started
    fail = [False, True]
    a.start()
    a.lost("on_started failed")
    a.elector.resume()
    until("a new term", lambda: len(a.grants) == 2)


def test_an_error_of_its_own_closes_the_grant_and_says_so(stage: Stage) -> None:
    a: Replica = stage.replica("a")
    a.leads()
    a.elector._driver._rules = None  # type: ignore[assignment]
    a.lost("by an error of its own")
    until("the end", lambda: a.elector.state == "stopped")
    assert "by an error of its own" in a.elector.last_error
