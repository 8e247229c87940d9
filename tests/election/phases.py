"""Which phase may follow which: held against every step that a replica in `tests.election.world` takes."""

from __future__ import annotations

from collections.abc import Mapping

from kopf_ha.core.election import Phase
from kopf_ha.core.election.events import (
    Conflict,
    Event,
    Failed,
    HeadStart,
    HolderGone,
    LeaseSeen,
    LeaseUnusable,
    LegacyFailed,
    LegacySeen,
    LegacyWritten,
    NotWritten,
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
        LegacySeen: {Phase.FOLLOWING, Phase.ACQUIRING, Phase.LEADING},
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
        NotWritten: {Phase.FOLLOWING},
        LegacyWritten: {Phase.ACQUIRING, Phase.FOLLOWING},
        LegacySeen: {Phase.FOLLOWING, Phase.ACQUIRING, Phase.LEADING},
        LegacyFailed: {Phase.FOLLOWING},
    },
    Phase.LEADING: {
        LeaseSeen: {Phase.LEADING, Phase.RECOVERING, Phase.LOST},
        LeaseUnusable: {Phase.LEADING, Phase.LOST},
        LegacySeen: {Phase.LEADING, Phase.LOST},
        Tick: {Phase.RENEWING, Phase.RECOVERING, Phase.LOST},
        RaiseFloor: {Phase.LEADING, Phase.LOST},
        HolderGone: {Phase.LEADING},
        HeadStart: {Phase.LEADING},
        StepDown: {Phase.RELEASING},
        Release: {Phase.RELEASING},
        Stop: {Phase.STOPPED},
    },
    Phase.RENEWING: {
        Written: {Phase.LEADING, Phase.RECOVERING, Phase.LOST},
        Conflict: {Phase.RENEWING, Phase.RECOVERING, Phase.LOST},
        Failed: {Phase.LEADING, Phase.RECOVERING, Phase.LOST},
        NotWritten: {Phase.LEADING, Phase.RECOVERING, Phase.LOST},
        LeaseSeen: {Phase.LEADING, Phase.RENEWING, Phase.RECOVERING, Phase.LOST},
        LeaseUnusable: {Phase.LOST},
        ReadFailed: {Phase.LEADING, Phase.RECOVERING, Phase.LOST},
        LegacyWritten: {Phase.RENEWING, Phase.LEADING, Phase.LOST},
        LegacySeen: {Phase.LEADING, Phase.RENEWING, Phase.LOST},
        LegacyFailed: {Phase.LEADING, Phase.LOST},
    },
    Phase.RECOVERING: {
        LeaseSeen: {Phase.RECOVERING, Phase.REGAINING, Phase.LOST},
        LeaseUnusable: {Phase.RECOVERING, Phase.LOST},  # recovering: it is older news
        Tick: {Phase.RECOVERING, Phase.REGAINING, Phase.LOST},
        RaiseFloor: {Phase.RECOVERING, Phase.LOST},
        HolderGone: {Phase.RECOVERING},
        HeadStart: {Phase.RECOVERING},
        StepDown: {Phase.RELEASING},
        Release: {Phase.RELEASING},
        Stop: {Phase.STOPPED},
    },
    Phase.REGAINING: {
        Written: {Phase.LEADING, Phase.RECOVERING, Phase.REGAINING, Phase.LOST},  # the last three: it came too late
        Conflict: {Phase.REGAINING, Phase.RECOVERING, Phase.LOST},
        Failed: {Phase.RECOVERING, Phase.LOST},
        NotWritten: {Phase.RECOVERING, Phase.LOST},
        LeaseSeen: {Phase.REGAINING, Phase.RECOVERING, Phase.LOST},
        LeaseUnusable: {Phase.LOST},
        ReadFailed: {Phase.RECOVERING, Phase.LOST},
    },
    Phase.RELEASING: {
        Written: {Phase.RELEASING, Phase.FOLLOWING, Phase.LOST, Phase.STOPPED},  # releasing: the legacy lock is next
        Conflict: {Phase.RELEASING},
        Failed: {Phase.FOLLOWING, Phase.LOST, Phase.STOPPED},
        NotWritten: {Phase.FOLLOWING, Phase.LOST, Phase.STOPPED},
        LeaseSeen: {Phase.RELEASING, Phase.FOLLOWING, Phase.LOST, Phase.STOPPED},
        LeaseUnusable: {Phase.FOLLOWING, Phase.LOST, Phase.STOPPED},
        ReadFailed: {Phase.FOLLOWING, Phase.LOST, Phase.STOPPED},
        LegacyWritten: {Phase.FOLLOWING, Phase.LOST, Phase.STOPPED},
        LegacySeen: {Phase.RELEASING, Phase.FOLLOWING, Phase.LOST, Phase.STOPPED},
        LegacyFailed: {Phase.FOLLOWING, Phase.LOST, Phase.STOPPED},
    },
    Phase.LOST: {
        LeaseSeen: {Phase.LOST},
        LeaseUnusable: {Phase.LOST},
        LegacySeen: {Phase.LOST},
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
