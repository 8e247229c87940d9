"""Sends what it reads from stdin by one of Python's clients, in a process with no fence; answers with the status."""

from __future__ import annotations

import json
import sys

import yaml

from tests.fencing.clients import CLIENTS


def main() -> None:
    """Serve until stdin ends."""
    made = {}
    with open(sys.argv[1]) as file:
        token = yaml.safe_load(file)["users"][0]["user"]["token"]
    for line in sys.stdin:
        asked = json.loads(line)
        client = asked["client"]
        if client not in made:
            made[client] = CLIENTS[client](sys.argv[1], token)
        print(made[client](asked["method"], asked["path"], asked["body"])[0], flush=True)


if __name__ == "__main__":
    main()
