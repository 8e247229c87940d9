"""What happens to clocks of replicas (see clock.py)."""

from __future__ import annotations

from dataclasses import replace

from faults.stand import Stand
from faults.table import Fault, Scene, is_lease

DAY = 86_400.0
#: How fast a clock goes that is wrong.
SLOW, FAST = 0.1, 12.0


def no_compiler(stand: Stand) -> str:
    """Say why clocks cannot be changed."""
    return "" if stand.shim else "there is no C compiler for faults/clock.c"


def day_ahead(s: Scene) -> None:
    """The leader's wall clock jumps."""
    s.leader.clock.wall(ahead=DAY)


def day_back(s: Scene) -> None:
    """The leader's wall clock jumps back."""
    s.leader.clock.wall(ahead=-DAY)


def mended(s: Scene) -> None:
    """All clocks tell the time."""
    for seat in s.stand.seats:
        seat.clock.heal()
        seat.link.heal()


def slept(s: Scene) -> None:
    """The leader's machine slept for ten leases: its clock since the boot is ahead, and nothing else noticed."""
    s.leader.clock.boot(ahead=10 * s.lease)


def late_gate(s: Scene) -> None:
    """The leader's clock is ten times too slow, and the Lease's requests do not arrive: its gate stays open."""
    s.leader.clock.boot(rate=SLOW)
    s.leader.link.holds = is_lease


def hasty(s: Scene) -> None:
    """A follower's clock is so fast that to it the Lease expires before the leader's next renewal."""
    s.others[0].clock.boot(rate=FAST)


def kopfs_times(s: Scene) -> None:
    """Claims of a pool that is not there wait, by the clock of a leader that is a day ahead; then it is killed.

    What Kopf writes down for its own retries is a wall clock's time, and the next leader would wait for a day.
    """
    s.leader.clock.wall(ahead=DAY)
    pool = f"late-{s.token}"
    names = {s.stand.users.claim(pool=pool) for _ in range(3)}
    s.memory["pool"] = pool
    s.stand.serves(but=names)
    s.leader.clock.heal()
    s.leader.kill()
    s.stand.users.pool(pool, f"10.{80 + s.token % 100}.0.0/24")


_AHEAD = Fault(
    "leader's wall clock jumps a day ahead",
    day_ahead,
    mended,
    hold=2.0,
    bound=1.0,
    raw=False,
    cannot=no_compiler,
    why="nobody looks at it",
)

ROWS = [
    _AHEAD,
    replace(_AHEAD, name="leader's wall clock jumps a day back", put=day_back),
    Fault(
        "wall clock a day ahead while claims wait, then the leader is killed and their pool made",
        kopfs_times,
        mended,
        bound=2.0,
        seconds=10.0,
        cannot=no_compiler,
        raw=False,
        why="the Lease is proved to be free, a term begins, and claims are looked at again",
    ),
    Fault(
        "leader's machine slept for ten leases",
        slept,
        mended,
        bound=2.0,
        cannot=no_compiler,
        why="its gate is closed at once; it or another one leads",
    ),
    Fault(
        "leader's clock ten times too slow, and the Lease's requests do not arrive",
        late_gate,
        mended,
        taken=True,
        hold=2.0,
        cannot=no_compiler,
        quick=True,
    ),
    Fault(
        "a follower's clock twelve times too fast",
        hasty,
        mended,
        hold=2.0,
        bound=2.0,
        taken=True,
        cannot=no_compiler,
        why="it takes the Lease too early; what is stale then is refused",
    ),
]
