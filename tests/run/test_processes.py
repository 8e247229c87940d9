"""The command in a process of its own: signals, hard ends, logins, what the log says."""

from __future__ import annotations

import signal
from collections.abc import Callable

from devcluster import Cluster
from devcluster.waiting import until
from kopf_ha.run.ending import EXIT_STUCK
from tests.run.support import LONG, Replica, World

Start = Callable[..., Replica]

HANDLING = """
@kopf.on.create(GROUP, "v1", "things")
async def made(patch, logger, **_):
    logger.info("HANDLING in term %s", kopf_ha.current_term().token)
    await asyncio.sleep(6.5)
    patch.spec["done"] = kopf_ha.current_term().remaining() > 0
"""


def test_sigterm_drains_with_the_gate_open(replica: Start, world: World) -> None:
    """A handler that takes longer than a lease duration completes its write; then the Lease is given back."""
    world.create("Thing", "a")
    one = replica(HANDLING)
    one.see("HANDLING in term 1")
    before = world.lease()
    one.signal(signal.SIGTERM)
    one.see("stopping: SIGTERM")
    until("a renewal while draining", lambda: world.lease()["renewTime"] > before["renewTime"], LONG)
    assert world.lease()["holderIdentity"] == before["holderIdentity"]
    assert one.wait() == 0
    assert world.get("things", "a")["spec"] == {"done": True}
    assert world.lease().get("holderIdentity", "") == ""
    assert world.lease()["leaseTransitions"] == 1
    assert "Traceback" not in one.log


def test_sigterm_does_not_wait_for_what_waits_for_its_retry(replica: Start, world: World) -> None:
    world.create("Thing", "a")
    one = replica("""
@kopf.on.create(GROUP, "v1", "things")
async def made(logger, **_):
    raise kopf.TemporaryError("LATER", delay=600)
""", "op.py", "--drain-timeout=600")  # fmt: skip
    one.see("LATER")
    one.see("Patching|patched|Throttl|temporarily")
    one.signal(signal.SIGINT)
    # Were it waited for, the limit of the test would be over first.
    assert one.wait() == 0
    assert world.lease().get("holderIdentity", "") == ""


def test_a_second_signal_does_not_wait(replica: Start, world: World) -> None:
    world.create("Thing", "a")
    one = replica(HANDLING.replace("6.5", "3600"), "op.py", "--drain-timeout=3600")
    one.see("HANDLING")
    one.signal(signal.SIGTERM)
    one.see("stopping: SIGTERM")
    one.signal(signal.SIGTERM)
    assert one.wait() == 128 + signal.SIGTERM
    assert world.lease()["holderIdentity"], "handlers may still have been at work: others wait until it expires"


def test_handler_that_never_ends_ends_the_process(replica: Start, world: World) -> None:
    world.create("Thing", "a")
    one = replica("""
@kopf.on.create(GROUP, "v1", "things")
def made(logger, **_):
    logger.info("HANDLING")
    threading.Event().wait()
""", "op.py", "--after-loss=follow", "--drain-timeout=1")  # fmt: skip
    one.see("HANDLING")
    one.signal(signal.SIGTERM)
    assert one.wait() == EXIT_STUCK
    assert "handlers of term 1 still run 1 s after its end" in one.log
    assert world.lease()["holderIdentity"], "not released"


def test_threads_of_the_operator_do_not_keep_the_process(replica: Start, world: World) -> None:
    """A process that released and stays would be a replica that never leads again."""
    one = replica("""
@kopf.on.startup()
def begin(logger, **_):
    threading.Thread(target=threading.Event().wait, daemon=False).start()
    logger.info("STARTED")
""", "op.py", "--drain-timeout=1")  # fmt: skip
    one.see("STARTED")
    one.signal(signal.SIGTERM)
    assert one.wait() == 0
    assert "threads of the operator still run" in one.log
    assert world.lease().get("holderIdentity", "") == ""


def test_two_replicas_one_leader(replica: Start, world: World) -> None:
    world.create("Thing", "a")
    code = """
@kopf.on.event(GROUP, "v1", "things")
def seen(logger, **_):
    logger.info("SEEN in term %s", kopf_ha.current_term().token)
"""
    one = replica(code)
    one.see("SEEN in term 1")
    two = replica(code)
    two.see("new leader")
    assert "SEEN" not in two.log
    one.signal(signal.SIGTERM)
    two.see("SEEN in term 2")
    assert one.wait() == 0


