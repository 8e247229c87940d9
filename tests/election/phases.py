"""Which phase may follow which: held against every step that a replica in `tests.election.world` takes."""

from __future__ import annotations

from collections.abc import Mapping

from kopf_ha.core.election import Phase
from kopf_ha.core.election.events import (
    Conflict,
    Denied,
    Event,
    Failed,
    HeadStart,
    HolderGone,
    LeaseSeen,
    LeaseUnusable,
    RaiseFloor,
    ReadFailed,
    Release,
    Resume,
    StepDown,
    Stop,
    Tick,
    Written,
)

#: phase → event → the phases that may follow. An event without a cell is illegal in that phase.
NEXT: Mapping[Phase, Mapping[type[Event], set[Phase]]] = {
    Phase.FOLLOWING: {
        LeaseSeen: {Phase.FOLLOWING, Phase.ACQUIRING, Phase.LEADING},  # leading: a PUT without an answer was done
        LeaseUnusable: {Phase.FOLLOWING},
        ReadFailed: {Phase.FOLLOWING},
        Tick: {Phase.FOLLOWING, Phase.ACQUIRING},
        RaiseFloor: {Phase.FOLLOWING},
        HolderGone: {Phase.FOLLOWING, Phase.ACQUIRING},
        HeadStart: {Phase.FOLLOWING, Phase.ACQUIRING},
        StepDown: {Phase.FOLLOWING},
        Release: {Phase.RELEASING, Phase.STOPPED},
        Stop: {Phase.STOPPED},
    },
    Phase.ACQUIRING: {
        Written: {Phase.LEADING, Phase.ACQUIRING, Phase.FOLLOWING},  # acquiring: the answer came too late to lead
        Conflict: {Phase.FOLLOWING},
        Failed: {Phase.FOLLOWING},
        Denied: {Phase.FOLLOWING},
    },
    Phase.LEADING: {
        LeaseSeen: {Phase.LEADING, Phase.LOST},
        LeaseUnusable: {Phase.LEADING, Phase.LOST},
        Tick: {Phase.RENEWING, Phase.LOST},
        RaiseFloor: {Phase.LEADING, Phase.LOST},
        HolderGone: {Phase.LEADING},
        HeadStart: {Phase.LEADING},
        StepDown: {Phase.RELEASING},
        Release: {Phase.RELEASING},
        Stop: {Phase.STOPPED},
    },
    Phase.RENEWING: {
        Written: {Phase.LEADING, Phase.LOST},
        Conflict: {Phase.RENEWING, Phase.LOST},
        Failed: {Phase.LEADING, Phase.LOST},
        Denied: {Phase.LEADING, Phase.LOST},
        LeaseSeen: {Phase.LEADING, Phase.RENEWING, Phase.LOST},
        LeaseUnusable: {Phase.LOST},
        ReadFailed: {Phase.LEADING, Phase.LOST},
    },
    Phase.RELEASING: {
        Written: {Phase.FOLLOWING, Phase.LOST, Phase.STOPPED},
        Conflict: {Phase.RELEASING},
        Failed: {Phase.FOLLOWING, Phase.LOST, Phase.STOPPED},
        Denied: {Phase.FOLLOWING, Phase.LOST, Phase.STOPPED},
        LeaseSeen: {Phase.RELEASING, Phase.FOLLOWING, Phase.LOST, Phase.STOPPED},
        LeaseUnusable: {Phase.FOLLOWING, Phase.LOST, Phase.STOPPED},
        ReadFailed: {Phase.FOLLOWING, Phase.LOST, Phase.STOPPED},
    },
    Phase.LOST: {
        LeaseSeen: {Phase.LOST},
        LeaseUnusable: {Phase.LOST},
        Tick: {Phase.LOST},
        RaiseFloor: {Phase.LOST},
        HolderGone: {Phase.LOST},
        HeadStart: {Phase.LOST},
        StepDown: {Phase.LOST},
        Resume: {Phase.FOLLOWING, Phase.ACQUIRING, Phase.RELEASING},
        Release: {Phase.RELEASING, Phase.STOPPED},
        Stop: {Phase.STOPPED},
    },
    Phase.STOPPED: {},
}
