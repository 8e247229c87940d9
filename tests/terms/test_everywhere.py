"""What runs on every replica: webhooks, indices and reading handlers, in no term."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kopf
import kubernetes
import pykube
import pytest
import requests

import kopf_ha
from devcluster import Cluster
from devcluster.ports import Ports
from devcluster.waiting import until
from kopf_ha._kopf import new_registry
from kopf_ha.errors import NoTerm
from kopf_ha.run.ending import EXIT_EVERYWHERE
from tests.run.support import GROUP, LONG, Marks, Rival, Running, World, caught, registry
from tests.terms.webhooks import Certificates, reject, until_rejected

Run = Callable[..., Running]
EVERYWHERE = "runs on every replica and in no term"


@pytest.fixture
def webhook(cluster: Cluster, world: World, tmp_path: Path) -> Iterator[kopf.WebhookServer]:
    """A server, and an API server that asks it about things of the test's namespace, but for one that is older."""
    world.create("Thing", "old", key="old")
    certificates = Certificates(tmp_path)
    ports = Ports()
    port = ports.take()
    ports.close()  # Kopf shares its port with others that want to, and cannot have a held one
    name = f"{world.namespace}.kopf-ha.test"
    rule = {"apiGroups": [GROUP], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["things"]}
    hook = {
        "name": name,
        "clientConfig": {"url": f"https://127.0.0.1:{port}/unique", "caBundle": certificates.bundle},
        "rules": [rule],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": world.namespace}},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    kind = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration"}
    cluster.kubectl("apply", "-f", "-", input=json.dumps(kind | {"metadata": {"name": name}, "webhooks": [hook]}))
    yield kopf.WebhookServer(
        addr="127.0.0.1", port=port, certfile=certificates.cert, pkeyfile=certificates.key, cafile=certificates.ca
    )
    cluster.kubectl("delete", f"validatingwebhookconfiguration/{name}")


def reading(marks: Marks, server: kopf.WebhookServer, gate: threading.Event) -> kopf.OperatorRegistry:
    """Handlers for every replica that try all they must not do, too."""
    made = new_registry()

    @kopf.on.startup(registry=made)
    def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.admission.server = server
        settings.posting.enabled = False
        settings.scanning.disabled = True
        # as in an operator that has one function for both registries
        settings.persistence.finalizer = f"{GROUP}/finalizer"
        marks.put("startup everywhere", caught(kopf_ha.current_term))

    @kopf.on.cleanup(registry=made)
    def end(**_: Any) -> None:
        marks.put("end", "everywhere")

    @kopf.index(GROUP, "v1", "things", registry=made, id="by_key")
    def by_key(name: str, spec: kopf.Spec, **_: Any) -> Any:
        assert gate.wait(LONG)
        return {spec.get("key"): name}

    @kopf.on.validate(GROUP, "v1", "things", registry=made, id="unique")
    def unique(spec: kopf.Spec, **others: Any) -> None:
        if spec.get("key") in others["by_key"]:
            raise kopf.AdmissionError(f"key {spec.get('key')} is taken", code=409)

    @kopf.on.event(GROUP, "v1", "things", registry=made)
    def event(name: str | None, namespace: str | None, patch: kopf.Patch, **_: Any) -> None:
        client = kubernetes.client.CustomObjectsApi(kubernetes.config.new_client_from_config())
        body = {"spec": {"by": "everywhere"}}
        write = client.patch_namespaced_custom_object
        marks.put("kubernetes", caught(lambda: write(GROUP, "v1", namespace, "things", name, body)))
        api = pykube.HTTPClient(pykube.KubeConfig.from_env())
        thing = pykube.object_factory(api, f"{GROUP}/v1", "Thing").objects(api, namespace=namespace).get(name=name)
        marks.put("pykube", caught(lambda: thing.patch(body)))
        marks.put("event", name)
        patch.spec["by"] = "everywhere"

    return made


def listens(server: kopf.WebhookServer) -> bool:
    try:
        socket.create_connection((server.addr, server.port), timeout=1).close()
    except OSError:
        return False
    return True


def allowed(server: kopf.WebhookServer, path: str, body: dict[str, Any]) -> bool:
    """Ask as an API server would."""
    resource = {"group": GROUP, "version": "v1", "resource": "things"}
    request = {"uid": "u", "operation": "CREATE", "resource": resource, "userInfo": {}, "object": body}
    url = f"https://{server.addr}:{server.port}/{path}"
    answer = requests.post(url, json={"request": request}, verify=str(server.cafile), timeout=LONG)
    return bool(answer.json()["response"]["allowed"])


def leading(marks: Marks) -> kopf.OperatorRegistry:
    made = registry()

    @kopf.on.create(GROUP, "v1", "things", registry=made)
    def created(name: str, patch: kopf.Patch, **_: Any) -> None:
        marks.put("created", name)
        patch.spec["by"] = "leader"

    @kopf.on.delete(GROUP, "v1", "things", registry=made)
    def deleted(**_: Any) -> None: ...

    kopf.on.cleanup(registry=made, id="end")(lambda **_: marks.put("end", "term"))
    return made


