"""A Prometheus that scrapes replicas every other second, and answers what a dashboard asks it as Grafana would ask."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

import yaml

from dashboard.files import ROOT
from dashboard.reading import Json, asked, filled, named, panels
from devcluster import Process
from devcluster.waiting import until
from testbed.deployment import NAME
from testbed.ports import free_port

#: As the Prometheus operator names it.
JOB = f"{NAME}-metrics"
#: Seconds between two scrapes, and between two points of a curve.
SCRAPE, STEP = 2.0, 2.0
#: A target may want a longer time between two points. That is meant for the ServiceMonitor's 10 s between two scrapes,
#: and here everything takes place within minutes.
SCALE = SCRAPE / 10
VALUES = {"namespace": NAME, "job": JOB, "name": NAME}
RULES = ROOT / "deploy/components/monitoring/prometheus-rule.yaml"

_SECONDS = {"s": 1, "m": 60, "h": 3600}


class Prometheus:
    """Runs while it is used as a context manager.

    Args:
        folder: for its data.
        ports: of the metrics, by pod.
    """

    def __init__(self, folder: Path, ports: Mapping[str, int]) -> None:
        rules = folder / "rules.yaml"
        rules.write_text(json.dumps(yaml.safe_load(RULES.read_text())["spec"]))
        targets = [
            {"targets": [f"127.0.0.1:{port}"], "labels": {"namespace": NAME, "pod": pod}} for pod, port in ports.items()
        ]
        config = folder / "prometheus.yaml"
        seconds = f"{SCRAPE:g}s"
        config.write_text(
            json.dumps(
                {
                    "global": {"scrape_interval": seconds, "scrape_timeout": seconds, "evaluation_interval": seconds},
                    "rule_files": [str(rules)],
                    "scrape_configs": [{"job_name": JOB, "static_configs": targets}],
                }
            )
        )
        port = free_port()
        self._url = f"http://127.0.0.1:{port}"
        self._open = build_opener(ProxyHandler({})).open
        self._process = Process(
            "prometheus",
            [
                ROOT / "scripts/prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
            ],
            log_path=folder / "prometheus.log",
        )  # fmt: skip

    def __enter__(self) -> Prometheus:
        self._process.start()

        def ready() -> bool:
            self._process.check_running()
            try:
                return bool(self._open(f"{self._url}/-/ready", timeout=5).status == 200)
            except OSError:
                return False

        until("Prometheus to be ready", ready, timeout=120)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop()

    def answers(self, dashboard: Json, begin: float, end: float) -> dict[str, Any]:
        """Return what each panel, by its id, and each annotation, by its name, shows of this time.

        Curves are lists of [time, value]; a number has one such point.
        """
        shown: dict[str, Any] = {"begin": begin, "end": end, "panels": {}, "annotations": {}}
        for panel in panels(dashboard):
            shown["panels"][str(panel["id"])] = [
                {"name": named(question.legend, one["metric"]), "points": one.get("values") or [one["value"]]}
                for question, target in zip(asked(panel), panel["targets"], strict=True)
                for one in self._ask(question.expr, begin, end, least(target), now=target["instant"])
            ]
        for one in dashboard["annotations"]["list"]:
            shown["annotations"][one["name"]] = [
                {"name": named(one["textFormat"], found["metric"]), "points": found["values"]}
                for found in self._ask(one["expr"], begin, end, SCRAPE, now=False)
            ]
        return shown

    def _ask(self, expr: str, begin: float, end: float, least: float, *, now: bool) -> list[dict[str, Any]]:
        step = max(STEP, least)
        # As Grafana computes it: a target's least time between two points takes the place of the scrape interval.
        span = max(step + least, 4 * least)
        query = {"query": filled(expr, VALUES | {"__rate_interval": f"{span:g}s"})}
        if now:
            path, query = "query", query | {"time": f"{end}"}
        else:
            begin = end - (end - begin) // step * step  # so that the last point is now
            path, query = "query_range", query | {"start": f"{begin}", "end": f"{end}", "step": f"{step:g}"}
        with self._open(f"{self._url}/api/v1/{path}?{urlencode(query)}", timeout=30) as answer:
            return list(json.load(answer)["data"]["result"])


def least(target: Json) -> float:
    """Return the least seconds between two points of what a target asks for."""
    return max(SCRAPE, SCALE * seconds_of(target.get("interval", "")))


def seconds_of(duration: str) -> float:
    """Return the seconds of a duration such as 1m; 0 for none."""
    return float(sum(int(n) * _SECONDS[unit] for n, unit in re.findall(r"(\d+)([smh])", duration)))
