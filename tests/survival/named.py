"""Runs kopf-ha with the faults of the launcher and an identity of the test's choice, `SURVIVAL_IDENTITY`.

The command takes no identity, on purpose: one in a Deployment's environment would name all replicas alike. An
application that embeds the operator can give one, `Settings(identity=…)`, and can give the same one twice.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "operator"))
from kopf_ha import settings

IDENTITY = os.environ["SURVIVAL_IDENTITY"]
settings.new_identity = lambda environ=None: (IDENTITY, "one-pod")

runpy.run_path(str(Path(__file__).parents[1] / "kit" / "faulty.py"), run_name="__main__")
