"""What a start imports: a replica is as soon ready as that is done, and the rest is loaded when it is used."""

from __future__ import annotations

import subprocess
import sys

ASK = "import sys; {imports}; print(*sys.modules, sep='\\n')"


def imported(imports: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", ASK.format(imports=imports)], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_a_replica_loads_few_of_the_hundreds_of_models() -> None:
    # the kubernetes client loads them when they are used, in release 37; all of them take over a second
    modules = imported("import kopf_ha.run, kopf_ha.cli")
    models = [name for name in modules if name.startswith("kubernetes.client.models.")]
    apis = [name for name in modules if name.startswith("kubernetes.client.api.")]
    assert len(models) < 50
    assert apis == []


def test_a_replica_loads_no_client_that_no_fence_covers() -> None:
    assert not any(name.startswith("kubernetes.aio") for name in imported("import kopf_ha.run, kopf_ha.cli"))


def test_what_only_prints_loads_no_client() -> None:
    modules = imported("import kopf_ha.cli")  # --help, --version, manifests
    assert not {"kopf", "kubernetes", "pykube", "aiohttp"} & set(modules)


def test_a_replica_loads_nothing_of_the_commands_for_people() -> None:
    assert not any(name.startswith("kopf_ha.oncall") for name in imported("import kopf_ha.run, kopf_ha.cli"))


def test_the_help_of_the_commands_for_people_loads_no_client() -> None:
    ask = "from kopf_ha.cli import ON_CALL; import importlib; [importlib.import_module(m) for m in ON_CALL.values()]"
    assert not {"kopf", "kubernetes", "pykube", "aiohttp"} & set(imported(ask))
