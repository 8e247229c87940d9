"""A control plane for each test, since policies in force would disturb others, with a node that runs pods."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster import Binaries, ControlPlane
from tests.adoption.node import Node
from tests.adoption.shop_world import SHOP, Shop


@pytest.fixture
def plane(binaries: Binaries, tmp_path: Path) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path / "state", binaries=binaries) as made:
        yield made


@pytest.fixture
def shop(plane: ControlPlane, tmp_path: Path) -> Iterator[Shop]:
    """The shop's operator and its manifests in a folder, with nothing applied yet."""
    folder = tmp_path / "shop"
    shutil.copytree(SHOP, folder)
    logs = tmp_path / "logs"
    logs.mkdir()
    with Node(plane, logs, folder, SHOP.parent / "older") as node:
        yield Shop(plane, node, folder)
