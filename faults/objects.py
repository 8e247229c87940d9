"""What somebody does to objects: the Lease, namespaces, rights, policies, kinds, webhooks, aggregated APIs."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import Any

from devcluster.waiting import until
from faults.hook import SlowHook
from faults.stand import PATIENCE
from faults.table import Fault, Scene
from faults.users import NAMESPACE
from testbed.deployment import NAME, ROOT

BACK = "a term begins once all is as it was; Kopf and the election try again after some seconds"
LEASE = ("lease", NAME, "-n", NAME)
#: Bindings of policies that keep an administrator from what is done here.
GUARDS = tuple(
    f"{NAME}-{what}" for what in ("lease", "lease-kept", "lease-term", "term-kept", "term-written", "schema")
)


def unguarded(s: Scene, *args: str, input: str | None = None) -> None:
    """Do what policies refuse: without them. It lasts a moment until each API server knows."""
    s.stand.kubectl("delete", "validatingadmissionpolicybindings", "--ignore-not-found", *GUARDS)
    s.stand.retried("the policies to be out", lambda: s.stand.kubectl(*args, input=input))


def as_deployed(s: Scene) -> None:
    """Apply deploy/ and crds/ again, as somebody who repairs it would."""
    s.stand.retried("crds/ to be applied", lambda: s.stand.kubectl("apply", "-k", str(ROOT / "crds")))
    s.stand.retried("deploy/ to be applied", lambda: s.stand.kubectl("apply", "-k", str(ROOT / "deploy")))


def lease_deleted(s: Scene) -> None:
    """Delete the Lease."""
    unguarded(s, "delete", *LEASE)


def lease_edited(**spec: Any) -> Callable[[Scene], None]:
    """Edit the Lease's spec; a number is added to what is there."""

    def put(s: Scene) -> None:
        number = {"leaseTransitions": max(0, s.token + spec["leaseTransitions"])} if "leaseTransitions" in spec else {}
        patch = json.dumps({"spec": spec | number})
        unguarded(s, "patch", *LEASE, "--type=merge", "-p", patch)

    return put


def holder_emptied(s: Scene) -> None:
    """Empty the holder, which no policy forbids."""
    s.stand.kubectl("patch", *LEASE, "--type=merge", "-p", '{"spec":{"holderIdentity":""}}')


def home_deleted(s: Scene) -> None:
    """Delete the operator's namespace, with its pods, its account and its Lease."""
    s.stand.kubectl("delete", "namespace", NAME, "--timeout=60s")
    s.stand.leave()


def home_made(s: Scene) -> None:
    """Make it again, with other pods."""
    as_deployed(s)
    s.stand.sit()


def users_deleted(s: Scene) -> None:
    """Delete the users' namespace, with all claims."""
    s.stand.users.forget()
    s.stand.kubectl("delete", "namespace", NAMESPACE, "--timeout=60s")
    s.stand.users.forget()


def users_made(s: Scene) -> None:
    """Make it again."""
    s.stand.users.install()


#: Changes a scene: puts a fault, or lifts it.
Change = Callable[[Scene], None]


def rights(kind: str, name: str, without: Callable[[dict[str, Any]], bool]) -> tuple[Change, Change]:
    """Give what removes some rules of a role, and what gives them back."""
    where = ("-n", NAME) if kind == "role" else ()

    def put(s: Scene) -> None:
        found = json.loads(s.stand.kubectl("get", kind, name, *where, "-o", "json"))
        s.memory["rules"] = found["rules"]
        _set(s, [rule for rule in found["rules"] if not without(rule)])

    def lift(s: Scene) -> None:
        _set(s, s.memory["rules"])

    def _set(s: Scene, rules: list[dict[str, Any]]) -> None:
        s.stand.kubectl("patch", kind, name, *where, "--type=merge", "-p", json.dumps({"rules": rules}))

    return put, lift


def has(resource: str) -> Callable[[dict[str, Any]], bool]:
    """Whether a rule is about a resource."""
    return lambda rule: resource in rule["resources"]


def no_policies(s: Scene) -> None:
    """Remove all bindings of policies, and then have the leader killed."""
    s.stand.kubectl("delete", "validatingadmissionpolicybindings", "-l", "app.kubernetes.io/part-of=kopf-ha")
    time.sleep(s.lease / 2)
    s.leader.replica.pause()


def policies_back(s: Scene) -> None:
    """Continue the leader, and apply the policies."""
    s.leader.replica.resume()
    time.sleep(s.lease / 2)
    as_deployed(s)


def no_rule(s: Scene) -> None:
    """Remove the rules of the pools' kind, and pause the leader."""
    path = "/spec/versions/0/schema/openAPIV3Schema/x-kubernetes-validations"
    patch = json.dumps([{"op": "remove", "path": path}])
    unguarded(s, "patch", "crd", "addresspools.ipam.kopf-ha.dev", "--type=json", "-p", patch)
    s.leader.replica.pause()


def term_deleted(s: Scene) -> None:
    """Delete the Term, which says who leads to the policy of line 4."""
    unguarded(s, "delete", "term", NAME, "-n", NAME)


