"""Runs `python -m image`, which is `scripts/image`."""

from image.cli import main

main(prog_name="scripts/image")
