"""The dashboard's contents, from top to bottom as somebody on call reads it."""

from __future__ import annotations

from dashboard.panel import BLUE, DATASOURCE, GREEN, NONE, ORANGE, RED, Json, Panel, Query, Row, placed

#: The label that the Prometheus operator gives to each target.
POD = "{{pod}}"
#: Which series: of one operator's replicas, and of one Lease if they name it.
MINE = 'namespace="$namespace", job="$job"'
NAMED = f'{MINE}, name="$name"'
#: KopfHaAbsent knows no namespace.
ALERTS = 'ALERTS{alertname=~"KopfHa.+", alertstate="firing", job="$job", namespace=~"$namespace|"}'
#: Only the leader's value counts: the others report the state of their own last term.
LEADS = f"and on (namespace, job, instance) leader_election_master_status{{{NAMED}}} == 1"
#: What a point of a curve stands for; of rare events five minutes.
SPAN = "[$__rate_interval]"

ALARM = ((None, GREEN), (1, RED))
CARE = ((None, GREEN), (1, ORANGE))


def events(metric: str, label: str, of: str = MINE) -> Query:
    """How often something happened, by a label; nothing where it did not."""
    return Query(f"sum by ({label}) (increase({metric}{{{of}}}{SPAN})) > 0", f"{{{{{label}}}}}")


def each(metric: str, of: str = MINE) -> Query:
    """A gauge of each pod."""
    return Query(f"max by (pod) ({metric}{{{of}}})", POD)


def most(metric: str, legend: str, of: str = MINE) -> Query:
    """The greatest value of a gauge."""
    return Query(f"max({metric}{{{of}}})", legend)


def rate(metric: str, *labels: str) -> Query:
    """How often something happens in a second, by labels."""
    return Query(
        f"sum by ({', '.join(labels)}) (rate({metric}{{{MINE}}}{SPAN}))",
        " ".join(f"{{{{{label}}}}}" for label in labels),
    )


def mean(metric: str, legend: str) -> Query:
    """Of a histogram of rare events; nothing where there was none."""
    total, count = (f"sum(increase({metric}_{what}{{{NAMED}}}{SPAN}))" for what in ("sum", "count"))
    return Query(f"{total} / ({count} > 0)", legend)


def quantile(of: float, metric: str) -> Query:
    """Of a histogram of frequent events."""
    buckets = f"sum by (le) (rate({metric}_bucket{{{NAMED}}}{SPAN}))"
    return Query(f"histogram_quantile({of}, {buckets})", f"p{of * 100:g}")


NOW = Row(
    "Now",
    [
        Panel("name", "Leader", "The pod that leads. If nobody does for a minute: KopfHaNoLeader.",
              [Query(f"max by (pod) (leader_election_master_status{{{NAMED}}}) == 1", POD)], 6,
              steps=((None, RED), (1, GREEN)), nothing="nobody"),
        Panel("stat", "Leads for", "How long the present term has lasted.",
              [most("kopf_ha_term_seconds", "term", NAMED)], 3, unit="s"),
        Panel("stat", "Token", "The present or last term's number, the Lease's leaseTransitions.",
              [most("kopf_ha_token", "token", NAMED)], 3, unit="none"),
        Panel("stat", "Lease time left", "How long the leader may still write without a renewal.",
              [most("kopf_ha_lease_remaining_seconds", "left", NAMED)], 3, unit="s",
              steps=((None, RED), (0.001, GREEN))),
        Panel("stat", "Paused",
              "Somebody ordered that nobody leads; `kopf-ha status` says who and why. For hours: KopfHaPaused.",
              [most("kopf_ha_paused", "paused", NAMED)], 3, words={0: ("no", GREEN), 1: ("paused", ORANGE)}),
        Panel("stat", "Writes wait",
              "The Lease cannot be renewed, so the leader's writes wait until it can, or until the term ends.",
              [most("kopf_ha_held", "held")], 3, words={0: ("no", GREEN), 1: ("yes", RED)}),
        Panel("stat", "Replicas", "How many Prometheus can scrape: KopfHaReplicasMissing. If none: KopfHaAbsent.",
              [Query(f"count(leader_election_master_status{{{NAMED}}})", "replicas")], 3,
              steps=((None, RED), (2, GREEN)), nothing="none"),
        Panel("name", "Enforced level", "At which level the API server enforces the fence, as the leader tried it out.",
              [Query(f"max by (level) (kopf_ha_enforced_level{{{MINE}}} {LEADS}) == 1", "{{level}}")], 6,
              steps=((None, ORANGE), (1, GREEN)), nothing="unknown", colours={"stamps": ORANGE, "none": RED}),
        Panel("stat", "Protections missing", "What the API server lacks: KopfHaNotEnforced.",
              [Query(f"max(kopf_ha_not_enforced{{{MINE}}} {LEADS})", "missing")], 3,
              steps=((None, ORANGE), (0, GREEN), (1, ORANGE)), nothing="unknown"),
        Panel("stat", "Set aside", "Deciding objects that could not be stamped: KopfHaSetAside.",
              [most("kopf_ha_set_aside", "set aside")], 3, steps=CARE),
        Panel("stat", "Stale writes, 1 h",
              "Stale writes refused within an hour. They changed nothing, but something made a leader late.",
              [Query(f"round(sum(increase(kopf_ha_refused_writes_total{{{MINE}}}[1h])))", "refused")], 3, steps=CARE),
        Panel("stat", "Refused always", "Writes of the operator's code that every term refuses: KopfHaUnfenced.",
              [Query(f"sum(kopf_ha_unfenced_refusals_total{{{MINE}}})", "refused")], 3, steps=CARE),
        Panel("stat", "Alerts", "How many alerts fire. Which, and since when, is shown below.",
              [Query(f"count({ALERTS}) or vector(0)", "alerts")], 6, steps=ALARM),
    ],
)  # fmt: skip

