"""`python -m chart` writes deploy/chart anew. A test says when that is due."""

from __future__ import annotations

import sys

from chart.files import CHART, files


def main() -> int:
    """Write what differs, and name it; return the exit status."""
    for name, text in files().items():
        path = CHART / name
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            print(f"wrote {path.relative_to(CHART.parents[1])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
