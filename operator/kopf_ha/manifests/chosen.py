"""Finds the operator's Deployment and service account among its documents."""

from __future__ import annotations

from collections.abc import Sequence

from kopf_ha.errors import ConfigurationError
from kopf_ha.manifests import workload
from kopf_ha.manifests.documents import Document
from kopf_ha.manifests.reader import Said


def deployment_of(documents: Sequence[Document], said: Said) -> Document:
    """Return the operator's Deployment.

    Raises:
        ConfigurationError: there is none, or it is not clear which one it is.
    """
    found = [d for d in documents if d.kind == "Deployment" and d.group == "apps"]
    for document in found:
        template = ((document.data.get("spec") or {}).get("template") or {}).get("spec") or {}
        if not template.get("containers"):
            raise ConfigurationError(f"{document.title} in {document.source} has no spec.template.spec.containers")
    names = ", ".join(d.title.partition(" ")[2] for d in found)
    if said.deployment:
        namespace, _, name = said.deployment.rpartition("/")
        chosen = [d for d in found if d.name == name and namespace in ("", d.namespace)]
        if len(chosen) != 1:
            raise ConfigurationError(f"--deployment {said.deployment} is none of: {names or 'no Deployment at all'}")
        return chosen[0]
    if not found:
        others = [d.title for d in documents if d.kind in ("StatefulSet", "DaemonSet", "Pod", "ReplicaSet", "Job")]
        raise ConfigurationError(
            "there is no Deployment among the documents; name the file with the operator's with -f"
            + (f". {' and '.join(others)} cannot be changed by this command; make a Deployment of it" if others else "")
        )
    if len(found) > 1:
        raise ConfigurationError(f"there are several Deployments: {names}; name the operator's with --deployment")
    return found[0]


def account_of(deployment: Document, said: Said) -> tuple[str, str]:
    """Return namespace and name of the operator's service account.

    Raises:
        ConfigurationError: they are not known, or the account is not the operator's alone.
    """
    pod = workload.pod_of(deployment.data)
    account = str(pod.get("serviceAccountName") or pod.get("serviceAccount") or "default")
    namespace = deployment.namespace or said.lease.partition("/")[0]
    if said.service_account:
        given, slash, name = said.service_account.partition("/")
        if not slash or not given or name != account or namespace not in ("", given):
            raise ConfigurationError(
                f"--service-account {said.service_account} is not the account {namespace or 'NAMESPACE'}/{account} that"
                f" {deployment.title} runs as"
            )
        return given, account
    if not namespace:
        raise ConfigurationError(
            f"{deployment.title} in {deployment.source} names no namespace; say where it runs with --service-account"
            f" NAMESPACE/{account}"
        )
    if account == "default":
        raise ConfigurationError(
            f"{deployment.title} runs as the service account default, as all Pods of its namespace do that name none,"
            " and the policies would fence their writes, too; give it an account of its own in serviceAccountName"
        )
    return namespace, account
