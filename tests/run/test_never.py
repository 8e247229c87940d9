"""What the operator's code can never write does not vanish in its `except Exception`."""

from __future__ import annotations

import asyncio
import json
import logging
import urllib.request
from collections.abc import Callable
from typing import Any

import kopf
import kubernetes
import pytest

import kopf_ha
from devcluster.waiting import until
from kopf_ha.adapters import Outcome, _servers, refused_before
from kopf_ha.core.notes import ANNOTATION_TOKEN, as_metadata, notes_of
from kopf_ha.core.token import Stamp
from kopf_ha.core.wire import Request
from kopf_ha.errors import Denied, ForeignStamp, GateClosed, KopfHAError, NoTerm, Refused, SetAside, Unfenced
from kopf_ha.run.ending import EXIT_UNFENCED
from kopf_ha.run.health import answer, notes
from kopf_ha.run.inbox import Quit
from kopf_ha.run.journal import Journal
from kopf_ha.run.never import OTHERS, PATHS, Never
from testbed.ports import free_port
from tests.core.fake_api import CHILD
from tests.fencing.clients import CLIENTS, REPORTED
from tests.run.support import GROUP, LONG, Marks, Replica, Running, World, caught, make_runner, registry

PATH = "/api/v1/namespaces/ns/configmaps/a"
NO_TERM, UNFENCED = NoTerm("no term"), Unfenced("unknown")
#: Refusals that an object, the cluster or the end of the term is to blame for.
PASSING: list[Refused] = [
    GateClosed("x"),
    ForeignStamp("x"),
    Denied("x"),
    SetAside("x"),
    Unfenced("its annotations", by_object=True),
]


def outcome(
    error: Refused | None = NO_TERM, method: str = "PATCH", path: str = PATH, client: str = "pykube"
) -> Outcome:
    return Outcome(client, Request(method, path), None, error)


def posted(journal: Journal) -> list[tuple[str, str, str]]:
    """The events, each with the kind that it is about."""
    events: Any = journal.events
    return [(call.args[0].kind, call.args[1], call.args[2]) for call in events.post.call_args_list]


def counted(journal: Journal) -> dict[str, float | None]:
    value = journal.metrics.registry.get_sample_value
    return {r: value("kopf_ha_unfenced_refusals_total", {"reason": r}) for r in ("NoTerm", "Unfenced")}


@pytest.mark.parametrize("error", [NO_TERM, UNFENCED])
def test_it_is_told_from_the_first_one_on_and_once(
    journal: Journal, caplog: pytest.LogCaptureFixture, error: Refused
) -> None:
    name = type(error).__name__
    assert counted(journal) == {"NoTerm": 0, "Unfenced": 0}
    for _ in range(3):
        journal.wrote(outcome(error))
    assert counted(journal)[name] == 3
    assert [(kind, reason) for kind, reason, _ in posted(journal)] == [("Lease", "Unfenced"), ("Pod", "Unfenced")]
    assert f"refused in every term: pykube: {name}: {error}" in posted(journal)[1][2]
    assert len([r for r in caplog.records if r.levelno == logging.ERROR]) == 1
    assert journal.never.lines() == (f"{name}, pykube, PATCH configmaps: 3 attempts",)
    assert journal.report.fields("over", 0.0)["refused_in_every_term"] == {name: 3}
    assert f"refused: gate 3, in every term: {name} 3; cause: over" in journal.report.summary("over", 0.0)


@pytest.mark.parametrize("error", [*PASSING, None])
def test_nothing_else_is_taken_for_it(journal: Journal, error: Refused | None) -> None:
    """I10: an object that a user can edit is no reason, whatever it says."""
    runner = make_runner(journal, on_unfenced="exit")
    runner.on_outcome(outcome(error))
    assert counted(journal) == {"NoTerm": 0, "Unfenced": 0}
    assert posted(journal) == []
    assert journal.never.lines() == ()
    assert "refused_in_every_term" not in journal.report.fields("over", 0.0)
    assert runner.inbox.empty()


def test_reads_are_nothing_to_tell(journal: Journal) -> None:
    journal.wrote(outcome(method="GET"))
    assert posted(journal) == []


def test_one_event_for_each_code_path_and_a_limit() -> None:
    never = Never()
    assert never.add(outcome())
    assert never.add(outcome(client="kopf"))
    assert never.add(outcome(method="DELETE"))
    assert never.add(outcome(UNFENCED))
    assert never.add(outcome(path="/api/v1/namespaces/ns/secrets/a"))
    assert not never.add(outcome(path=PATH.replace("/ns/", "/other/") + "b")), "names tell no path from another"
    assert sum(never.add(outcome(path=f"/api/v1/namespaces/ns/kind{n}s/a")) for n in range(PATHS)) == PATHS - 5 + 1
    assert len(never.lines()) == PATHS + 1
    assert never.lines()[-1] == f"{OTHERS}: 5 attempts"


def test_verbose_readiness_shows_it_and_does_not_fail(journal: Journal) -> None:
    runner = make_runner(journal)
    runner.on_outcome(outcome())
    seen = notes(runner.vitals())
    assert seen == ["a write that is refused in every term: NoTerm, pykube, PATCH configmaps: 1 attempt"]
    status, text = answer("/readyz", [("election", "")], verbose=True, notes=seen)
    assert (status, text) == (200, f"[+]election ok\n[!]{seen[0]}\nreadyz check passed\n")
    assert answer("/readyz", [("election", "")], verbose=False, notes=seen) == (200, "ok\n")


