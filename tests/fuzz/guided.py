"""Fuzzes the rules of this folder by coverage, with atheris: `python -m tests.fuzz.guided --minutes 10`.

hypothesis draws from what the rules say that may come in. atheris watches which code of ours an example reaches, and
changes those that reached something new. The bytes that it changes are what hypothesis draws from, so both try the same
rules. Each rule has a process of its own, since one that crashes ends it.

What reached something new is kept in `corpus/RULE` below the folder, and tried first in the next run. What fails is
kept in `failed/RULE`, and by hypothesis, so that pytest tries it, too, if it has the same `KOPF_HA_FUZZ`.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

#: Modules with rules, all of `@given`.
MODULES = tuple(sorted(path.stem for path in Path(__file__).parent.glob("test_*.py")))
#: What coverage is measured in.
OURS = ["kopf_ha", "kopf_ha_ipam"]
#: Seconds for one example. It is much for one, and little for one that would never end.
ENDLESS = 60
#: Examples to begin with.
SEEDS = 32


def rules() -> Iterator[tuple[str, Any]]:
    """Give each rule's name and test."""
    for module in MODULES:
        for name, test in vars(importlib.import_module(f"tests.fuzz.{module}")).items():
            if name.startswith("test_") and hasattr(test, "hypothesis"):
                yield f"{module}.{name}", test


def fuzz_one(rule: str, folder: Path, seconds: float) -> None:
    """Fuzz one rule. Does not return: the process ends, with another status than 0 if an example failed."""
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=OURS):
        test = dict(rules())[rule]
    corpus, failed = folder / "corpus" / rule, folder / "failed" / rule
    for made in (corpus, failed):
        made.mkdir(parents=True, exist_ok=True)
    if not any(corpus.iterdir()):
        for number in range(SEEDS):  # from a few bytes, most examples cannot be drawn at all
            (corpus / f"seed-{number}").write_bytes(random.Random(number).randbytes(64 * (number + 1)))
    flags = [
        f"-max_total_time={seconds:.0f}", f"-timeout={ENDLESS}", f"-artifact_prefix={failed}/",
        "-print_final_stats=1", "-verbosity=0", "-len_control=0",
    ]  # fmt: skip
    known = [str(path) for path in sorted(failed.iterdir())]
    for path in known:
        test.hypothesis.fuzz_one_input(Path(path).read_bytes())
    atheris.Setup([sys.argv[0], *flags, str(corpus)], test.hypothesis.fuzz_one_input)
    atheris.Fuzz()


def main(argv: Sequence[str] | None = None) -> int:
    """Fuzz all rules one after the other; give 1 if one of them failed."""
    parser = argparse.ArgumentParser("python -m tests.fuzz.guided")
    parser.add_argument("rules", nargs="*", help="some of them (default: all)")
    parser.add_argument("--minutes", type=float, default=10.0, help="for all of them (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("build/fuzz"), help="what is kept (default: %(default)s)")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    seconds = args.minutes * 60
    if args.one:
        fuzz_one(args.rules[0], args.folder, seconds)
    names = [name for name, _ in rules() if not args.rules or name in args.rules]
    failed, total = [], 0
    for name in names:
        each = f"--minutes={args.minutes / len(names)}"
        command = [sys.executable, "-m", __spec__.name, name, "--one", each, f"--folder={args.folder}"]
        env = os.environ | {"KOPF_HA_FUZZ": str(args.folder)}
        done = subprocess.run(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        ran = int(found[1]) if (found := re.search(r"number_of_executed_units: (\d+)", done.stdout)) else 0
        kept = len(list((args.folder / "corpus" / name).glob("*")))
        total += ran
        print(f"{'FAILED' if done.returncode else 'held  '} {name}: {ran} examples, {kept} kept", flush=True)
        if done.returncode:
            failed.append(name)
            print(*(line for line in done.stdout.splitlines() if "Instrumenting" not in line), sep="\n")
    print(f"guided: {total} examples of {len(names)} rules, {len(failed)} failed")
    return 1 if failed or not names else 0


if __name__ == "__main__":
    sys.exit(main())
