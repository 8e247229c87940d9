"""The probes ``/readyz`` and ``/livez``, answered in threads that the operator's code cannot block.

Readiness says whether this replica can lead, now or when its turn comes. Liveness says whether a restart would help:
an API server that does not answer makes a replica unready, but does not fail its liveness. The table of both is in
docs/observability.md.

Long before liveness fails, the election closes the grant, or the process ends by itself. Liveness is the safety net for
a thread that hangs where nothing else notices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from kopf_ha.core.grant import Grant
from kopf_ha.election.listwatch import SILENCE
from kopf_ha.election.signs import Signs
from kopf_ha.run.serving import Answer, Server, answering
from kopf_ha.settings import Settings

#: Seconds beyond what the election and the runner allow themselves, before liveness fails.
MARGIN = 5.0
#: Seconds without a turn of its loop after which a thread counts as hung. It turns every retry period, and each of its
#: requests has a timeout; only name resolution has none, and takes half a minute at worst.
HUNG = 60.0

#: A check's name, and what is wrong, in a sentence; empty if nothing is.
Check = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Vitals:
    """What the checks look at. Times are seconds on the machine's boot-time clock.

    Args:
        signs: of life, from the election.
        phase: of the election.
        grant: of the present term; None between terms.
        began: when the present term began.
        step: when the runner began to deal with the present event, or to start; None while it waits for an event.
        draining: since when the handlers of a term that ended are waited for; None if they are not.
        stopping: why the process stops; empty while it does not.
        never: a line for each code path of the operator whose writes are refused in every term.
        everywhere: whether `kopf_ha.everywhere` is ready, or has no handlers.
        paused: by whom the Lease is paused, and why; empty if it is not. Replicas stay ready.
    """

    signs: Signs
    phase: str
    grant: Grant | None = None
    began: float = -math.inf
    step: float | None = None
    draining: float | None = None
    stopping: str = ""
    everywhere: bool = True
    never: tuple[str, ...] = ()
    paused: str = ""


def readiness(v: Vitals, s: Settings, now: float) -> list[Check]:
    """Check whether this replica leads, or follows with a live watch of the Lease."""
    return [
        ("stopping", f"stopping: {v.stopping}" if v.stopping else ""),
        ("election", _watch(v, s, now)),
        ("term", _between_terms(v)),
        ("everywhere", "" if v.everywhere else "kopf_ha.everywhere is not ready: its webhooks or indices"),
    ]


def notes(v: Vitals) -> list[str]:
    """Return what makes no replica unready, since no other replica would do better."""
    paused = [f"nobody leads: {v.paused}"] if v.paused else []
    return [*paused, *(f"a write that is refused in every term: {line}" for line in v.never)]


def liveness(v: Vitals, s: Settings, now: float) -> list[Check]:
    """Check what only a restart would repair."""
    whole = s.drain_timeout + s.renew_deadline + HUNG
    return [
        ("election", _election(v, s, now)),
        ("lease", _lease(v, s, now)),
        ("loop", _loop(v, s, now)),
        ("drain", _since(v.draining, s.drain_timeout, now, "handlers of a term that ended have run")),
        ("runner", _since(v.step, whole, now, "the runner has been busy with one event")),
    ]


def _watch(v: Vitals, s: Settings, now: float) -> str:
    if v.signs.trouble:
        return v.signs.trouble
    if math.isinf(v.signs.heard):
        return f"Lease {s.lease} has not been seen yet"
    silent = now - v.signs.heard
    # After the silence the watch lists again, which may take half a renew deadline.
    if silent > SILENCE + s.renew_deadline:
        return f"the watch of Lease {s.lease} has been silent for {silent:.0f} s"
    return ""


def _between_terms(v: Vitals) -> str:
    if v.phase == "stopped":
        return "the election ended"
    if v.draining is not None:
        return "handlers of a term that ended are still running"
    if v.phase in ("recovering", "regaining") and v.grant is not None:
        return f"writes wait: {v.grant.held}"
    if v.phase == "lost":
        return "waiting after a term that ended, before taking part in the election again"
    return ""


def _election(v: Vitals, s: Settings, now: float) -> str:
    if v.stopping or math.isinf(v.signs.turned):
        return ""  # its threads are ending, or are not started yet
    if not v.signs.alive:
        return "the election's thread ended"
    if now - v.signs.turned > HUNG + s.renew_deadline:
        return f"the election's thread has hung for {now - v.signs.turned:.0f} s"
    if not v.signs.watching:
        return "" if math.isinf(v.signs.watch_turned) else "the thread of the Lease's watch ended"
    if now - v.signs.watch_turned > SILENCE + HUNG + s.renew_deadline:
        return f"the thread of the Lease's watch has hung for {now - v.signs.watch_turned:.0f} s"
    return ""


def _lease(v: Vitals, s: Settings, now: float) -> str:
    """Check that no grant stays unclosed after its lease expired, as client-go's `HealthzAdaptor` does.

    Nothing leaves by then, and the election should have held it one renew deadline after the last renewal, and closed
    it when the term could recover no more.
    """
    grant = v.grant
    if grant is None or grant.closed or now <= grant.deadline + s.timing.recovery + MARGIN:
        return ""
    return f"leads by a Lease that expired {now - grant.deadline:.0f} s ago"


def _loop(v: Vitals, s: Settings, now: float) -> str:
    silent = now - max(v.signs.beat, v.began)
    if v.grant is None or v.stopping or silent <= s.renew_deadline + MARGIN:
        return ""  # while the process stops, the loop ends, and the check "drain" sees what hangs
    return f"the event loop has been blocked for {silent:.0f} s; move blocking code to a sync handler or a thread"


def _since(began: float | None, allowed: float, now: float, what: str) -> str:
    if began is None or now - began <= allowed + MARGIN:
        return ""
    return f"{what} for {now - began:.0f} s; {allowed:g} s are allowed"


class Health:
    """Serves the checks of one runner.

    Args:
        settings: the port, the durations.
        look: returns the vitals; called in the server's thread, so it only reads.
        clock: the machine's boot-time clock, in seconds.
    """

    def __init__(self, settings: Settings, look: Callable[[], Vitals], clock: Callable[[], float]) -> None:
        self._settings = settings
        self._look = look
        self._clock = clock

    def checks(self, path: str) -> list[Check] | None:
        """Return the checks of a path; None for an unknown path."""
        if path not in ("/readyz", "/livez", "/healthz"):
            return None
        ask = readiness if path == "/readyz" else liveness
        # The vitals first, so that none of their times is after this one.
        vitals = self._look()
        return ask(vitals, self._settings, self._clock())

    def notes(self, path: str) -> list[str]:
        """Return the notes of a path."""
        return notes(self._look()) if path == "/readyz" else []

    def answer(self, target: str) -> Answer:
        """Answer a request with this path and query."""
        url = urlsplit(target)
        path = url.path.rstrip("/")
        found = self.checks(path)
        if found is None:
            return Answer(404, "not found: ask /readyz or /livez, with ?verbose for each check\n")
        verbose = "verbose" in parse_qs(url.query, keep_blank_values=True)
        return Answer(*answer(path, found, verbose=verbose, notes=self.notes(path)))

    def serve(self) -> Server | None:
        """Serve them; return None for port 0.

        Raises:
            ConfigurationError: the port is not available.
        """
        port = self._settings.health_port
        return Server("health", port, answering(self.answer)) if port else None


def answer(path: str, checks: Iterable[Check], *, verbose: bool, notes: Iterable[str] = ()) -> tuple[int, str]:
    """Return status and text, in the format of Kubernetes' own components. Notes fail nothing, and are verbose."""
    checks = list(checks)
    wrong = [(name, sentence) for name, sentence in checks if sentence]
    status, word = (503, "failed") if wrong else (200, "passed")
    if verbose:
        lines = [f"[-]{name} failed: {why}" if why else f"[+]{name} ok" for name, why in checks]
        lines += [f"[!]{note}" for note in notes]
        return status, "\n".join([*lines, f"{path.strip('/')} check {word}", ""])
    return status, "".join(f"{why}\n" for _, why in wrong) or "ok\n"