def hooked(resources: list[str], group: str, version: str) -> Callable[[Scene], None]:
    """Have somebody's webhook look at writes for longer than a lease."""

    def put(s: Scene) -> None:
        hook = SlowHook(s.stand.plane, s.lease * 1.5)
        hook.start()
        s.memory["hook"] = hook
        body = {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "slow"},
            "webhooks": [{
                "name": "slow.example.com",
                "clientConfig": {"url": hook.url, "caBundle": base64.b64encode(hook.ca).decode()},
                "rules": [{"apiGroups": [group], "apiVersions": [version], "operations": ["UPDATE"],
                           "resources": resources}],
                "failurePolicy": "Ignore",
                "timeoutSeconds": 30,
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
            }],
        }  # fmt: skip
        s.stand.kubectl("create", "-f", "-", input=json.dumps(body))

    return put


def unhooked(s: Scene) -> None:
    """Remove the webhook."""
    s.stand.retried(
        "the webhook to go",
        lambda: s.stand.kubectl("delete", "validatingwebhookconfiguration", "slow", "--ignore-not-found"),
    )
    s.memory["hook"].stop()


def empty_api(s: Scene) -> None:
    """Register an aggregated API whose server is not there, and ask the leader to end."""
    service = {"name": "nobody", "namespace": "default", "port": 443}
    body = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": "v1.nobody.example.com"},
        "spec": {"group": "nobody.example.com", "version": "v1", "service": service, "insecureSkipTLSVerify": True,
                 "groupPriorityMinimum": 1000, "versionPriority": 15},
    }  # fmt: skip
    s.stand.kubectl("create", "-f", "-", input=json.dumps(body))

    def served() -> bool:
        listed = s.stand.admin.get("/apis").get("groups", ())
        return any(group["name"] == "nobody.example.com" for group in listed)

    until("the group to be listed", served, PATIENCE, 0.2)
    s.leader.replica.terminate()


def api_gone(s: Scene) -> None:
    """Remove it."""
    s.stand.kubectl("delete", "apiservice", "v1.nobody.example.com")


def rule_back(s: Scene) -> None:
    """Continue the leader, and apply the rule."""
    s.leader.replica.resume()
    time.sleep(s.lease / 2)
    as_deployed(s)


_LEASES = rights("role", f"{NAME}-election", has("leases"))
_STATUS = rights("clusterrole", NAME, has("addresspools/status"))
_OBJECTS = rights("clusterrole", NAME, has("addressclaims"))
_KINDS = rights("clusterrole", NAME, has("customresourcedefinitions"))

ROWS = [
    Fault("Lease deleted", lease_deleted, as_deployed, tampers=True),
    Fault("Lease's holder emptied", holder_emptied, bound=1.0, why="anybody takes it at once"),
    Fault("Lease's number lowered", lease_edited(leaseTransitions=-1), as_deployed, tampers=True),
    Fault("Lease's number raised by a thousand", lease_edited(leaseTransitions=1000), as_deployed, tampers=True),
    Fault(
        "Lease's holder is somebody who does not exist",
        lease_edited(holderIdentity="nobody_x_1", leaseTransitions=1),
        as_deployed,
        tampers=True,
        bound=2.0,
    ),
    Fault(
        "operator's namespace deleted and made again",
        home_deleted,
        home_made,
        tampers=True,
        heals=False,
        hold=0.0,
        bound=2.0,
        seconds=10.0,
        raw=False,
        why="three processes start, and a term begins",
    ),
    Fault(
        "users' namespace deleted and made again",
        users_deleted,
        users_made,
        heals=False,
        hold=0.0,
        bound=1.0,
        raw=False,
        why="nothing is lost",
    ),
    Fault("right to the Lease removed for two leases", *_LEASES, heals=False, hold=2.0, seconds=5.0, why=BACK),
    Fault(
        "right to write statuses removed for a lease",
        *_STATUS,
        heals=False,
        hold=1.0,
        seconds=54.0,
        why="Kopf and the operator try again after pauses that grow to 21 s, 54 s in all",
    ),
    Fault(
        "right to read and patch pools and claims removed for a lease",
        *_OBJECTS,
        heals=False,
        hold=1.0,
        seconds=54.0,
        why="Kopf tries again after pauses that grow to 21 s, 54 s in all",
    ),
    Fault(
        "right to see definitions removed for a lease",
        *_KINDS,
        heals=True,
        hold=1.0,
        bound=1.0,
        raw=False,
        why="what is known already is enough",
    ),
    Fault("policies removed, and the leader paused", no_policies, policies_back, taken=True, raw=False),
    Fault("the CRD's rule removed, and the leader paused", no_rule, rule_back, taken=True, tampers=True, raw=False),
    Fault(
        "Term deleted",
        term_deleted,
        as_deployed,
        bound=2.0,
        tampers=True,
        raw=False,
        why="the leader writes it again, or a term begins",
    ),
    Fault(
        "somebody's webhook takes a lease and a half for the Lease",
        hooked(["leases"], "coordination.k8s.io", "v1"),
        unhooked,
        heals=False,
        hold=2.0,
        seconds=5.0,
        why=BACK,
    ),
    Fault(
        "somebody's webhook takes a lease and a half for claims' statuses",
        hooked(["addressclaims/status"], "ipam.kopf-ha.dev", "v1"),
        unhooked,
        heals=False,
        hold=2.0,
        bound=3.0,
        seconds=5.0,
        why="writes that wait in the webhook end, and the operator tries again",
    ),
    Fault(
        "an aggregated API without a backend, and SIGTERM to the leader",
        empty_api,
        api_gone,
        bound=1.0,
        raw=False,
        why="as without it",
    ),
]
