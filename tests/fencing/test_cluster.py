"""The clients on a real API server: terms that follow each other, children, options that must survive."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import kr8s
import kubernetes
import kubernetes.aio.client
import kubernetes.aio.config
import kubernetes_asyncio.client
import kubernetes_asyncio.config
import lightkube
import pytest
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import ConfigMap

from kopf_ha.errors import ForeignStamp, StaleLeader, StampDropped, Unfenced
from tests.core.fake_api import note
from tests.fencing.clients import CLIENTS, MERGE, Send, by_kubernetes, in_session
from tests.fencing.conftest import Terms, World
from tests.fencing.kinds import GROUP

APPLY = "application/apply-patch+yaml"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
#: One for each adapter, and so not both of lightkube's clients, and not what others are built on.
EVERY = pytest.mark.parametrize(
    "client", [name for name in CLIENTS if name not in ("easykube", "lightkube async", "requests")]
)


@pytest.fixture
def send(world: World, terms: Terms, client: str) -> Send:
    terms.lease = terms.fence.known.lease = f"{world.namespace}/op"
    return CLIENTS[client](world.kubeconfig)


def stamp_of(body: Any) -> tuple[int, str]:
    fencing = (body.get("status") or {}).get("fencing")
    if fencing:
        return int(fencing["token"]), str(fencing["holder"])
    notes = body["metadata"].get("annotations") or {}
    return int(notes.get("kopf-ha.dev/token", 0)), notes.get("kopf-ha.dev/holder", "")


def named(world: World, kind: str, name: str, **more: Any) -> dict[str, Any]:
    version = "v1" if kind == "ConfigMap" else f"{GROUP}/v1"
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": world.namespace}, **more}


@EVERY
@pytest.mark.parametrize(("kind", "plural"), [("Gadget", "gadgets"), ("Plain", "plains"), ("Bare", "bares")])
def test_terms_follow_each_other_on_one_object(world: World, terms: Terms, send: Send, kind: str, plural: str) -> None:
    """I1, I3: and a user's edit in between survives (I6)."""
    world.create(kind, "x", mine=0, theirs=0)
    path, resource = world.path(plural, "x"), f"{plural}.{GROUP}"
    with terms.term(7):
        assert send("PATCH", path, {"spec": {"mine": 7}}, MERGE)[0] == 200
        assert send("PATCH", path + "/status", {"status": {"a": "7"}}, MERGE)[0] == 200
        world.kubectl("patch", resource, "x", "--type=merge", "-p", '{"spec":{"theirs":1}}')
        assert send("PATCH", path, {"spec": {"mine": 8}}, MERGE)[0] == 200
    now = world.get(resource, "x")
    assert now["spec"] == {"mine": 8, "theirs": 1}
    assert stamp_of(now) == (7, "pod7")
    with terms.term(9):
        assert send("PATCH", path, {"spec": {"mine": 9}}, MERGE)[0] == 200
    before = world.get(resource, "x")
    assert stamp_of(before) == (9, "pod9")
    version = before["metadata"]["resourceVersion"]
    late: list[tuple[str, str, Any, str]] = [
        ("PATCH", path, {"spec": {"mine": 0}}, MERGE),
        ("PATCH", path + "/status", {"status": {"a": "0"}}, MERGE),
        ("PATCH", path, [{"op": "replace", "path": "/spec/mine", "value": 0}], JSON_PATCH),
        ("PATCH", path + "?fieldManager=late&force=true", named(world, kind, "x", spec={"mine": 0}), APPLY),
        ("PATCH", path, {"metadata": {"resourceVersion": version}, "spec": {"mine": 0}}, MERGE),
        ("PUT", path, {**before, "spec": {"mine": 0}}, "application/json"),
        ("DELETE", path, None, "application/json"),
        ("DELETE", path + "?dryRun=All", {"propagationPolicy": "Background"}, "application/json"),
    ]
    for request in late:
        with terms.term(7), pytest.raises(StaleLeader):
            send(*request)
    assert world.get(resource, "x") == before


