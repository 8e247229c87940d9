"""The leader election as a pure state machine: ``(state, event, now) → (state, actions)``.

`events` has the words, `machine` the rules, `timing` the durations. `kopf_ha.election` drives it.
"""

from kopf_ha.core.election.events import Phase, State
from kopf_ha.core.election.machine import Election, IllegalMove
from kopf_ha.core.election.timing import JITTER_FACTOR, Timing

__all__ = ["JITTER_FACTOR", "Election", "IllegalMove", "Phase", "State", "Timing"]
