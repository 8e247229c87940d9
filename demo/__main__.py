"""Runs `python -m demo`. The exit status is that of the judge."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click

from demo.story import FENCES, tell
from demo.timeline import Timeline
from devcluster import Binaries, DevclusterError


@click.command()
@click.option("--fence", type=click.Choice(list(FENCES)), default="full", show_default=True, envvar="FENCE")
def main(fence: str) -> None:
    """Run the demo. Exit with 0 if every promise held, with 1 if one was broken, with 2 if the demo failed."""
    try:
        binaries = Binaries.find()  # before the panel is shown: a build writes its progress to the terminal
    except DevclusterError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    with tempfile.TemporaryDirectory(prefix="kopf-ha-demo-") as folder, Timeline() as timeline:
        try:
            ok = tell(timeline, binaries, Path(folder), fence)
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
