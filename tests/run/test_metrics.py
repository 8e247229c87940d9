"""What Prometheus is told: from the start, of writes, of the election; and that the page names all of it."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kopf
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from devcluster.waiting import until
from kopf_ha.adapters import Outcome
from kopf_ha.core.grant import Grant
from kopf_ha.core.token import Stamp
from kopf_ha.core.wire import Request
from kopf_ha.errors import FloorLost, ForeignStamp, GateClosed, NoTerm, Refused, StaleLeader, Unfenced
from kopf_ha.run.metrics import AFTER, ENDS, KINDS, LINES, OTHER, Metrics, kind_of
from kopf_ha.settings import Settings
from kopf_ha_ipam.conflicts import GIVEN_TWICE
from testbed.ports import free_port
from tests.run.support import GROUP, LONG, Marks, Rival, Running, World, registry

Run = Callable[..., Running]

PAGE = Path(__file__).parents[2] / "docs" / "observability.md"
SETTINGS = Settings(lease_namespace="ns", lease_name="op")
THINGS = f"/apis/{GROUP}/v1/namespaces/ns/things"


def outcome(path: str = f"{THINGS}/a", refused: Refused | None = None, method: str = "PATCH") -> Outcome:
    return Outcome("kopf", Request(method, path), None, refused, 0 if refused else 200)


def by_server(line: str = "server") -> StaleLeader:
    error = StaleLeader("the API server said so")
    error.line = line
    return error


def test_a_replica_that_never_led_says_so() -> None:
    metrics = Metrics(SETTINGS)
    value = metrics.registry.get_sample_value
    for name in ("leader_election_master_status", "kopf_ha_token", "kopf_ha_lease_remaining_seconds",
                 "kopf_ha_renew_failures_total", "kopf_ha_renew_seconds_count", "kopf_ha_takeover_seconds_count",
                 "kopf_ha_barrier_seconds_count", "kopf_ha_term_seconds"):  # fmt: skip
        assert value(name, {"name": "op"}) == 0, name
    for reason in ENDS:
        assert value("kopf_ha_terms_ended_total", {"name": "op", "reason": reason}) == 0
    for after in AFTER:
        assert value("kopf_ha_terms_begun_total", {"name": "op", "after": after}) == 0
    for line in LINES:
        assert value("kopf_ha_refused_writes_total", {"line": line}) == 0
    assert value("kopf_ha_paused", {"name": "op"}) == 0
    for name in ("kopf_ha_not_enforced", "kopf_ha_set_aside", "kopf_ha_held"):
        assert value(name) == 0, name
    for outcome in ("recovered", "lost"):
        assert value("kopf_ha_recoveries_total", {"outcome": outcome}) == 0


def test_whether_it_leads_is_asked_at_each_scrape() -> None:
    """A leader that was paused must not go on saying that it leads."""
    metrics, grant, now = Metrics(SETTINGS), Grant(Stamp(7, "me", "ns/op", "uid"), 109.5), [100.0]
    grant.set_aside = frozenset({"u1", "u2"})
    metrics.watch(lambda: grant, lambda: now[0])
    value = metrics.registry.get_sample_value
    assert value("leader_election_master_status", {"name": "op"}) == 1
    assert value("kopf_ha_lease_remaining_seconds", {"name": "op"}) == 9.5
    assert value("kopf_ha_set_aside") == 2
    now[0] = 110.0
    assert value("leader_election_master_status", {"name": "op"}) == 0
    assert value("kopf_ha_set_aside") == 0


def test_a_term_lasts_while_it_may_go_on() -> None:
    """It goes on while its writes wait, and ends with its grant. A grant of another term is not its own."""
    metrics, now = Metrics(SETTINGS), [100.0]
    grant = Grant(Stamp(7, "me", "ns/op", "uid"), 115.0, recovers=15.0)
    present = [grant]
    metrics.watch(lambda: present[0], lambda: now[0])

    def value() -> float | None:
        return metrics.registry.get_sample_value("kopf_ha_term_seconds", {"name": "op"})

    assert value() == 0  # the runner does not know it yet
    metrics.leads(7)
    now[0] = 104.0
    assert value() == 4
    grant.hold("no answer")
    now[0] = 116.0
    assert value() == 16
    now[0] = 130.0  # a machine that slept: the grant is over, and nobody closed it
    assert value() == 0
    grant.reopen(145.0)
    assert value() == 30
    present[0] = Grant(Stamp(9, "me", "ns/op", "uid"), 200.0)
    assert value() == 0
    present[0] = grant
    grant.close("lost")
    assert value() == 0


def test_a_term_counts_by_how_the_one_before_ended() -> None:
    """The word comes from the Lease, so whoever may write that must not make a new series each time."""
    metrics = Metrics(SETTINGS)
    for token, after in enumerate(("", "expired", "expired", "handover", "made up")):
        metrics.leads(token, after)
    found = {
        after: metrics.registry.get_sample_value("kopf_ha_terms_begun_total", {"name": "op", "after": after})
        for after in AFTER
    }
    assert {after: count for after, count in found.items() if count} == {
        "none": 1,
        "expired": 2,
        "handover": 1,
        "other": 1,
    }
    (family,) = [f for f in metrics.registry.collect() if f.name == "kopf_ha_terms_begun"]
    assert {s.labels["after"] for s in family.samples} == {*AFTER}


def test_a_pause_is_asked_for_at_each_scrape() -> None:
    metrics, paused = Metrics(SETTINGS), [True]
    metrics.watch(lambda: None, paused=lambda: paused[0])
    value = metrics.registry.get_sample_value
    assert value("kopf_ha_paused", {"name": "op"}) == 1
    paused[0] = False
    assert value("kopf_ha_paused", {"name": "op"}) == 0


def test_between_terms_nothing_is_set_aside() -> None:
    metrics = Metrics(SETTINGS)
    metrics.watch(lambda: None)
    assert metrics.registry.get_sample_value("kopf_ha_set_aside") == 0


def test_refused_stale_writes_count_on_their_line() -> None:
    metrics = Metrics(SETTINGS)
    for error in (GateClosed("x"), StaleLeader("x"), FloorLost("x", 9), by_server(), by_server(), by_server("term")):
        metrics.count(outcome(refused=error))
    # Mistakes of the code that writes, in any term.
    for mistake in (NoTerm("x"), Unfenced("x"), ForeignStamp("x")):
        metrics.count(outcome(refused=mistake))
    metrics.count(outcome())
    metrics.count(outcome(method="WATCH", refused=FloorLost("x", 9)))  # no write
    value = metrics.registry.get_sample_value
    counts = {line: value("kopf_ha_refused_writes_total", {"line": line}) for line in LINES}
    assert counts == {"gate": 1, "precondition": 2, "server": 2, "term": 1}
    writes = {"client": "kopf", "kind": f"things.{GROUP}"}
    assert value("kopf_ha_writes_total", writes | {"outcome": "2xx"}) == 1
    assert value("kopf_ha_writes_total", writes | {"outcome": "gate"}) == 3


def test_kinds_without_names() -> None:
    assert kind_of(f"{THINGS}/a") == kind_of(THINGS) == f"things.{GROUP}"
    assert kind_of(f"{THINGS}/a/status") == f"things.{GROUP}/status"
    assert kind_of("/api/v1/namespaces/ns/configmaps/a") == "configmaps"
    assert kind_of("/api/v1/namespaces/ns") == "namespaces"
    assert kind_of("/api/v1/namespaces/ns/services/a/proxy/user/1234") == "services/proxy"
    assert kind_of("/api/v1/namespaces/ns/services:1234/x") == OTHER
    assert kind_of("/no/path/of/kubernetes") == OTHER


def test_the_number_of_kinds_is_bounded() -> None:
    metrics = Metrics(SETTINGS)
    for number in range(3 * KINDS):
        metrics.count(outcome(f"/apis/g.dev/v1/kind{number}/a"))
    assert (
        metrics.registry.get_sample_value("kopf_ha_writes_total", {"client": "kopf", "kind": OTHER, "outcome": "2xx"})
        == 2 * KINDS
    )
    (family,) = [f for f in metrics.registry.collect() if f.name == "kopf_ha_writes"]
    assert len({s.labels["kind"] for s in family.samples}) == KINDS + 1


def test_the_page_names_each_metric_and_no_other() -> None:
    metrics = Metrics(SETTINGS)
    metrics.count(outcome())
    there = {}
    for family in metrics.registry.collect():
        labels = {name for s in family.samples for name in s.labels} - {"le"}
        there[family.name + ("_total" if family.type == "counter" else "")] = (family.type, labels)
    rows = re.findall(r"(?m)^\| `([a-z_]+)(?:\{([a-z,]*)\})?` \| (gauge|counter|histogram) \|", PAGE.read_text())
    told = {name: (kind, set(labels.split(",")) - {""}) for name, labels, kind in rows}
    # The reference operator's own is in prometheus_client's default registry.
    own = REGISTRY.get_sample_value(GIVEN_TWICE._name)
    assert own == 0
    assert told.pop(GIVEN_TWICE._name) == ("gauge", set())
    assert told == there
    # What the page asks Prometheus for is there, too.
    asked = set(re.findall(r"\b((?:kopf_ha|leader_election)_[a-z_]+)", PAGE.read_text()))
    series = {s.name for family in metrics.registry.collect() for s in family.samples} | {GIVEN_TWICE._name}
    assert asked <= series | set(there), asked - series - set(there)


# --- on a real API server


def scrape(port: int) -> dict[tuple[str, str], float]:
    """Each sample's value, by its name and its labels."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=LONG).read().decode()
    return {
        (s.name, ",".join(f"{k}={v}" for k, v in sorted(s.labels.items()))): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def test_a_term_is_measured(run: Run, world: World, marks: Marks) -> None:
    handlers, port = registry(), free_port()

    @kopf.on.create(GROUP, "v1", "things", registry=handlers)
    def made(patch: kopf.Patch, **_: Any) -> None:
        patch.status["seen"] = True

    world.create("Root", "a")
    world.create("Thing", "a")
    rival = Rival(world.settings())
    until("the rival to lead", lambda: rival.grants, LONG)
    run(handlers, world.settings(metrics_port=port, deciding=(f"roots.{GROUP}",)))
    until("the follower to answer", lambda: _try(port), LONG)
    assert scrape(port)["leader_election_master_status", "name=op"] == 0
    assert scrape(port)["kopf_ha_token", "name=op"] == 0
    assert scrape(port)["kopf_ha_lease_remaining_seconds", "name=op"] == 0
    rival.stop()  # it releases
    until("it to lead", lambda: scrape(port)["leader_election_master_status", "name=op"] == 1, LONG)
    until("a renewal", lambda: scrape(port)["kopf_ha_renew_seconds_count", "name=op"] > 0, LONG)
    until(
        "the write",
        lambda: scrape(port).get(("kopf_ha_writes_total", f"client=kopf,kind=things.{GROUP}/status,outcome=2xx")),
        LONG,
    )
    seen = scrape(port)
    assert seen["kopf_ha_token", "name=op"] == 2
    assert 0 < seen["kopf_ha_lease_remaining_seconds", "name=op"] <= world.settings().lease_duration
    assert seen["kopf_ha_takeover_seconds_count", "name=op"] == 1
    assert seen["kopf_ha_barrier_seconds_count", "name=op"] == 1
    assert seen["kopf_ha_renew_failures_total", "name=op"] == 0
    assert seen["kopf_ha_term_seconds", "name=op"] > 0
    assert seen["kopf_ha_terms_begun_total", "after=released,name=op"] == 1


def _try(port: int) -> bool:
    try:
        return bool(scrape(port))
    except OSError:
        return False


def test_what_the_operators_code_measures_is_served_at_the_same_port() -> None:
    port = free_port()
    server = Metrics(SETTINGS.changed(metrics_port=port)).serve(port)
    assert server is not None
    try:
        found = scrape(port)
    finally:
        server.close()
    assert found[GIVEN_TWICE._name, ""] == 0
    assert ("kopf_ha_not_enforced", "") in found
