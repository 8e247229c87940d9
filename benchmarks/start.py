"""From the start of a container to a replica that is ready: `python -m benchmarks.start [--repeat 5]`.

The image's files on the stand-in base, run by runc with the variables and the security context of deploy/, a pod's
credentials and the host's network, against a control plane on this machine with all of deploy/ in force. Each clock
starts before runc does. The peers, in the same rounds and the same image, are a Python that does nothing, and one
that imports what `kopf-ha run -m kopf_ha_ipam.handlers` does: their clocks stop at a line of output, the replica's
when /readyz answers 200. The ratio is that of the times above the Python that does nothing. Root only: runc mounts.
"""

from __future__ import annotations

import argparse
import http.client
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from benchmarks.result import NotHereError, Row
from devcluster import ControlPlane, Progress
from devcluster.waiting import until
from image import base, build
from image.errors import ImageError
from image.tools import need
from testbed import deployment
from testbed.container import Container
from testbed.deployment import NAME, pod_token, variables
from testbed.ports import free_port
from testbed.unpacked import Image, unpack

NOTHING = "print('here')"
IMPORTS = "import kopf_ha.cli, kopf, kopf_ha.run, kopf_ha_ipam.handlers; print('here')"
#: Seconds between two looks.
EVERY = 0.002


class Stage:
    """The image and the cluster, and what starts in them."""

    def __init__(self, plane: ControlPlane, image: Image, folder: Path) -> None:
        self.plane, self.image, self.folder = plane, image, folder
        self.container = deployment.container(plane)
        self.pods = deployment.pods(plane)  #: they wait for a node for ever

    def says(self, code: str) -> float:
        """Give the seconds to the line that some Python prints at its end."""
        made = Container(self.folder, self.image.root, self.image.config["config"], ["python3", "-c", code])
        began = time.perf_counter()
        with made:
            until("the line", lambda: "here" in made.log, every=EVERY)
            took = time.perf_counter() - began
            made.wait(60)
        return took

    @contextmanager
    def replica(self, pod: dict[str, Any]) -> Iterator[Callable[[Callable[[str, int], bool]], float]]:
        """Start the replica of a pod; give what waits for a sign of its log and port, and gives the seconds since."""
        token = pod_token(self.plane, pod)
        account = self.folder / f"account-{pod['metadata']['name']}"
        account.mkdir(exist_ok=True)
        for file, content in (("token", token), ("ca.crt", self.plane.ca_file.read_text()), ("namespace", NAME)):
            (account / file).write_text(content)
        server = urlsplit(self.plane.servers[0])
        health = free_port()
        env = variables(self.container, pod) | {
            "KUBERNETES_SERVICE_HOST": str(server.hostname),
            "KUBERNETES_SERVICE_PORT": str(server.port),
            # a pod has an address of its own, these containers share one
            "KOPF_HA_HEALTH_PORT": str(health),
            "KOPF_HA_METRICS_PORT": str(free_port()),
        }
        made = Container(
            self.folder,
            self.image.root,
            self.image.config["config"],
            [*self.image.config["config"]["Entrypoint"], *self.container["args"]],
            env,
            {"/run/secrets/kubernetes.io/serviceaccount": account},
            scratch=["/run", "/run/kopf-ha"],
            network=True,
        )
        began = time.perf_counter()
        with made:

            def wait(sign: Callable[[str, int], bool]) -> float:
                until("the replica", lambda: sign(made.log, health), every=EVERY, watched=[made])
                return time.perf_counter() - began

            yield wait
            made.stop(60)


def ready(log: str, port: int) -> bool:
    """Whether /readyz answers 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def leads(log: str, port: int) -> bool:
    """Whether it was granted a token."""
    return "leading: token" in log


def first(stage: Stage) -> list[float]:
    """Start a replica while nobody holds the Lease."""
    with stage.replica(stage.pods[0]) as wait:
        return [wait(ready), wait(leads)]


def follower(stage: Stage) -> list[float]:
    """Start one while another one leads."""
    with stage.replica(stage.pods[1]) as wait:
        return [wait(ready)]


def rounds(stage: Stage, repeat: int, start: Callable[[Stage], list[float]]) -> list[list[float]]:
    """Give the seconds of nothing, of the imports and of the signs, a list of each; a round to warm up is left out."""
    all_of_them = [[stage.says(NOTHING), stage.says(IMPORTS), *start(stage)] for _ in range(repeat + 1)]
    return [list(column) for column in zip(*all_of_them[1:], strict=True)]


def measure(stage: Stage, repeat: int) -> Table:
    """Start first leaders, and then followers of one that stays."""
    table = Table("what", "Python, s", "imports, s", "until then, s", "all of them", "÷ imports, above Python")

    def add(names: list[str], columns: list[list[float]]) -> None:
        nothing, imports, *signs = (statistics.median(column) for column in columns)
        for name, sign, every in zip(names, signs, columns[2:], strict=True):
            spread = " ".join(f"{one:.2f}" for one in sorted(every))
            ratio = f"{(sign - nothing) / (imports - nothing):.2f}"
            table.add_row(name, f"{nothing:.2f}", f"{imports:.2f}", f"{sign:.2f}", spread, ratio)

    add(["first leader: ready", "first leader: leads"], rounds(stage, repeat, first))
    with stage.replica(stage.pods[0]) as wait:
        wait(leads)
        add(["follower: ready"], rounds(stage, repeat, follower))
    return table


@contextmanager
def stages() -> Iterator[Stage]:
    """Set image and cluster up.

    Raises:
        NotHereError: this machine cannot run the image.
    """
    if os.geteuid() != 0:
        raise NotHereError("it runs the image as a node does, and runc has to mount for that, which takes root")
    try:
        need("runc", "run the image")
        archive = build.on_debian(Progress(sys.stderr), base.MIRROR)
    except ImageError as error:
        raise NotHereError(str(error)) from error
    with tempfile.TemporaryDirectory() as name, ControlPlane() as plane:
        folder = Path(name)
        deployment.install(plane)
        yield Stage(plane, unpack(archive, folder), folder)


def run(plane: None, folder: Path, seconds: float) -> list[Row]:
    """Give rows, above a Python that does nothing; it makes its own cluster, where a container reaches it."""
    repeat = 3 if seconds < 120 else 7
    with stages() as stage:
        found = dict(
            zip(("first leader: ready", "first leader: has the Lease"), _above(stage, repeat, first), strict=True)
        )
        with stage.replica(stage.pods[0]) as wait:
            wait(leads)
            found["follower: ready"] = _above(stage, repeat, follower)[0]
    note = "without the time of a Python that does nothing"
    return [
        Row(what, "s", ours, "its imports alone", peer, goals=["ratio <= 2"], note=note)
        for what, (peer, ours) in found.items()
    ]


def _above(stage: Stage, repeat: int, start: Callable[[Stage], list[float]]) -> list[tuple[list[float], list[float]]]:
    """Give for each sign the seconds of the imports and until the sign, both without those of Python alone."""
    nothing, imports, *signs = rounds(stage, repeat, start)
    alone = statistics.median(nothing)
    above = [[seconds - alone for seconds in column] for column in (imports, *signs)]
    return [(above[0], sign) for sign in above[1:]]


def main() -> None:
    """Set image and cluster up, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    try:
        with stages() as stage:
            before = os.getloadavg()[0]
            console = Console(width=120)
            console.print(measure(stage, args.repeat))
            console.print(f"on {os.cpu_count()} cores; load {before:.1f} before, {os.getloadavg()[0]:.1f} after")
    except NotHereError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
