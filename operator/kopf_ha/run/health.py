"""What the kubelet is told: ``/readyz`` and ``/livez``, from threads that the operator's code cannot block.

Readiness says whether this replica can lead, now or when its turn comes. Liveness says whether a restart would
help: an API server that is away makes a replica unready, and never unlive. docs/observability.md has the table.

The election closes the grant by itself, and the process ends by itself, long before liveness fails; it is the net
under both, for a thread that hangs where nothing watches it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

from kopf_ha.core.grant import Grant
from kopf_ha.election.listwatch import SILENCE
from kopf_ha.election.signs import Signs
from kopf_ha.run.serving import Server
from kopf_ha.settings import Settings

#: Seconds above what the election and the runner allow themselves, before a restart is asked for.
MARGIN = 5.0
#: Seconds without a turn after which a thread is taken for hung. It turns every retry period, and each of its
#: requests ends by a time-out; only the resolution of names has none, and takes half a minute at worst.
HUNG = 60.0

#: A check's name, and the sentence that says what is wrong; empty when nothing is.
Check = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Vitals:
    """What the checks look at. Times are seconds on the machine's boot-time clock.

    Args:
        signs: of the election.
        phase: of the election.
        grant: of the present term; None between terms.
        began: when the present term did.
        step: when the runner began what it is at, its own start included; None while it waits for news.
        draining: since when a term is drained; None when none is.
        stopping: why the process stops; empty while it does not.
        everywhere: whether webhooks and indices of every replica are there; True when none are wanted.
    """

    signs: Signs
    phase: str
    grant: Grant | None = None
    began: float = -math.inf
    step: float | None = None
    draining: float | None = None
    stopping: str = ""
    everywhere: bool = True


def readiness(v: Vitals, s: Settings, now: float) -> list[Check]:
    """Say whether this replica leads, or follows with a live watch of the Lease."""
    return [
        ("stopping", f"stopping: {v.stopping}" if v.stopping else ""),
        ("election", _watch(v, s, now)),
        ("term", _between_terms(v)),
        ("everywhere", "" if v.everywhere else "webhooks or indices of every replica are not there yet"),
    ]


def liveness(v: Vitals, s: Settings, now: float) -> list[Check]:
    """Say whether everything turns that only a restart would bring to turn again."""
    whole = s.drain_timeout + s.renew_deadline + HUNG
    return [
        ("election", _election(v, s, now)),
        ("lease", _lease(v, now)),
        ("loop", _loop(v, s, now)),
        ("drain", _since(v.draining, s.drain_timeout, now, "handlers of a term that ended run on")),
        ("runner", _since(v.step, whole, now, "the runner stands still")),
    ]


def _watch(v: Vitals, s: Settings, now: float) -> str:
    if v.signs.trouble:
        return v.signs.trouble
    if math.isinf(v.signs.heard):
        return f"Lease {s.lease} was not seen yet"
    silent = now - v.signs.heard
    # After the silence the watch lists anew, which may take half a renew deadline.
    if silent > SILENCE + s.renew_deadline:
        return f"the watch of Lease {s.lease} brought nothing for {silent:.0f} s"
    return ""


def _between_terms(v: Vitals) -> str:
    if v.phase == "stopped":
        return "the election ended"
    if v.draining is not None:
        return "a term that ended is drained"
    if v.phase == "lost":
        return "waits before it takes part again, after a term that ended"
    return ""


def _election(v: Vitals, s: Settings, now: float) -> str:
    if v.stopping or math.isinf(v.signs.turned):
        return ""  # its threads end, or are not started yet
    if not v.signs.alive:
        return "the election's thread ended"
    if now - v.signs.turned > HUNG + s.renew_deadline:
        return f"the election's thread stands still for {now - v.signs.turned:.0f} s"
    if not v.signs.watching:
        return "" if math.isinf(v.signs.watch_turned) else "the thread of the Lease's watch ended"
    if now - v.signs.watch_turned > SILENCE + HUNG + s.renew_deadline:
        return f"the thread of the Lease's watch stands still for {now - v.signs.watch_turned:.0f} s"
    return ""


def _lease(v: Vitals, now: float) -> str:
    """Say whether a grant is kept that can no longer be right, as client-go's `HealthzAdaptor` does.

    The election closes it one renew deadline after the last renewal, and it is void when its lease ran out.
    """
    grant = v.grant
    if grant is None or grant.closed or now <= grant.deadline + MARGIN:
        return ""
    return f"leads by a Lease that ran out {now - grant.deadline:.0f} s ago"


def _loop(v: Vitals, s: Settings, now: float) -> str:
    silent = now - max(v.signs.beat, v.began)
    if v.grant is None or v.stopping or silent <= s.renew_deadline + MARGIN:
        return ""  # while it stops, the loop ends and the Lease is given back; what hangs is drained for too long
    return f"the event loop is blocked for {silent:.0f} s; call blocking code in a sync handler or a thread"


def _since(began: float | None, allowed: float, now: float, what: str) -> str:
    if began is None or now - began <= allowed + MARGIN:
        return ""
    return f"{what} for {now - began:.0f} s, {allowed:g} s are allowed"


class Health:
    """Serves the checks of one runner.

    Args:
        settings: the port, the durations.
        look: gives the vitals; called in a server's thread, so it reads and changes nothing.
        clock: the machine's boot-time clock, in seconds.
    """

    def __init__(self, settings: Settings, look: Callable[[], Vitals], clock: Callable[[], float]) -> None:
        self._settings = settings
        self._look = look
        self._clock = clock

    def checks(self, path: str) -> list[Check] | None:
        """Give the checks of a path; None for a path that has none."""
        if path not in ("/readyz", "/livez", "/healthz"):
            return None
        ask = readiness if path == "/readyz" else liveness
        # First the vitals, then the time: what happens in between must not look like the future.
        vitals = self._look()
        return ask(vitals, self._settings, self._clock())

    def serve(self) -> Server | None:
        """Serve them; nowhere for port 0.

        Raises:
            ConfigurationError: the port cannot be had.
        """
        port = self._settings.health_port
        return Server("health", port, _handler(self.checks)) if port else None


def answer(path: str, checks: Iterable[Check], *, verbose: bool) -> tuple[int, str]:
    """Give status and text, written as Kubernetes' own components do."""
    checks = list(checks)
    wrong = [(name, sentence) for name, sentence in checks if sentence]
    status, word = (503, "failed") if wrong else (200, "passed")
    if verbose:
        lines = [f"[-]{name} failed: {why}" if why else f"[+]{name} ok" for name, why in checks]
        return status, "\n".join([*lines, f"{path.strip('/')} check {word}", ""])
    return status, "".join(f"{why}\n" for _, why in wrong) or "ok\n"


def _handler(checks: Callable[[str], list[Check] | None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            path = url.path.rstrip("/")
            found = checks(path)
            if found is None:
                self._send(404, "there are /readyz and /livez, each with ?verbose\n")
            else:
                verbose = "verbose" in parse_qs(url.query, keep_blank_values=True)
                self._send(*answer(path, found, verbose=verbose))

        do_HEAD = do_GET  # noqa: N815  the name is the base class's

        def _send(self, status: int, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Cache-Control", "no-cache, no-store, must-revalidate")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def version_string(self) -> str:
            return "kopf-ha"

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: the kubelet asks every few seconds."""

    return Handler
