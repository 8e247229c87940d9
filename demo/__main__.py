"""`python -m demo`: the story, and an exit status that is the judge's."""

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
    """Tell the story; exit with 0 when every promise held, with 1 when one broke, with 2 when it got stuck."""
    try:
        binaries = Binaries.find()  # before there is a panel on the terminal: a build has a line of its own there
    except DevclusterError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    with tempfile.TemporaryDirectory(prefix="kopf-ha-demo-") as folder, Timeline() as timeline:
        try:
            verdict = tell(timeline, binaries, Path(folder), fence)
        except DevclusterError as error:
            timeline.say("bad", str(error))
            for log in sorted(Path(folder).glob("*.log")):
                print(f"--- {log.name}\n{log.read_text()[-3000:]}", file=sys.stderr)
            raise SystemExit(2) from error
        except KeyboardInterrupt:
            timeline.say("fault", "stopped")
            raise SystemExit(130) from None
    raise SystemExit(0 if verdict.ok else 1)


if __name__ == "__main__":
    main()
