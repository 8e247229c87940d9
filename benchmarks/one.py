"""Runs benchmarks on one cluster, for `benchmarks.collect`: `python -m benchmarks.one CLUSTER FILE NAME=SECONDS …`.

For each one a line of JSON is added to the file, an `Outcome`, as soon as it ended.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib
import json
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.report import Outcome
from benchmarks.result import NotHereError, rows_of
from devcluster import ControlPlane, DevclusterError, NoNodeError
from devcluster.node import check_possible
from testbed.nodes import cluster as nodes

#: Of benchmarks that make their own clusters, what `run` is called with, by the seconds that they have.
OWN: Mapping[str, Callable[[float], dict[str, Any]]] = {
    "barrier": lambda seconds: {
        "counts": (1, 100, 1000) if seconds >= 180 else (100,),
        "rounds": _within((seconds - 120) / 60 if seconds >= 180 else 1, 1, 9),
    },
    "takeover": lambda seconds: {"rounds": _within(seconds / 12, 2, 9)},
    "waiting": lambda seconds: {
        # To make 5,000 that wait takes 150 s on two slow cores.
        "many": 5000 if seconds >= 200 else 1000 if seconds >= 100 else 200,
        "rounds": _within((seconds - 150) / 5 if seconds >= 200 else 5 if seconds >= 100 else 3, 3, 20),
    },
    "asked": lambda seconds: {"minutes": max(0.25, (seconds - 75) / 60)},
}


def _within(wanted: float, least: int, most: int) -> int:
    return max(least, min(most, int(wanted)))


def run(name: str, cluster: Any, folder: Path, seconds: float) -> Any:
    """Give a benchmark's rows."""
    module = importlib.import_module(f"benchmarks.{name}")
    if name not in OWN:
        return module.run(cluster, folder, seconds)
    return module.run(**OWN[name](seconds))


@contextmanager
def on(kind: str, folder: Path, flags: Mapping[str, Any]) -> Iterator[Any]:
    """Run a cluster of that kind.

    Raises:
        NotHereError: this machine cannot.
    """
    if kind == "none":
        yield None
    elif kind == "plane":
        with ControlPlane(**flags) as plane:
            yield plane
    else:
        try:
            check_possible(folder)
        except NoNodeError as error:
            raise NotHereError(str(error)) from error
        with nodes(folder / "state") as stage:
            stage.shell("kubectl apply -k crds/ && kubectl wait --for=condition=Established crd --all")
            stage.shell("kubectl apply -k deploy/")
            stage.rolled_out()
            yield stage


def ended(name: str, give: Callable[[], Any]) -> Outcome:
    """Run one, and say how it ended."""
    load, date, began = machine.load(), f"{datetime.date.today()}", time.monotonic()

    def outcome(state: str, reason: str = "", rows: Any = ()) -> Outcome:
        return Outcome(name, state, reason, rows, date, round(time.monotonic() - began, 1), load)

    try:
        rows = rows_of(give())
        return outcome("done", rows=rows) if rows else outcome("failed", "it gave no rows")
    except NotHereError as error:
        return outcome("left out", str(error))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001  whatever it is, the next benchmark runs
        traceback.print_exc()
        return outcome("failed", f"{type(error).__name__}: {error}".strip().splitlines()[0])


def main() -> None:
    """Run what the command line says."""
    # When its time is over: nodes run in the background, and are taken down.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    kind, file, *wanted = sys.argv[1:]
    budgets = {name: float(seconds) for name, _, seconds in (one.partition("=") for one in wanted)}

    def add(one: Outcome) -> None:
        with Path(file).open("a") as answers:
            answers.write(json.dumps(dataclasses.asdict(one)) + "\n")

    with tempfile.TemporaryDirectory() as folder:
        try:
            flags = getattr(importlib.import_module(f"benchmarks.{next(iter(budgets))}"), "PLANE", {})
            with on(kind, Path(folder), flags) as cluster:
                for name, seconds in budgets.items():
                    own = Path(folder) / name
                    own.mkdir()
                    add(ended(name, partial(run, name, cluster, own, seconds)))
        except NotHereError as error:
            for name in budgets:
                add(Outcome(name, "left out", str(error)))
        except DevclusterError as error:
            sys.exit(f"no cluster: {error}")


if __name__ == "__main__":
    main()