@EVERY
def test_a_child_is_made_taken_over_and_closed_to_the_one_before(world: World, terms: Terms, send: Send) -> None:
    with terms.term(7):
        status, made = send("POST", world.maps(), named(world, "ConfigMap", "c", data={"by": "7"}))
        assert status == 201
        assert stamp_of(made) == (7, "pod7")
        assert set(made["metadata"]["annotations"]) == {
            note(terms.lease, "configmaps"),
            *(f"kopf-ha.dev/{k}" for k in ("token", "holder", "lease", "pod-uid")),
        }
    with terms.term(8):
        assert send("PATCH", world.maps("c"), {"data": {"by": "8"}}, MERGE)[0] == 200
    with terms.term(7), pytest.raises(StaleLeader):
        send("PATCH", world.maps("c"), {"data": {"by": "7"}}, MERGE)
    with terms.term(7), pytest.raises(StaleLeader):
        send("DELETE", world.maps("c"))
    now = world.get("configmap", "c")
    assert now["data"] == {"by": "8"}
    assert stamp_of(now) == (8, "pod8")
    with terms.term(8):
        assert send("DELETE", world.maps("c"))[0] == 200
    assert not world.there("configmap", "c")


@EVERY
@pytest.mark.parametrize("force", ["", "&force=true"])
@pytest.mark.parametrize("plural", ["configmaps", "gadgets"])
def test_a_later_term_applies_over_an_earlier_ones_apply(
    world: World, terms: Terms, send: Send, force: str, plural: str
) -> None:
    """The stamp is written by another manager than the apply; a second term must not conflict with it."""
    kind = "Gadget" if plural == "gadgets" else "ConfigMap"
    path = (world.path(plural, "x") if plural == "gadgets" else world.maps("x")) + "?fieldManager=op" + force
    plain = path.partition("?")[0]
    with terms.term(6):
        collection = plain.rpartition("/")[0]
        assert send("POST", collection, named(world, kind, "x"))[0] == 201
        assert send("PATCH", plain, {"metadata": {"labels": {"l": "1"}}}, MERGE)[0] == 200
    for token in (7, 8, 9):
        part = {"spec" if plural == "gadgets" else "data": {"by": str(token)}}
        with terms.term(token):
            status, answer = send("PATCH", path, named(world, kind, "x", **part), APPLY)
            assert status in (200, 201), answer
            status, answer = send("PATCH", path, named(world, kind, "x", **part), APPLY)
            assert status == 200, answer
    assert stamp_of(answer) == (9, "pod9")


@EVERY
def test_an_apply_of_a_status_by_term_after_term(world: World, terms: Terms, send: Send) -> None:
    world.create("Gadget", "x")
    for token in (7, 8):
        with terms.term(token):
            body = named(world, "Gadget", "x", status={"a": str(token)})
            status, answer = send("PATCH", world.path("gadgets", "x") + "/status?fieldManager=op", body, APPLY)
            assert status == 200, answer
    assert stamp_of(answer) == (8, "pod8")


@EVERY
def test_a_schema_that_keeps_half_of_the_stamp_ends_the_term(world: World, terms: Terms, send: Send) -> None:
    world.create("Frame", "x", a=1)
    with terms.term(7), pytest.raises(StampDropped, match=f"frames.{GROUP}"):
        send("PATCH", world.path("frames", "x"), {"spec": {"a": 2}}, MERGE)
    assert world.get(f"frames.{GROUP}", "x")["spec"] == {"a": 1}


@EVERY
def test_a_kind_with_a_version_without_the_stamp_is_written_by_none(world: World, terms: Terms, send: Send) -> None:
    """An edit by that version would remove the stamp, past the other one's rule (I1)."""
    world.create("Mixed", "x", a=1)
    for version in ("v1", "v1beta1"):
        with terms.term(7) as grant:
            with pytest.raises(Unfenced, match=r"version v1beta1 is served and lacks status\.fencing"):
                send("PATCH", world.path("mixeds", "x", version), {"spec": {"a": 2}}, MERGE)
            assert not grant.closed
    assert world.get(f"mixeds.{GROUP}", "x")["spec"] == {"a": 1}


@EVERY
def test_another_leases_object_is_left_alone_and_the_term_goes_on(world: World, terms: Terms, send: Send) -> None:
    world.create("Gadget", "x")
    fencing = {"lease": "other/op", "token": 3, "holder": "h", "podUID": "u"}
    patch = json.dumps({"status": {"fencing": fencing}})
    world.kubectl("patch", f"gadgets.{GROUP}", "x", "--subresource=status", "--type=merge", "-p", patch)
    with terms.term(7) as grant:
        with pytest.raises(ForeignStamp, match="two operators"):
            send("PATCH", world.path("gadgets", "x"), {"spec": {"a": 1}}, MERGE)
        assert not grant.closed


