"""Runs `kopf-ha` with the identity of another process, FAULTS_IDENTITY, which its command line does not allow."""

from __future__ import annotations

import os


def main() -> None:
    """Run it."""
    from kopf_ha import settings

    identity = os.environ["FAULTS_IDENTITY"]
    settings.new_identity = lambda environ=None: (identity, os.environ["POD_UID"])
    from kopf_ha.cli import entry

    entry()


if __name__ == "__main__":
    main()