# Clients at the top level, a fake of one that is not covered, and a login of each sort.
TOP_LEVEL = """
import sys, types, ssl, aiohttp, os
sys.modules["avionix"] = types.ModuleType("avionix")
import kubernetes, pykube
kubernetes.config.load_kube_config(config_file=os.environ["KUBECONFIG"])
CUSTOM = kubernetes.client.CustomObjectsApi()
PYKUBE = pykube.HTTPClient(pykube.KubeConfig.from_env())
THING = pykube.object_factory(PYKUBE, GROUP + "/v1", "Thing")

LOGINS
@kopf.on.create(GROUP, "v1", "things")
def made(name, namespace, patch, logger, **_):
    CUSTOM.patch_namespaced_custom_object(GROUP, "v1", namespace, "things", name, {"spec": {"kubernetes": 1}})
    THING.objects(PYKUBE, namespace=namespace).get(name=name).patch({"spec": {"pykube": 1}})
    patch.spec["kopf"] = 1
    logger.info("WRITTEN")
"""

LOGINS = {
    "sync-info": """
@kopf.on.login()
def login(logger, **kwargs):
    logger.info("OWN LOGIN")
    return kopf.login_via_pykube(logger=logger, **kwargs)
""",
    "async-session": """
@kopf.on.login()
async def login(logger, **kwargs):
    logger.info("OWN LOGIN")
    info = kopf.login_via_pykube(logger=logger, **kwargs)
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=info.as_ssl_context()), headers=info.as_http_headers())
    return kopf.AiohttpSession(server=info.server, aiohttp_session=session)
""",
}


def check_login(replica: Start, world: World, login: str, *args: str) -> None:
    world.create("Thing", "a")
    one = replica(TOP_LEVEL.replace("LOGINS", login), *args)
    one.see("WRITTEN")
    until("the writes", lambda: set(world.get("things", "a")["spec"]) == {"kubernetes", "pykube", "kopf"}, LONG)
    assert world.stamp_of("things", "a")["token"] == 1, "all of them passed the fence"
    assert "OWN LOGIN" in one.log
    assert "login_via" not in one.log
    assert "avionix (runs helm) is imported and not fenced" in one.log
    one.signal(signal.SIGTERM)
    assert one.wait() == 0
    for client in ("kopf", "kubernetes", "pykube"):
        assert f"{client} 2xx" in one.see("term 1 of .* is over")


def test_unchanged_operator_as_a_file(replica: Start, world: World) -> None:
    check_login(replica, world, LOGINS["sync-info"], "op.py")


def test_unchanged_operator_as_a_module(replica: Start, world: World) -> None:
    check_login(replica, world, LOGINS["async-session"], "-m", "op")


def test_unsafe_fence_warns_in_every_term(replica: Start, world: World) -> None:
    one = replica("", "op.py", "--fence=none", "--unsafe-fence", "--after-loss=follow")
    one.see("UNSAFE: fence=none")
    one.see("Initial authentication has finished")
    world.take_lease()
    one.see("UNSAFE: fence=none", 2)


def test_no_permission_on_the_lease(kinds: Cluster, replica: Start, world: World) -> None:
    """A sentence, and no hot loop: what is written into the log once is tried at leisure."""
    token = kinds.kubectl("create", "token", "default", f"--namespace={world.namespace}").stdout.strip()
    config = kinds.kubeconfig_for(token)
    one = replica("", env={"KUBECONFIG": str(config)})
    line = one.see("no permission")
    assert f"no permission to list leases.coordination.k8s.io in namespace {world.namespace}" in line
    assert f"system:serviceaccount:{world.namespace}:default" in line
    assert "Traceback" not in one.log
    # Permission comes while it runs.
    role, binding = ("create", "role", "op"), ("create", "rolebinding", "op")
    where = f"--namespace={world.namespace}"
    kinds.kubectl(*role, where, "--verb=*", "--resource=leases.coordination.k8s.io")
    kinds.kubectl(*binding, where, "--role=op", f"--serviceaccount={world.namespace}:default")
    one.see("leading: token 1")
    warnings = [line for line in one.log.splitlines() if "WARNING" in line and "no permission" in line]
    assert len(warnings) == len(set(warnings)) <= 3


def test_write_at_import_is_refused(replica: Start, world: World) -> None:
    world.create("Thing", "a")
    one = replica(f"""
import kubernetes
kubernetes.config.load_kube_config()
kubernetes.client.CustomObjectsApi().patch_namespaced_custom_object(
    GROUP, "v1", {world.namespace!r}, "things", "a", {{"spec": {{"early": 1}}}})
""")
    assert one.wait() == 1
    assert "NoTerm: a write while no operator runs: move it from the module's top level" in one.log
    assert world.get("things", "a")["spec"] == {}
