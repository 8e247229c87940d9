"""Runs `python -m demo`. The exit status is that of the judge."""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path

import click

from demo import places
from demo.story import FENCES, tell
from demo.timeline import Timeline
from devcluster import Binaries, DevclusterError


@click.command()
@click.option("--fence", type=click.Choice(list(FENCES)), default="full", show_default=True, envvar="FENCE")
@click.option("--kubeconfig", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Run it on the cluster of this file, in which you may do everything, and remove it from there in the"
              " end. By default it has a control plane of its own. The variable KUBECONFIG is not read.")  # fmt: skip
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), help="Also draw what it prints, as SVG.")
def main(fence: str, kubeconfig: Path | None, picture: Path | None) -> None:
    """Run the demo. Exit with 0 if every promise held, with 1 if one was broken, with 2 if the demo failed."""
    try:
        # Before the panel is shown: a build writes its progress to the terminal.
        binaries = Binaries.find() if kubeconfig is None else Binaries({})
    except DevclusterError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    # SIGTERM ends the control plane as Ctrl-C does, through the context manager.
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    with tempfile.TemporaryDirectory(prefix="kopf-ha-demo-") as folder, Timeline(picture) as timeline:
        try:
            if kubeconfig is not None:
                timeline.stage(f"0. The cluster of {kubeconfig}")
                place = places.existing(kubeconfig)
            else:
                timeline.stage("0. A control plane: etcd, kube-apiserver, kube-controller-manager")
                place = places.own(Path(folder), binaries)
            with place as found:
                ok = tell(timeline, found, Path(folder), fence)
        except DevclusterError as error:
            timeline.say("bad", str(error))
            for log in sorted(Path(folder).glob("*.log")):
                print(f"--- {log.name}\n{log.read_text()[-3000:]}", file=sys.stderr)
            raise SystemExit(2) from error
        except KeyboardInterrupt:
            timeline.say("fault", "stopped")
            raise SystemExit(130) from None
    raise SystemExit(0 if ok else 1)


if __name__ == "__main__":
    main()
