"""An operator in the style of the field: it copies a Secret into all namespaces whose labels match.

It was written for `kopf run` and one replica, and knows nothing of kopf-ha. It has what such operators have: PUTs
without a resourceVersion, a module global that is filled at import, and `except Exception` around each write.
"""

import os
from typing import Any

import kopf
from kubernetes import client, config
from kubernetes.client.rest import ApiException

if os.environ.get("KUBERNETES_SERVICE_HOST"):
    config.load_incluster_config()
else:
    config.load_kube_config()
core = client.CoreV1Api()
custom = client.CustomObjectsApi()

GROUP, VERSION, PLURAL = "clustersecret.example.com", "v1", "clustersecrets"

#: What is to be copied, by name: namespaces that are made later get it from here.
known: dict[str, Any] = {
    item["metadata"]["name"]: item for item in custom.list_cluster_custom_object(GROUP, VERSION, PLURAL)["items"]
}


def matches(namespace: Any, spec: Any) -> bool:
    labels = namespace.metadata.labels or {}
    return all(labels.get(key) == value for key, value in spec.get("matchLabels", {}).items())


def copy_into(namespace: str, name: str, data: Any, logger: Any) -> bool:
    """Make the Secret, or replace it: whoever changed it in between loses."""
    secret = client.V1Secret(
        metadata=client.V1ObjectMeta(name=name, labels={"clustersecret.example.com/name": name}), string_data=data
    )
    try:
        try:
            core.read_namespaced_secret(name, namespace)
            core.replace_namespaced_secret(name, namespace, secret)
        except ApiException as error:
            if error.status != 404:
                raise
            core.create_namespaced_secret(namespace, secret)
        return True
    except Exception as error:
        logger.error(f"Secret {namespace}/{name} was not written: {error}")
        return False


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    settings.posting.enabled = False


@kopf.on.create(PLURAL)
@kopf.on.resume(PLURAL)
@kopf.on.update(PLURAL, field="spec")
def sync(body: kopf.Body, spec: Any, name: str, patch: kopf.Patch, logger: Any, **_: Any) -> None:
    known[name] = dict(body)
    found = [
        n.metadata.name for n in core.list_namespace().items if matches(n, spec) and not n.metadata.deletion_timestamp
    ]
    done = [n for n in found if copy_into(n, name, dict(spec["data"]), logger)]
    for old in set(body.get("status", {}).get("namespaces", ())) - set(found):
        remove_from(old, name, logger)
    patch.status["namespaces"] = done


@kopf.on.delete(PLURAL)
def clean(name: str, status: Any, logger: Any, **_: Any) -> None:
    known.pop(name, None)
    for namespace in status.get("namespaces", ()):
        remove_from(namespace, name, logger)


def remove_from(namespace: str, name: str, logger: Any) -> None:
    try:
        core.delete_namespaced_secret(name, namespace)
    except Exception as error:
        logger.error(f"Secret {namespace}/{name} was not deleted: {error}")


@kopf.on.event("namespaces")
def namespace_seen(event: Any, name: str, logger: Any, **_: Any) -> None:
    if event["type"] != "ADDED":
        return
    namespace = core.read_namespace(name)
    for secret, item in known.items():
        if matches(namespace, item["spec"]) and copy_into(name, secret, dict(item["spec"]["data"]), logger):
            logger.info(f"copied {secret} into the new namespace")


@kopf.on.probe(id="secrets")
def how_many(**_: Any) -> int:
    return len(known)
