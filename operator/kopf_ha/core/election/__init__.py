"""The leader election as a pure state machine: ``(state, event, now) → (state, actions)``.

- `events`: events, actions and the state of one elector
- `machine`: the table, which says which rule handles which event in which phase
- `following`, `leading`, `leaving`: the rules, by phase; `memory`: those that several phases share
- `candidate`: what the rules conclude from the Lease and from the clock
- `timing`: the durations

`kopf_ha.election` drives it.
"""

from kopf_ha.core.election.events import Phase, State
from kopf_ha.core.election.machine import Election, IllegalMove
from kopf_ha.core.election.timing import JITTER_FACTOR, Timing

__all__ = ["JITTER_FACTOR", "Election", "IllegalMove", "Phase", "State", "Timing"]