@EVERY
def test_the_rule_of_the_crd_is_recognised(world: World, terms: Terms, send: Send) -> None:
    """Line 3 alone, past line 2: what is known says that the object is mine at the revision it has."""
    world.create("Gadget", "x")
    path = world.path("gadgets", "x")
    with terms.term(7):
        send("PATCH", path + "/status", {"status": {"a": "7"}}, MERGE)
        patch = json.dumps({"status": {"fencing": {"token": 9, "holder": "pod9"}}})
        world.kubectl("patch", f"gadgets.{GROUP}", "x", "--subresource=status", "--type=merge", "-p", patch)
        key, known = next(iter(terms.fence.known.objects._revisions.items()))
        now = world.get(f"gadgets.{GROUP}", "x")["metadata"]["resourceVersion"]
        object.__setattr__(known, "version", now)
        assert terms.fence.known.objects.get(key) is known
        with pytest.raises(StaleLeader):
            send("PATCH", path + "/status", {"status": {"a": "x"}}, MERGE)
    assert [o.refused.answer.status for o in terms.outcomes if o.refused] == [422]


@EVERY
@pytest.mark.parametrize(("policy", "finalizer"), [("Orphan", "orphan"), ("Foreground", "foregroundDeletion")])
def test_a_delete_keeps_the_policy_of_its_query(
    world: World, terms: Terms, send: Send, policy: str, finalizer: str
) -> None:
    # The fence's preconditions need a body, and with one the API server does not read the query any more.
    world.create("Gadget", "x")
    with terms.term(7):
        status, answer = send("DELETE", world.path("gadgets", "x") + f"?propagationPolicy={policy}")
    assert status in (200, 202)
    assert answer["metadata"]["finalizers"] == [finalizer]
    assert stamp_of(answer) == (7, "pod7")


@EVERY
def test_the_put_of_a_built_in_status_keeps_the_stamp(world: World, terms: Terms, send: Send) -> None:
    """Found by trying: for most built-in kinds a PUT of /status sets the annotations, too."""
    world.kubectl("create", "service", "clusterip", "d", "--tcp=80")
    path = f"/api/v1/namespaces/{world.namespace}/services/d"
    with terms.term(7):
        for _ in range(10):
            body = world.get("service", "d")
            body["metadata"].pop("annotations", None)
            status, answer = send("PUT", path + "/status", {**body, "status": {"loadBalancer": {}}})
            if status != 409:  # the controller writes, too
                break
    assert status == 200, answer
    assert stamp_of(world.get("service", "d")) == (7, "pod7")


# --- as their users write


def test_a_stale_writer_by_kr8s(world: World, terms: Terms) -> None:
    """By its blocking API, too, which runs its own loop in a thread of its own."""
    terms.lease = terms.fence.known.lease = f"{world.namespace}/op"
    resource = {"metadata": {"name": "c", "namespace": world.namespace}, "data": {"by": "7"}}
    with terms.term(7):
        mine = kr8s.objects.ConfigMap(resource, api=kr8s.api(kubeconfig=world.kubeconfig))
        mine.create()
        mine.patch({"data": {"by": "kr8s"}})
        mine.label({"l": "1"})
        assert stamp_of(mine.raw) == (7, "pod7")
    with terms.term(8):
        assert by_kubernetes(world.kubeconfig)("PATCH", world.maps("c"), {"data": {"by": "8"}}, MERGE)[0] == 200
    lates: list[Any] = [lambda: mine.patch({"data": {"by": "7"}}), mine.delete, lambda: mine.label({"l": "2"})]
    for late in lates:
        with terms.term(7), pytest.raises(StaleLeader):
            late()
    now = world.get("configmap", "c")
    assert now["data"] == {"by": "8"}
    assert stamp_of(now) == (8, "pod8")
    assert {o.client for o in terms.outcomes} == {"httpx", "kubernetes"}
    with terms.term(9):  # its thread began in term 7
        mine.patch({"data": {"by": "9"}})
    assert stamp_of(world.get("configmap", "c")) == (9, "pod9")


