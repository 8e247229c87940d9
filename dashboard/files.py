"""The dashboard's file."""

from __future__ import annotations

import json
from pathlib import Path

from dashboard.rows import dashboard

ROOT = Path(__file__).parents[1]
FILE = ROOT / "deploy/components/monitoring/dashboard.json"


def text() -> str:
    """Return what the file must contain."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"
