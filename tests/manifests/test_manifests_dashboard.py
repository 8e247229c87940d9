"""The dashboard: every panel gets data from what replicas really export, and all that they export is shown. No cluster.

The series are made from the registry of a replica, so a metric or a label that gets another name leaves a panel empty.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client import REGISTRY, Metric

from dashboard.files import FILE, text
from dashboard.panel import COLUMNS, Panel, Query, Row, placed
from dashboard.reading import Question, asked, filled, named, panels, questions
from devcluster import Binaries
from kopf_ha.adapters import Outcome
from kopf_ha.core.grant import Grant
from kopf_ha.core.token import Stamp
from kopf_ha.core.wire import Request
from kopf_ha.errors import NoTerm, StaleLeader
from kopf_ha.run.level import LEVELS
from kopf_ha.run.metrics import Metrics
from kopf_ha.settings import Settings
from kopf_ha_ipam.conflicts import GIVEN_TWICE
from testbed.deployment import NAME, ROOT
from tests.manifests.support import NAMESPACE, built, one, promtool, rules, spec

DASHBOARD = json.loads(FILE.read_text())
JOB = f"{NAME}-metrics"
#: As Prometheus scrapes a Service's pods; and what it scrapes them for.
TARGET = {"namespace", "job", "instance", "pod"}
VALUES = {"namespace": NAMESPACE, "job": JOB, "name": NAME, "__rate_interval": "1m"}
#: What prometheus_client exports of itself and of Python, and why nobody on call asks for it.
NOT_SHOWN = {
    "process_virtual_memory_bytes": "what is mapped, not what is used",
    "python_info": "the image says which Python it has",
    "python_gc_objects_collected": "a matter of the code, not of a fault",
    "python_gc_objects_uncollectable": "always 0 today",
    "python_gc_collections": "a matter of the code, not of a fault",
}
#: Gauges that change shortly before the dashboard is looked at, in promtool's notation; the others keep their value.
CHANGES = {"kopf_ha_token": "6+0x57 7+0x9", "process_start_time_seconds": "1+0x57 2+0x9"}


def replica(leads: bool) -> Metrics:
    """The metrics of a replica to which everything has happened, with a grant at hand if it leads."""
    made = Metrics(Settings(lease_name=NAME, lease_namespace=NAMESPACE))
    grant = Grant(Stamp(7, "me", f"{NAMESPACE}/{NAME}", "uid"), 109.5) if leads else None
    made.watch(lambda: grant, lambda: 100.0)
    made.leads(7)
    made.enforces(next(iter(LEVELS)))
    path = "/apis/ipam.kopf-ha.dev/v1/addresspools/a/status"
    made.count(Outcome("kopf", Request("PATCH", path), None, None, 200))
    made.count(Outcome("kopf", Request("PATCH", path), None, StaleLeader("late"), 0))
    made.count_never(NoTerm("none"))
    return made


def families(made: Metrics) -> Iterator[Metric]:
    """All that is served at the port for metrics."""
    assert GIVEN_TWICE._name in REGISTRY._names_to_collectors
    for source in (made.registry, REGISTRY):
        for family in source.collect():
            # When a counter began; prometheus_client adds it to each.
            family.samples = [s for s in family.samples if not s.name.endswith("_created")]
            if family.samples:
                yield family


def series() -> list[dict[str, str]]:
    """Three replicas for eleven minutes; whatever counts, counts."""
    made = []
    for number in range(3):
        mine = {"namespace": NAMESPACE, "job": JOB, "instance": f"10.244.0.{number}:8080", "pod": f"{NAME}-{number}"}
        for family in families(replica(leads=number == 0)):
            for sample in family.samples:
                labels = ", ".join(f'{k}="{v}"' for k, v in {**mine, **sample.labels}.items())
                counts = family.type in ("counter", "histogram")
                values = "0+1x66" if counts else CHANGES.get(sample.name, f"{sample.value:g}+0x66")
                made.append({"series": f"{sample.name}{{{labels}}}", "values": values})
    return made


def with_all_labels(question: Question) -> tuple[str, str]:
    """An expression that gives 1 if the question has an answer, and the labels that it must have then, and no others.

    They say that each label in the names of the series has a value.
    """
    expr = filled(question.expr, VALUES)
    for label in question.labels:
        expr = f'label_replace({expr}, "has_{label}", "yes", "{label}", ".+")'
    by = ", ".join(f"has_{label}" for label in question.labels)
    return f"group by ({by}) ({expr})", "{" + ", ".join(f'has_{label}="yes"' for label in question.labels) + "}"


def test_every_panel_gets_data_with_names(tmp_path: Path) -> None:
    tests = []
    for question in questions(DASHBOARD):
        expr, labels = with_all_labels(question)
        tests.append({"expr": expr, "eval_time": "10m", "exp_samples": [{"labels": labels, "value": 1}]})
    assert len(tests) > 30
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec()))
    story = {"interval": "10s", "input_series": series(), "promql_expr_test": tests}
    (tmp_path / "test.yaml").write_text(
        yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "30s", "tests": [story]})
    )
    done = promtool("test", "rules", str(tmp_path / "test.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


def used(expressions: list[str]) -> set[str]:
    return {name for expr in expressions for name in re.findall(r"\b(?:kopf_ha|leader_election|process)_\w+", expr)}


def test_all_that_is_exported_is_shown() -> None:
    shown = used([question.expr for question in questions(DASHBOARD)])
    there = {family.name: {s.name for s in family.samples} for family in families(replica(leads=True))}
    assert {name for name, names in there.items() if not names & shown} == NOT_SHOWN.keys()


def test_a_dashboard_shows_what_each_alert_is_about() -> None:
    shown = used([question.expr for question in questions(DASHBOARD)])
    assert used([rule["expr"] for rule in rules()]) <= shown
    told = {name for panel in panels(DASHBOARD) for name in re.findall(r"KopfHa\w+", panel["description"])}
    assert told == {rule["alert"] for rule in rules()}


def test_variables_offer_what_there_is() -> None:
    labels = {s.name: {*s.labels} for family in families(replica(leads=True)) for s in family.samples}
    found: list[str] = []
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            match = re.fullmatch(r"label_values\((\w+)(?:\{(.*)\})?, (\w+)\)", variable["query"]["query"])
            assert match is not None
            metric, matchers, label = match.groups()
            assert {label, *re.findall(r"(\w+)=", matchers or "")} <= labels[metric] | TARGET
            # It depends only on variables before it.
            assert re.findall(r"\$(\w+)", matchers or "") == found
            found.append(variable["name"])
    assert {*found} | {"__rate_interval"} == VALUES.keys()


def test_grafana_can_place_it() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len({*ids}) == len(ids)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len({*cells}) == len(cells)
    assert len(cells) == COLUMNS * (max(y for _, y in cells) + 1)
    for panel in panels(DASHBOARD):
        assert {t["datasource"]["uid"] for t in panel["targets"]} == {"${datasource}"}
        assert len({t["refId"] for t in panel["targets"]}) == len(asked(panel))


def test_the_file_is_what_is_written() -> None:
    """``KOPF_HA_REWRITE=1``, or `make dashboard`, writes it anew."""
    if os.environ.get("KOPF_HA_REWRITE"):
        FILE.write_text(text())
    assert FILE.read_text() == text(), "it is old: make dashboard"


def test_grafanas_sidecar_takes_it(binaries: Binaries) -> None:
    found = one(built(binaries, ROOT / "deploy/overlays/monitoring"), "ConfigMap", f"{NAME}-dashboard")
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert found["data"] == {"kopf-ha.json": FILE.read_text()}


def test_a_row_without_gaps() -> None:
    half = Panel("lines", "a", "", [Query("up", "{{pod}}")], COLUMNS // 2)
    number = Panel("stat", "b", "", [Query("up", "{{pod}}")], COLUMNS // 2)
    assert [p["gridPos"]["y"] for p in placed([Row("r", [half, half])])] == [0, 1, 1]
    for wrong in ([half], [half, number], [half, half, half]):
        with pytest.raises(ValueError, match=r"room|fit"):
            placed([Row("r", wrong)])


def test_variables_and_names() -> None:
    assert filled('a{b="$b"}[$__rate_interval] ${b}', {"b": "1", "__rate_interval": "1m"}) == 'a{b="1"}[1m] 1'
    with pytest.raises(KeyError):
        filled("$unknown", {})
    assert named("{{pod}} of {{ job }}", {"pod": "p"}) == "p of "