WHO = Row(
    "Who leads",
    [
        Panel("states", "Leader",
              "A band while a pod leads. One begins when another has ended; several at a time: KopfHaSeveralLeaders.",
              [each("leader_election_master_status", NAMED), most("kopf_ha_paused", "paused", NAMED),
               most("kopf_ha_held", "writes wait")], 12,
              steps=((None, NONE), (1, GREEN)), colours={"paused": ORANGE, "writes wait": RED}),
        Panel("lines", "Lease time left",
              "A leader that renews stays near the lease duration. How far it falls is how near a takeover was.",
              [each("kopf_ha_lease_remaining_seconds", NAMED)], 12, unit="s"),
        Panel("states", "Alerts", "Each alert that fires. docs/runbook.md has a section on each.",
              [Query(f"max by (alertname) ({ALERTS})", "{{alertname}}")], 24,
              steps=((None, NONE), (1, RED)), nothing="no alert fires"),
    ],
)  # fmt: skip

TERMS = Row(
    "Terms",
    [
        Panel("bars", "Terms that began, by how the one before ended",
              "By choice: stopped, handover, paused, mended. Against the leader's will: expired or gone (its process"
              " died or stood still), lost, failed, floor: KopfHaLeaderChangesOften.",
              [events("kopf_ha_terms_begun_total", "after", NAMED)], 12),
        Panel("bars", "Terms that ended, by reason", "As a leader itself counts them, while its process runs.",
              [events("kopf_ha_terms_ended_total", "reason", NAMED)], 12),
        Panel("points", "Time to takeover, and barrier",
              "How long the Lease was free before the new leader had it, and how long that then stamped objects before"
              " its first handler.",
              [mean("kopf_ha_takeover_seconds", "takeover"), mean("kopf_ha_barrier_seconds", "barrier")], 12, unit="s"),
        Panel("bars", "Waits for the API server, by how they ended",
              "The Lease could not be renewed in time, so writes waited. KopfHaRecoveriesOften, KopfHaHeld.",
              [events("kopf_ha_recoveries_total", "outcome")], 12, colours={"recovered": GREEN, "lost": RED}),
    ],
)  # fmt: skip

RENEWALS = Row(
    "Renewals of the Lease",
    [
        Panel("lines", "Latency",
              "Of renewals that succeeded. KopfHaRenewalsSlow fires at a quarter of the renew deadline.",
              [quantile(0.5, "kopf_ha_renew_seconds"), quantile(0.99, "kopf_ha_renew_seconds")], 12, unit="s"),
        Panel("bars", "Failures", "Attempts that were refused or not answered: KopfHaRenewalsFail.",
              [events("kopf_ha_renew_failures_total", "pod", NAMED)], 12),
    ],
)  # fmt: skip

