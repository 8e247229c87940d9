"""Draws the dashboard for docs/observability.md: `python -m dashboard.picture [--recorded FILE]`, in seven minutes.

There is no Grafana in it. A story (`story`) happens to three replicas on a control plane, a Prometheus scrapes them
meanwhile, and is then asked what the panels of the JSON ask. What it answered is kept in build/dashboard.json, and
`--recorded` draws that once more.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from dashboard.draw import svg
from dashboard.files import FILE, ROOT
from dashboard.prometheus import Prometheus
from dashboard.story import Story
from devcluster import ControlPlane

PICTURE = ROOT / "docs/dashboard.svg"
RECORDED = ROOT / "build/dashboard.json"


def record() -> dict[str, Any]:
    """Have it happen; return what the dashboard shows at the end."""
    dashboard = json.loads(FILE.read_text())
    with ControlPlane() as plane, tempfile.TemporaryDirectory() as folder:
        story = Story(plane, Path(folder))
        with story.replicas(), Prometheus(Path(folder), story.ports) as prometheus:
            begin = time.time()
            story.tell()
            return prometheus.answers(dashboard, begin, time.time())


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recorded", type=Path, help="draw what this file of an earlier run has")
    recorded = parser.parse_args().recorded
    if recorded is None:
        answers = record()
        RECORDED.parent.mkdir(exist_ok=True)
        RECORDED.write_text(json.dumps(answers))
    else:
        answers = json.loads(recorded.read_text())
    PICTURE.write_text(svg(json.loads(FILE.read_text()), answers))
    print(f"wrote {PICTURE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