def test_a_stale_writer_by_lightkube(world: World, terms: Terms) -> None:
    terms.lease = terms.fence.known.lease = f"{world.namespace}/op"
    client = lightkube.Client(config=lightkube.KubeConfig.from_file(world.kubeconfig), field_manager="op")
    made = ConfigMap(metadata=ObjectMeta(name="c", namespace=world.namespace), data={"by": "7"})
    with terms.term(7):
        client.create(made)
        client.patch(ConfigMap, "c", {"data": {"by": "lightkube"}}, namespace=world.namespace)
        made.data = {"by": "7 again"}
        assert stamp_of(client.apply(made, force=True).to_dict()) == (7, "pod7")
        read = client.get(ConfigMap, "c", namespace=world.namespace)
        client.replace(read)
    with terms.term(8):
        assert by_kubernetes(world.kubeconfig)("PATCH", world.maps("c"), {"data": {"by": "8"}}, MERGE)[0] == 200
    for late in (
        lambda: client.patch(ConfigMap, "c", {"data": {"by": "7"}}, namespace=world.namespace),
        lambda: client.apply(made, force=True),
        lambda: client.replace(read),
        lambda: client.delete(ConfigMap, "c", namespace=world.namespace),
    ):
        with terms.term(7), pytest.raises(StaleLeader):
            late()
    now = world.get("configmap", "c")
    assert now["data"] == {"by": "8"}
    assert stamp_of(now) == (8, "pod8")


@pytest.mark.parametrize("library", [kubernetes_asyncio, kubernetes.aio], ids=lambda library: library.__name__)
def test_a_stale_writer_by_an_async_client(world: World, terms: Terms, library: Any) -> None:
    terms.lease = terms.fence.known.lease = f"{world.namespace}/op"
    body = {"metadata": {"name": "c"}, "data": {"by": "7"}}

    async def writes(*what: str) -> None:
        configuration = library.client.Configuration()
        await library.config.load_kube_config(world.kubeconfig, client_configuration=configuration)
        async with library.client.ApiClient(configuration) as api:
            core = library.client.CoreV1Api(api)
            if "create" in what:
                await core.create_namespaced_config_map(world.namespace, body)
            if "patch" in what:
                await core.patch_namespaced_config_map("c", world.namespace, {"data": {"by": "patch"}})
            if "delete" in what:
                await core.delete_namespaced_config_map("c", world.namespace)

    with terms.term(7):
        asyncio.run(writes("create", "patch"))
    assert world.get("configmap", "c")["data"] == {"by": "patch"}
    with terms.term(8):
        assert by_kubernetes(world.kubeconfig)("PATCH", world.maps("c"), {"data": {"by": "8"}}, MERGE)[0] == 200
    for late in ("patch", "delete"):
        with terms.term(7), pytest.raises(StaleLeader):
            asyncio.run(writes(late))
    now = world.get("configmap", "c")
    assert now["data"] == {"by": "8"}
    assert stamp_of(now) == (8, "pod8")


# --- reads


def test_a_watch_streams_and_needs_no_term(world: World, terms: Terms) -> None:
    configuration = kubernetes.client.Configuration()
    kubernetes.config.load_kube_config(world.kubeconfig, client_configuration=configuration)
    core = kubernetes.client.CoreV1Api(kubernetes.client.ApiClient(configuration))
    watch = kubernetes.watch.Watch()
    world.kubectl("create", "configmap", "first")
    seen = []
    for event in watch.stream(core.list_namespaced_config_map, world.namespace, timeout_seconds=60):
        name = event["object"].metadata.name
        seen.append(name)
        if name == "first":
            world.kubectl("create", "configmap", "second")  # only after the first event came through
        if name == "second":
            watch.stop()
    assert seen[-1] == "second"
    assert terms.outcomes == []


def test_kopfs_watch_streams_and_needs_no_term(world: World, terms: Terms) -> None:
    async def read(session: Any, server: str) -> list[str]:
        seen: list[str] = []
        async with session.get(f"{server}{world.maps()}?watch=true&timeoutSeconds=60") as got:
            async for line in got.content:
                seen.append(json.loads(line)["object"]["metadata"]["name"])
                if seen[-1] == "first":
                    world.kubectl("create", "configmap", "second")
                if seen[-1] == "second":
                    return seen
        return seen

    world.kubectl("create", "configmap", "first")
    assert in_session(world.kubeconfig, read)[-1] == "second"
    assert terms.outcomes == []


def test_a_dry_run_teaches_nothing_on_a_real_server(world: World, terms: Terms) -> None:
    terms.lease = terms.fence.known.lease = f"{world.namespace}/op"
    world.create("Gadget", "x", a=1)
    send = by_kubernetes(world.kubeconfig)
    path = world.path("gadgets", "x")
    with terms.term(7):
        assert send("PATCH", path + "/status?dryRun=All", {"status": {"a": "1"}}, MERGE)[0] == 200
        assert len(terms.fence.known.objects) == 0
        assert send("PATCH", path, {"spec": {"a": 2}}, MERGE)[0] == 200
    assert stamp_of(world.get(f"gadgets.{GROUP}", "x")) == (7, "pod7")