WRITES = Row(
    "Writes",
    [
        Panel("lines", "Writes, by outcome",
              "In a second: what the API server answered, and what the fence refused, by the line that did.",
              [rate("kopf_ha_writes_total", "outcome")], 12, unit="reqps"),
        Panel("lines", "Writes, by client and kind", "In a second: who writes what.",
              [rate("kopf_ha_writes_total", "client", "kind")], 12, unit="reqps"),
        Panel("bars", "Stale writes refused, by line",
              "gate: in the process (KopfHaStaleWritesHeldBack). Others: a leader did not know yet that it had lost"
              " (KopfHaStaleWritesRefused).",
              [events("kopf_ha_refused_writes_total", "line")], 8),
        Panel("bars", "Writes refused in every term", "The operator's code has to change: KopfHaUnfenced.",
              [events("kopf_ha_unfenced_refusals_total", "reason")], 8),
        Panel("lines", "Set aside", "Deciding objects that the leader could not stamp in its term: KopfHaSetAside.",
              [each("kopf_ha_set_aside")], 8),
    ],
)  # fmt: skip

REPLICAS = Row(
    "Replicas",
    [
        Panel("lines", "Memory", "Resident.", [each("process_resident_memory_bytes")], 6, unit="bytes"),
        Panel("lines", "CPU", "In cores. A leader has more to do than the others.",
              [rate("process_cpu_seconds_total", "pod")], 6),
        Panel("lines", "Open files", "Of those that the process may open.",
              [Query(f"max by (pod) (process_open_fds{{{MINE}}} / process_max_fds{{{MINE}}})", POD)], 6,
              unit="percentunit"),
        Panel("bars", "Restarts", "A process began in a pod that had another one before.",
              [Query(f"sum by (pod) (changes(process_start_time_seconds{{{MINE}}}{SPAN})) > 0", POD)], 6),
    ],
)  # fmt: skip

MANAGER = Row(
    "The address manager (the reference operator)",
    [
        Panel("lines", "Addresses given twice",
              "Addresses that more than one claim has, as far as the leader knows: KopfHaIpamAddressGivenTwice. No"
              " other operator has this metric.",
              [each("kopf_ha_ipam_addresses_given_twice")], 24),
    ],
)  # fmt: skip

ROWS = (NOW, WHO, TERMS, RENEWALS, WRITES, REPLICAS, MANAGER)


def dashboard() -> Json:
    """Return the dashboard as Grafana's JSON."""
    return {
        "uid": "kopf-ha",
        "title": "kopf-ha",
        "description": "Who leads, whether the fence is enforced, and what happened. docs/observability.md has more.",
        "tags": ["kopf-ha", "operator"],
        "schemaVersion": 41,
        "editable": True,
        "graphTooltip": 1,
        "time": {"from": "now-3h", "to": "now"},
        "refresh": "30s",
        "timezone": "browser",
        "templating": {"list": _variables()},
        "annotations": {"list": _annotations()},
        "panels": placed(ROWS),
    }


def _variables() -> list[Json]:
    """The first chooses a Prometheus, the others an operator, a few of which may be in one namespace."""
    made: list[Json] = [{"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}]
    chosen = ""
    for name in ("namespace", "job", "name"):
        query = f"label_values(kopf_ha_token{chosen and f'{{{chosen}}}'}, {name})"
        made.append(
            {
                "name": name,
                "label": {"name": "Lease"}.get(name, name.capitalize()),
                "type": "query",
                "datasource": DATASOURCE,
                "query": {"query": query, "refId": name},
                "definition": query,
                "refresh": 2,
                "sort": 1,
            }
        )
        chosen += (", " if chosen else "") + f'{name}="${name}"'
    return made


def _annotations() -> list[Json]:
    return [
        _annotation("New terms", f"max by (pod) (changes(kopf_ha_token{{{NAMED}}}[1m])) > 0", POD, BLUE),
        _annotation("Alerts", f"max by (alertname) ({ALERTS})", "{{alertname}}", RED),
    ]


def _annotation(name: str, expr: str, text: str, colour: str) -> Json:
    return {
        "name": name,
        "enable": True,
        "datasource": DATASOURCE,
        "expr": expr,
        "step": "15s",
        "titleFormat": name.removesuffix("s"),
        "textFormat": text,
        "iconColor": colour,
    }
