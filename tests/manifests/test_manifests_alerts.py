"""The alert rules, by promtool: each fires for what it is about, and for nothing else. No cluster."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from kopf_ha.run.metrics import Metrics
from kopf_ha.settings import Settings
from kopf_ha_ipam.conflicts import GIVEN_TWICE
from testbed.deployment import NAME, ROOT
from tests.manifests.support import NAMESPACE, promtool, rules, spec

LEADS, TOKEN, MISSING = "leader_election_master_status", "kopf_ha_token", "kopf_ha_not_enforced"
ASIDE = "kopf_ha_set_aside"
PAUSE = "kopf_ha_paused"
NEVER = 'kopf_ha_unfenced_refusals_total{reason="NoTerm"}'
TWICE = "kopf_ha_ipam_addresses_given_twice"
GATE, PRECONDITION, SERVER = (
    f'kopf_ha_refused_writes_total{{line="{line}"}}' for line in ("gate", "precondition", "server")
)
FAILURES = "kopf_ha_renew_failures_total"
HOLDS = "kopf_ha_held"
RECOVERED, UNRECOVERED = (f'kopf_ha_recoveries_total{{outcome="{outcome}"}}' for outcome in ("recovered", "lost"))
AFTER_EXPIRED, AFTER_HANDOVER, AFTER_STOPPED = (
    f'kopf_ha_terms_begun_total{{after="{after}"}}' for after in ("expired", "handover", "stopped")
)
BUCKETS = ("0.1", "1", "2.5", "5", "+Inf")

#: metric or metric{labels} to values in promtool's notation (one each 10 s); a list has one for each replica
Series = Mapping[str, str | list[str]]


def renewals(seconds: str, every: str = "1+1x400") -> dict[str, str]:
    """Renewals that all take less than `seconds`, one of the buckets, and more than the bucket before."""
    slow = BUCKETS.index(seconds)
    return {
        f'kopf_ha_renew_seconds_bucket{{le="{le}"}}': every if i >= slow else "0+0x400" for i, le in enumerate(BUCKETS)
    }


#: An hour of three replicas of which the first leads with token 7.
HEALTHY: Series = {
    LEADS: ["1+0x400", "0+0x400", "0+0x400"],
    TOKEN: ["7+0x400", "6+0x400", "0+0x400"],
    MISSING: "0+0x400",
    ASIDE: "0+0x400",
    PAUSE: "0+0x400",
    NEVER: "0+0x400",
    TWICE: "0+0x400",
    GATE: "0+0x400",
    PRECONDITION: "0+0x400",
    SERVER: "0+0x400",
    FAILURES: ["1+0x400", "0+0x400", "0+0x400"],
    HOLDS: "0+0x400",
    RECOVERED: "0+0x400",
    UNRECOVERED: "0+0x400",
    AFTER_EXPIRED: ["1+0x400", "0+0x400", "0+0x400"],
    AFTER_HANDOVER: ["0+0x400", "0+0x400", "0+0x400"],
    AFTER_STOPPED: ["0+0x400", "0+0x400", "0+0x400"],
    **renewals("0.1"),
}


def every_five_minutes() -> dict[str, str | list[str]]:
    """Two replicas that lead by turns, five minutes each."""
    first = " ".join(f"{7 + 2 * i}+0x59" for i in range(7))
    second = "6+0x29 " + " ".join(f"{8 + 2 * i}+0x59" for i in range(7))
    return {
        LEADS: [" ".join(["1+0x29 0+0x29"] * 7), " ".join(["0+0x29 1+0x29"] * 7), "0+0x400"],
        TOKEN: [first, second, "0+0x400"],
    }


def each_five_minutes() -> list[str]:
    """What these two count of the terms that they begin."""
    first = " ".join(f"{i}+0x59" for i in range(7))
    second = "0+0x29 " + " ".join(f"{1 + i}+0x59" for i in range(7))
    return [first, second, "0+0x400"]


(
    GIVEN,
    NO_LEADER,
    PAUSED,
    SEVERAL,
    ABSENT,
    HELD_BACK,
    REFUSED,
    SLOW,
    FAIL,
    NOT_ENFORCED,
    SET_ASIDE,
    UNFENCED,
    HELD,
    RECOVERIES,
    OFTEN,
    REPLICAS,
) = (
    f"KopfHa{name}"
    for name in (
        *(
            "IpamAddressGivenTwice",
            "NoLeader",
            "Paused",
            "SeveralLeaders",
            "Absent",
            "StaleWritesHeldBack",
            "StaleWritesRefused",
            "RenewalsSlow",
        ),
        *("RenewalsFail", "NotEnforced", "SetAside", "Unfenced", "Held", "RecoveriesOften"),
        *("LeaderChangesOften", "ReplicasMissing"),
    )
)

#: what differs from HEALTHY, when it is looked at, and all that fires then, as (alert, line of the fence)
STORIES: dict[str, tuple[Series, str, set[tuple[str, str]]]] = {
    "nothing": ({}, "60m", set()),
    "the leader dies, another follows after its Lease": (
        # its last scrape is stale with the next; 20 s later another leads
        {LEADS: ["1+0x5 stale", "0+0x7 1+0x400", "0+0x400"], TOKEN: ["7+0x5 stale", "6+0x7 8+0x400", "0+0x400"]},
        "2m10s",
        set(),
    ),
    "an address was given twice": ({TWICE: ["0+0x10 1+0x400", "0+0x400", "0+0x400"]}, "2m", {(GIVEN, "")}),
    "nobody follows": ({LEADS: ["1+0x5 0+0x400", "0+0x400", "0+0x400"]}, "2m10s", {(NO_LEADER, "")}),
    "nobody follows, for less than a minute": ({LEADS: ["1+0x5 0+0x400", "0+0x400", "0+0x400"]}, "1m50s", set()),
    "paused, so nobody leads": (
        {LEADS: ["1+0x5 0+0x2000", "0+0x2000", "0+0x2000"], PAUSE: "0+0x5 1+0x2000", TOKEN: "7+0x2000"},
        "3h59m",
        set(),
    ),
    "paused, and forgotten": (
        {LEADS: ["1+0x5 0+0x2000", "0+0x2000", "0+0x2000"], PAUSE: "0+0x5 1+0x2000", TOKEN: "7+0x2000"},
        "4h5m",
        {(PAUSED, "")},
    ),
    "nobody leads after the pause": (
        {LEADS: ["1+0x5 0+0x400", "0+0x400", "0+0x400"], PAUSE: "0+0x5 1+0x20 0+0x400"},
        "5m50s",
        {(NO_LEADER, "")},
    ),
    "two at one scrape, since they are not scraped at once": (
        {LEADS: ["1+0x5 0+0x400", "0+0x4 1+0x400", "0+0x400"]},
        "1m30s",
        set(),
    ),
    "a leader that does not notice": ({LEADS: ["1+0x400", "0+0x5 1+0x400", "0+0x400"]}, "2m10s", {(SEVERAL, "")}),
    "all are gone": (
        # 2 min for the first, and the other alerts about leaders have nothing to go by
        dict.fromkeys(HEALTHY, "1+0x5 stale") | {HOLDS: "0+0x5 stale"},
        "3m10s",
        {(ABSENT, "")},
    ),
    "all restart within two minutes": (
        {LEADS: ["1+0x5 stale _x8 1+0x400", "0+0x5 stale _x8 0+0x400", "0+0x5 stale _x8 0+0x400"]},
        "2m",
        set(),
    ),
    "writes held back": ({GATE: "0+0x10 3+0x400"}, "5m", {(HELD_BACK, "gate")}),
    "writes held back, long ago": ({GATE: "0+0x10 3+0x400"}, "10m", set()),
    "a late write by revision": ({PRECONDITION: "0+0x10 1+0x400"}, "5m", {(REFUSED, "precondition")}),
    "a late write by the policies": ({SERVER: "0+0x10 1+0x400"}, "5m", {(REFUSED, "server")}),
    "the counters begin anew with a process": ({SERVER: "5+0x10 0+0x400"}, "5m", set()),
    "slow renewals": (renewals("5"), "15m", {(SLOW, "")}),
    "slow renewals for a moment": (renewals("5", "0+0x10 0+1x6 6+0x400"), "5m", set()),
    "bearable renewals": (renewals("2.5"), "15m", set()),
    "renewals fail": ({FAILURES: ["1+0x10 1+1x6 7+0x400", "0+0x400", "0+0x400"]}, "10m", {(FAIL, "")}),
    "a renewal fails now and then": ({FAILURES: ["1+0x10 2+0x20 3+0x400", "0+0x400", "0+0x400"]}, "10m", set()),
    "policies are missing": ({MISSING: ["2+0x400", "0+0x400", "0+0x400"]}, "5m", {(NOT_ENFORCED, "")}),
    "policies were missing in the term of one that follows": (
        {MISSING: ["0+0x400", "2+0x400", "0+0x400"]},
        "5m",
        set(),
    ),
    "a pool cannot be stamped": ({ASIDE: ["1+0x400", "0+0x400", "0+0x400"]}, "3m", {(SET_ASIDE, "")}),
    "a pool could not be stamped for a minute": ({ASIDE: ["0+0x10 3+0x6 0+0x400", "0+0x400"]}, "3m30s", set()),
    "a pool cannot be stamped, whoever leads": (
        # each leader for less than the alert waits
        {
            LEADS: ["1+0x9 0+0x400", "0+0x9 1+0x400", "0+0x400"],
            TOKEN: ["7+0x400", "6+0x9 8+0x400", "0+0x400"],
            ASIDE: ["1+0x9 0+0x400", "0+0x9 1+0x400", "0+0x400"],
        },
        "3m",
        {(SET_ASIDE, "")},
    ),
    "one write, of one replica, that is refused in every term": (
        {NEVER: ["0+0x400", "0+0x10 1+0x400", "0+0x400"]},
        "30m",
        {(UNFENCED, "")},
    ),
    "a rollout moves the leader three times": (
        {
            LEADS: ["1+0x30 0+0x400", "0+0x30 1+0x5 0+0x400", "0+0x36 1+0x5 0+0x400", "0+0x42 1+0x400"],
            TOKEN: ["7+0x400", "6+0x30 8+0x400", "0+0x36 9+0x400", "0+0x42 10+0x400"],
        },
        "20m",
        set(),
    ),
    "the API server is away once, for longer than the term survives": (
        {HOLDS: ["0+0x10 1+0x1 0+0x400", "0+0x400"], UNRECOVERED: ["0+0x12 1+0x400", "0+0x400"]},
        "10m",
        set(),
    ),
    "writes wait again and again": (
        {HOLDS: ["0+0x10 1+0x2 0+0x4 1+0x2 0+0x4 1+0x2 0+0x400", "0+0x400"], RECOVERED: "0+0x13 1+0x6 2+0x6 3+0x400"},
        "8m",
        {(HELD, "")},
    ),
    "writes waited again and again, of two leaders, some time ago": (
        {HOLDS: ["0+0x10 1+0x4 0+0x400", "0+0x20 1+0x4 0+0x400"]},
        "20m",
        set(),
    ),
    "many short outages": (
        {RECOVERED: ["0+0x30 1+0x30 2+0x30 3+0x400", "0+0x400"], UNRECOVERED: ["0+0x400", "0+0x150 1+0x400"]},
        "40m",
        {(RECOVERIES, "")},
    ),
    "three short outages in an hour": (
        {RECOVERED: ["0+0x30 1+0x30 2+0x30 3+0x400", "0+0x400"]},
        "40m",
        set(),
    ),
    # Five changes or more in half an hour. They differ in what the new leaders count.
    "the leader changes every five minutes": (
        every_five_minutes() | {AFTER_EXPIRED: each_five_minutes()},
        "45m",
        {(OFTEN, "")},
    ),
    "somebody hands over every five minutes": (
        every_five_minutes() | {AFTER_HANDOVER: each_five_minutes()},
        "45m",
        set(),
    ),
    "rollouts, and their new pods count": (
        every_five_minutes() | {AFTER_STOPPED: [*each_five_minutes(), "_x30 0+0x20 1+0x30 stale"]},
        "45m",
        set(),
    ),
    "a handover, among changes against the leader's will": (
        every_five_minutes() | {AFTER_HANDOVER: ["0+0x190 1+0x400", "0+0x400", "0+0x400"]},
        "45m",
        {(OFTEN, "")},
    ),
    "a replica is gone": ({LEADS: ["1+0x400", "0+0x400"]}, "15m", {(REPLICAS, "")}),
    "a replica is gone, for less than ten minutes": ({LEADS: ["1+0x400", "0+0x400", "0+0x5 stale"]}, "9m", set()),
    "one more during a rollout": ({LEADS: ["1+0x400", "0+0x400", "0+0x400", "0+0x400"]}, "15m", set()),
}


def input_series(changed: Series) -> list[dict[str, str]]:
    out = []
    for metric, values in {**HEALTHY, **changed}.items():
        name, _, labels = metric.rstrip("}").partition("{")
        for i, each in enumerate([values] if isinstance(values, str) else values):
            mine = f'namespace="{NAMESPACE}", job="{NAME}-metrics", instance="10.244.0.{i}:8080", name="{NAME}"'
            out.append({"series": f"{name}{{{', '.join(filter(None, (labels, mine)))}}}", "values": each})
    return out


@pytest.mark.parametrize("story", STORIES)
def test_what_fires_is_what_it_is_about(story: str, tmp_path: Path) -> None:
    changed, at, firing = STORIES[story]
    severity = {rule["alert"]: rule["labels"]["severity"] for rule in rules()}
    samples = []
    for alert, line in firing:
        labels = f'alertname="{alert}", severity="{severity[alert]}"' + (f', line="{line}"' if line else "")
        samples.append({"labels": f"{{{labels}}}", "value": 1})
    fires = {"expr": 'count by (alertname, severity, line) (ALERTS{alertstate="firing"})', "eval_time": at}
    test = {"interval": "10s", "input_series": input_series(changed)}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec()))
    (tmp_path / "test.yaml").write_text(
        yaml.safe_dump(
            {
                "rule_files": ["rules.yaml"],
                "evaluation_interval": "10s",
                "tests": [{**test, "promql_expr_test": [{**fires, "exp_samples": samples}]}],
            }
        )
    )
    done = promtool("test", "rules", str(tmp_path / "test.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_fires_in_some_story() -> None:
    assert {alert for _, _, firing in STORIES.values() for alert, _ in firing} == {rule["alert"] for rule in rules()}


def test_promtool_takes_the_rules(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec()))
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", str(tmp_path / "rules.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_each_says_what_to_do(rule: dict[str, Any]) -> None:
    told = rule["annotations"]
    assert told["summary"].endswith(".")
    assert told["description"].endswith(".")
    path, _, anchor = told["runbook"].partition("#")
    headings = re.findall(r"^#+ (.*)$", (ROOT / path).read_text(), re.MULTILINE)
    # as GitHub makes anchors of headings
    assert anchor in {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
    assert rule["labels"]["severity"] in ("critical", "warning", "info")


def test_the_runbook_has_no_section_on_an_alert_that_is_not_there() -> None:
    told = re.findall(r"^### (KopfHa\w+)$", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE)
    assert sorted(told) == sorted(rule["alert"] for rule in rules())


def test_the_metrics_are_those_that_are_served() -> None:
    """An alert on a name that nobody serves would be silent for ever."""
    served = Metrics(Settings()).registry
    names = {sample.name for metric in served.collect() for sample in metric.samples} | {GIVEN_TWICE._name}
    used = {name for rule in rules() for name in re.findall(r"\b(?:kopf_ha|leader_election)_\w+", rule["expr"])}
    assert used
    assert used <= names


def test_slow_renewals_can_be_told_from_the_slowest_bucket() -> None:
    (threshold,) = (float(rule["expr"].split("> ")[-1]) for rule in rules() if rule["alert"] == SLOW)
    bounds = {
        float(sample.labels["le"])
        for metric in Metrics(Settings()).registry.collect()
        for sample in metric.samples
        if sample.name == "kopf_ha_renew_seconds_bucket"
    }
    # a quantile never lies above the last bound that is finite
    assert max(bounds - {float("inf")}) > threshold
    assert threshold == Settings().renew_deadline / 4


def test_the_number_of_replicas_is_the_deployment_s() -> None:
    deployment = yaml.safe_load((ROOT / "deploy/base/deployment.yaml").read_text())
    (expr,) = (rule["expr"] for rule in rules() if rule["alert"] == REPLICAS)
    assert expr.endswith(f"< {deployment['spec']['replicas']}")
