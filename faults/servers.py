"""What happens to API servers and etcd."""

from __future__ import annotations

import json
import ssl
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from devcluster.process import Process
from faults.stutter import Stutter
from faults.table import Fault, Scene

BACK = "the API server answers again, the Lease is free or expired, and a term begins"


def restart_api(s: Scene) -> None:
    """Stop the API server in order, and start it at once."""
    server = s.stand.plane.apiserver(0)
    server.stop(30)
    server.start()
    server.wait_ready()


def stop_api(s: Scene) -> None:
    """Kill the API server."""
    s.stand.plane.apiserver(0).kill()


def start_api(s: Scene) -> None:
    """Start it again."""
    s.stand.plane.apiserver(0).start()
    s.stand.plane.apiserver(0).wait_ready()


def pause_api(s: Scene) -> None:
    """Have the API server stand still."""
    s.stand.plane.apiserver(0).pause()


def resume_api(s: Scene) -> None:
    """Let it go on."""
    s.stand.plane.apiserver(0).resume()
    s.stand.plane.apiserver(0).wait_ready()


def _move(s: Scene) -> None:
    """Have the leader use the second API server."""
    s.leader.link.turn(s.stand.plane.servers[1])


def second_stops(s: Scene) -> None:
    """Have the leader use the second API server, which then stands still."""
    _move(s)
    s.stand.serves()
    s.stand.plane.apiserver(1).pause()


def second_goes_on(s: Scene) -> None:
    """Let it go on, and the leader use the first."""
    s.stand.plane.apiserver(1).resume()
    s.leader.link.turn(s.stand.plane.servers[0])


def second_lags(s: Scene) -> None:
    """Have the leader use the second API server, which learns nothing more."""
    _move(s)
    s.stand.serves()
    s.stand.plane.watch_lag.freeze()


def leader_of_a_lagging_server(s: Scene) -> None:
    """All use a server that learns everything two leases late; then the leader is asked to end."""
    for seat in s.stand.seats:
        seat.link.turn(s.stand.plane.servers[1])
    s.stand.serves()
    s.stand.plane.watch_lag.delay(2 * s.lease)
    s.leader.replica.terminate()


def second_learns(s: Scene) -> None:
    """Let it learn, and all use the first."""
    s.stand.plane.watch_lag.delay(0)
    for seat in s.stand.seats:
        if seat.link._upstream != s.stand.plane.servers[0]:
            seat.link.turn(s.stand.plane.servers[0])


def members(s: Scene, *numbers: int) -> list[Process]:
    """Give members of etcd."""
    return [s.stand.plane.etcd(number) for number in numbers]


def leading_member(s: Scene) -> int:
    """Give the number of the member of etcd that leads."""
    count = 3 if s.stand.large else 1
    for number in range(count):
        told = maintain(s, number, "status", {})
        if told.get("leader") == told["header"]["member_id"]:
            return number
    return 0


def kill_member(s: Scene) -> None:
    """Kill the member of etcd that leads."""
    s.memory["members"] = members(s, leading_member(s))
    for member in s.memory["members"]:
        member.kill()


def kill_two(s: Scene) -> None:
    """Kill two of three members: no quorum is left."""
    first = leading_member(s)
    s.memory["members"] = members(s, first, (first + 1) % 3)
    for member in s.memory["members"]:
        member.kill()


def start_members(s: Scene) -> None:
    """Start them again."""
    for member in s.memory["members"]:
        member.start()
    for member in s.memory["members"]:
        member.wait_ready()


def pause_etcd(s: Scene) -> None:
    """Have etcd stand still."""
    s.stand.plane.etcd(0).pause()


def resume_etcd(s: Scene) -> None:
    """Let it go on."""
    s.stand.plane.etcd(0).resume()


def slow_disk(s: Scene) -> None:
    """Have each commit of etcd take about a third of a second: it stands still for that long, again and again.

    The control plane's etcd does not wait for its disk, so a slow disk would change nothing.
    """
    s.memory["disk"] = Stutter(s.stand.plane.etcd(0).pid, still=0.35, runs=0.03)


def fast_disk(s: Scene) -> None:
    """Let it be."""
    s.memory["disk"].end()


def maintain(s: Scene, member: int, what: str, body: dict[str, Any]) -> dict[str, Any]:
    """Ask a member of etcd something about itself."""
    plane = s.stand.plane
    context = ssl.create_default_context(cafile=str(plane.etcd_ca))
    context.load_cert_chain(plane.etcd_cert, plane.etcd_key)
    url = f"{plane.etcd_endpoints[member]}/v3/maintenance/{what}"
    asked = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(asked, timeout=10, context=context) as answer:  # noqa: S310
        return dict(json.loads(answer.read()))


def alarm(action: str) -> Callable[[Scene], None]:
    """Raise the alarm that etcd raises when its disk is full, or end it."""

    def do(s: Scene) -> None:
        member = maintain(s, 0, "status", {})["header"]["member_id"]
        maintain(s, 0, "alarm", {"action": action, "memberID": member, "alarm": "NOSPACE"})

    return do


_AWAY = Fault(
    "API server killed for a lease and a half",
    stop_api,
    start_api,
    heals=False,
    hold=1.5,
    bound=2.0,
    seconds=5.0,
    why=f"{BACK}; clients try again after some seconds",
)

ROWS = [
    Fault(
        "API server restarted", restart_api, bound=2.0, seconds=5.0, why=f"{BACK}; clients try again after some seconds"
    ),
    _AWAY,
    replace(_AWAY, name="API server stands still for a lease and a half", put=pause_api, lift=resume_api),
    Fault(
        "API server stands still for half a lease",
        pause_api,
        resume_api,
        heals=False,
        hold=0.5,
        bound=1.0,
        seconds=2.0,
        why="nothing is lost; what waited is done",
        raw=False,
    ),
    Fault("two API servers, the leader's stands still", second_stops, second_goes_on, large=True, taken=True),
    Fault(
        "two API servers, the leader's learns nothing",
        second_lags,
        second_learns,
        large=True,
        heals=False,
        hold=2.0,
        bound=2.0,
        why="its watches bring what was held back",
    ),
    Fault(
        "two API servers, all at the one that is two leases late, SIGTERM to the leader",
        leader_of_a_lagging_server,
        second_learns,
        large=True,
        bound=4.0,
        seconds=12.0,
        raw=False,
        why="the release, and Kopf's patch of the claim, are seen two leases late each; lists wait, too",
    ),
    replace(_AWAY, name="etcd stands still for a lease and a half", put=pause_etcd, lift=resume_etcd),
    Fault(
        "etcd's leading member killed",
        kill_member,
        start_members,
        large=True,
        bound=2.0,
        seconds=3.0,
        raw=False,
        why="etcd elects in about a second; a renewal may come too late",
    ),
    Fault(
        "etcd without a quorum for a lease and a half",
        kill_two,
        start_members,
        large=True,
        heals=False,
        hold=1.5,
        bound=2.0,
        seconds=5.0,
        why=f"{BACK}; clients try again after some seconds",
    ),
    Fault(
        "etcd's disk is full (NOSPACE)",
        alarm("ACTIVATE"),
        alarm("DEACTIVATE"),
        heals=False,
        hold=1.5,
        bound=2.0,
        seconds=5.0,
        why=f"{BACK}; clients try again after some seconds",
    ),
    Fault(
        "each commit takes a third of a second",
        slow_disk,
        fast_disk,
        hold=2.0,
        bound=3.0,
        raw=False,
        why="each of the five writes of an allocation waits for several commits",
    ),
]