def test_follower_and_leader_serve_and_cannot_write(
    cluster: Cluster,
    run: Run,
    world: World,
    marks: Marks,
    webhook: kopf.WebhookServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "kopf.objects")
    thing = {"apiVersion": f"{GROUP}/v1", "kind": "Thing", "metadata": {"name": "x", "namespace": world.namespace}}
    taken, free = thing | {"spec": {"key": "k"}}, thing | {"spec": {"key": "other"}}
    rival = Rival(world.settings())
    try:
        until("the rival to lead", lambda: rival.grants, LONG)
        until_rejected(cluster, thing, "connection refused")
        gate = threading.Event()
        running = run(leading(marks), everywhere=reading(marks, webhook, gate))
        until("the server to listen", lambda: listens(webhook), LONG)
        assert not running.runner.everywhere.ready, "its index is not filled"
        gate.set()
        until("the webhooks", lambda: running.runner.everywhere.ready, LONG)
        # Followers answer, from what they have indexed.
        assert "key old is taken" in reject(cluster, thing | {"spec": {"key": "old"}})
        world.create("Thing", "a", key="k")
        until_rejected(cluster, taken, "key k is taken")
        assert reject(cluster, free) == ""
        assert [allowed(webhook, path, taken) for path in ("unique", "no-such-handler")] == [False, True]
        # Whatever is tried there, with each of the clients, stays there.
        marks.wait("event")
        until("Kopf's own patch", lambda: f"kopf: NoTerm: PATCH things.{GROUP}" in caplog.text, LONG)
        for client in ("kubernetes", "pykube"):
            error = marks.all(client)[0]
            assert isinstance(error, NoTerm)
            assert EVERYWHERE in str(error)
        assert EVERYWHERE in str(marks.all("startup everywhere")[0])
        assert "by" not in world.get("things", "a")["spec"]
        assert marks.all("created") == []
    finally:
        rival.stop()

    # It takes over: the same Kopf serves on, beside the term's.
    until("the leader's write", lambda: world.get("things", "a")["spec"].get("by") == "leader", LONG)
    assert "key k is taken" in reject(cluster, taken)
    token = world.lease()["leaseTransitions"]
    world.create("Thing", "b", key="second")
    until("the leader's handler", lambda: "b" in marks.all("created"), LONG)
    until("it to be indexed", lambda: "is taken" in reject(cluster, thing | {"spec": {"key": "second"}}), LONG)
    until("b to be seen everywhere, too", lambda: "b" in marks.all("event"), LONG)
    assert world.lease()["leaseTransitions"] == token, "a refusal there ends no term"
    # To its Kopf no handler needs the term's finalizer.
    until("it to be handled there with the term's finalizer", lambda: marks.all("event").count("a") > 1, LONG)
    assert "Removing the finalizer" not in caplog.text
    assert world.get("things", "a")["metadata"]["finalizers"] == [f"{GROUP}/finalizer"]
    assert len(marks.all("startup everywhere")) == 1, "once in the life of the process"

    # Asked to stop, it gives the Lease back at once, and is the last to go.
    running.runner.quit("the test is over")
    until("the release", lambda: not world.lease().get("holderIdentity"), LONG)
    assert "key k is taken" in reject(cluster, taken)
    assert running.wait() == 0
    assert marks.all("end") == ["term", "everywhere"]
    assert not running.runner.everywhere.ready


def test_its_end_ends_the_process(run: Run, world: World, marks: Marks, caplog: pytest.LogCaptureFixture) -> None:
    """Else webhooks would be dead while the process looks alive."""
    made = new_registry()

    @kopf.index(GROUP, "v1", "things", registry=made, id="by_key")
    def index(**_: Any) -> None: ...

    kopf.on.startup(registry=made, id="scan")(lambda settings, **_: setattr(settings.scanning, "disabled", True))

    @kopf.on.login(registry=made, errors=kopf.ErrorsMode.PERMANENT)
    def login(**_: Any) -> None:
        until("the term", lambda: marks.all("leads"), LONG)
        raise kopf.PermanentError("no password")

    handlers = registry()
    kopf.on.startup(registry=handlers, id="leads")(lambda **_: marks.put("leads"))
    kopf.on.cleanup(registry=handlers, id="end")(lambda **_: marks.put("end", kopf_ha.current_term().remaining() > 0))
    running = run(handlers, everywhere=made)
    assert running.wait() == EXIT_EVERYWHERE
    assert "kopf_ha.everywhere ended: PermanentError: no password" in caplog.text
    assert marks.all("end") == [True], "the term is drained"
    assert world.lease().get("holderIdentity", "") == "", "and another replica leads at once"
