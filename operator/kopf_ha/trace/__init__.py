"""Traces: what the election machine and the fence of one process took in, and what they did (`--trace FILE`).

The core knows nothing of it. The election's driver hands each step to a `Trace`, and the adapters have it drive the
fence's flow. `python -m replay` in the project's repository puts what was written through the same core again.
"""

from kopf_ha.trace.writer import Trace

__all__ = ["Trace"]
