"""What the modules of benchmarks/ may be called."""

import sys
import sysconfig
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
LIBRARIES = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.py")))
def test_a_peer_that_is_started_as_a_script_imports_the_libraries_and_not_their_namesakes(name: str) -> None:
    assert name not in sys.stdlib_module_names
    assert PathFinder.find_spec(name, LIBRARIES) is None
