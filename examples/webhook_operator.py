"""Sites with unique host names: every replica answers the webhook, only the leader writes.

    kopf-ha run -A examples/webhook_operator.py --lease-name site-operator

The manifests are in webhook_operator.yaml. docs/terms.md explains the rules.
"""

import os
from typing import Any

import kopf

import kopf_ha

TLS = os.environ.get("WEBHOOK_TLS", "/tls")  # where the certificate's Secret is mounted
PORT = int(os.environ.get("WEBHOOK_PORT", "9443"))


# --- Runs on every replica, as long as the process lives. It can only read.


@kopf.on.startup(registry=kopf_ha.everywhere)
def serve(settings: kopf.OperatorSettings, **_: Any) -> None:
    settings.admission.server = kopf.WebhookServer(port=PORT, certfile=f"{TLS}/tls.crt", pkeyfile=f"{TLS}/tls.key")


@kopf.index("example.dev", "v1", "sites", registry=kopf_ha.everywhere)
def hosts(spec: kopf.Spec, namespace: str, name: str, **_: Any) -> Any:
    return {spec["host"]: (namespace, name)}


# The id is the path in the webhook configuration.
@kopf.on.validate("example.dev", "v1", "sites", id="unique-host", registry=kopf_ha.everywhere)
def unique_host(spec: kopf.Spec, namespace: str, name: str, hosts: kopf.Index[str, Any], **_: Any) -> None:
    others = set(hosts.get(spec["host"], ())) - {(namespace, name)}
    if others:
        raise kopf.AdmissionError(f"host {spec['host']} belongs to {'/'.join(min(others))} already", code=409)


# --- Runs on the leader, fenced.


@kopf.index("example.dev", "v1", "sites", id="hosts")
def hosts_of_the_term(spec: kopf.Spec, meta: kopf.Meta, **_: Any) -> Any:
    return {spec["host"]: (meta["creationTimestamp"], meta["uid"])}


@kopf.on.create("example.dev", "v1", "sites")
@kopf.on.update("example.dev", "v1", "sites", field="spec.host")
def decide(spec: kopf.Spec, meta: kopf.Meta, patch: kopf.Patch, hosts: kopf.Index[str, Any], **_: Any) -> None:
    """Decide finally: two replicas may each have allowed a site at the same time, before they knew of the other."""
    first = min(hosts[spec["host"]])
    patch.status["state"] = "Active" if first[1] == meta["uid"] else "Conflict"