def test_by_default_the_process_goes_on(journal: Journal) -> None:
    runner = make_runner(journal)
    runner.on_outcome(outcome())
    assert runner.inbox.empty()


def test_it_ends_the_process_on_request(journal: Journal) -> None:
    runner = make_runner(journal, on_unfenced="exit")
    runner.on_outcome(outcome())
    event = runner.inbox.get_nowait()
    assert event == Quit("on-unfenced is exit: NoTerm: no term", EXIT_UNFENCED)
    assert runner.step(event) == EXIT_UNFENCED


@pytest.mark.parametrize("client", CLIENTS)
def test_what_was_refused_before_the_operator_ran_is_told_when_it_starts(
    fenced_clients: None, journal: Journal, client: str
) -> None:
    """A module writes while it is imported, and catches the error."""
    _servers.add("http://127.0.0.1:1")
    assert isinstance(caught(lambda: CLIENTS[client]("http://127.0.0.1:1")("DELETE", CHILD)), NoTerm)
    make_runner(journal).start()
    assert counted(journal)["NoTerm"] == 1
    assert f"{REPORTED.get(client, client)}: NoTerm: a write while no operator runs" in posted(journal)[1][2]
    assert refused_before() == [], "it is told once"


IMPORTED = """
import threading, time, kubernetes
kubernetes.config.load_kube_config()
api = kubernetes.client.CustomObjectsApi()

def mark(by):
    try:
        api.patch_namespaced_custom_object(GROUP, "v1", {namespace!r}, "things", "a", {{"spec": {{"by": by}}}})
    except Exception:
        pass

def work():
    while True:
        mark("thread")
        time.sleep(0.1)

threading.Thread(target=work, daemon=True).start()
"""


def test_a_thread_of_a_module(replica: Callable[..., Replica], world: World) -> None:
    """It catches everything. Nobody would know."""
    world.create("Thing", "a")
    port = free_port()
    pod = {"POD_NAME": "pod-x", "POD_UID": "uid-x", "POD_NAMESPACE": world.namespace}
    one = replica(IMPORTED.format(namespace=world.namespace), "op.py", f"--health-port={port}", env=pod)
    one.see("the operator's code tried a write that is refused in every term: kubernetes: NoTerm")
    one.see("start it in an on.startup handler")

    def on_pod() -> list[str]:
        found = world.cluster.kubectl("get", "events", "-n", world.namespace, "-o", "json").stdout
        mine = [e for e in json.loads(found)["items"] if e["reason"] == "Unfenced"]
        return [e["message"] for e in mine if e["involvedObject"].get("uid") == "uid-x"]

    until("an event on the Pod", on_pod, LONG)
    until("more attempts", lambda: one.log.count("refused by gate") > 20, LONG)
    assert len(on_pod()) == 1
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz?verbose") as probe:
        assert f"[!]a write that is refused in every term: NoTerm, kubernetes, PATCH things.{GROUP}" in (
            probe.read().decode()
        )
    assert world.get("things", "a")["spec"] == {}


def test_it_exits_on_request(replica: Callable[..., Replica], world: World) -> None:
    world.create("Thing", "a")
    one = replica(IMPORTED.format(namespace=world.namespace), "op.py", "--on-unfenced=exit")
    assert one.wait() == EXIT_UNFENCED
    one.see("stopping: on-unfenced is exit: NoTerm: ")


def test_a_module_that_writes_while_it_is_imported(replica: Callable[..., Replica], world: World) -> None:
    world.create("Thing", "a")
    code = IMPORTED.format(namespace=world.namespace).partition("def work")[0] + 'mark("import")'
    one = replica(code, "op.py", "--on-unfenced=exit")
    assert one.wait() == EXIT_UNFENCED
    one.see("NoTerm: a write while no operator runs: move it from the module's top level")


def test_a_tenant_does_not_end_the_process(run: Callable[..., Running], world: World, marks: Marks) -> None:
    """I10: whoever may edit a child writes annotations that no term can judge."""
    handlers, path = registry(), f"/api/v1/namespaces/{world.namespace}/configmaps"

    @kopf.on.create(GROUP, "v1", "things", registry=handlers)
    def made(name: str, **_: Any) -> None:
        core = kubernetes.client.CoreV1Api(kubernetes.config.new_client_from_config())
        marks.put(name, caught(lambda: core.patch_namespaced_config_map(name, world.namespace, {"data": {"a": "1"}})))

    stamp = notes_of(Stamp(7, "tenant", f"{world.namespace}/op", "x"), "configmaps")
    for name, token in (("higher", "500"), ("broken", "many")):
        annotations = as_metadata(stamp)["annotations"] | {ANNOTATION_TOKEN: token}
        world.ask("POST", path, {"metadata": {"name": name, "annotations": annotations}})
        world.create("Thing", name)
    running = run(handlers, world.settings(on_unfenced="exit"))
    for name in ("higher", "broken"):
        assert isinstance(marks.wait(name), Unfenced)
    world.ask("POST", path, {"metadata": {"name": "good"}})
    world.create("Thing", "good")
    assert marks.wait("good") is None
    assert not running.ended
    assert running.runner.journal.never.lines() == ()


def test_an_application_gets_an_error(world: World) -> None:
    core = kubernetes.client.CoreV1Api(kubernetes.config.new_client_from_config())
    refused_before()
    with pytest.raises(NoTerm):
        core.delete_namespaced_config_map("a", world.namespace)
    settings = world.settings(on_unfenced="exit")
    with pytest.raises(KopfHAError, match="refused in every term"):
        asyncio.run(kopf_ha.operator(settings, registry=registry(), namespaces=(world.namespace,)))
