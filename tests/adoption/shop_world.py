"""The shop: somebody else's operator, its cluster, and what a test asks of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from devcluster import ControlPlane
from devcluster.waiting import until
from kopf_ha.core.notes import ANNOTATION_TOKEN
from kopf_ha.manifests import Child, Description, Kind, flow_schema, policies, rbac, render, schema_fragment
from testbed.replica import PATIENCE
from tests.adoption.node import Node, PodReplica
from tests.kit.client import administrator
from tests.kit.world import LEASES

SHOP = Path(__file__).parent / "shop"
OPERATOR = "app=shop-operator"
ACCOUNT = "system:serviceaccount:shop:shop-operator"
DESCRIPTION = Description(
    group="shop.example.com",
    kinds=(Kind("racks", deciding=True, maps=("slots",)), Kind("boxes", values=("slot",))),
    children=(Child("configmaps", owner="Box"),),
    lease="shop/shop-operator",
    service_account="shop/shop-operator",
)
RACKS, BOXES = (f"/apis/shop.example.com/v1/namespaces/shop/{plural}" for plural in ("racks", "boxes"))
MAPS = "/api/v1/namespaces/shop/configmaps"
STATUS = ("--subresource=status", "--type=merge", "-p")


def merged(crds: str, fragment: dict[str, Any]) -> str:
    """Do what adoption.md asks of a reader: merge the fragment into each CRD."""
    documents = list(yaml.safe_load_all(crds))
    for crd in documents:
        for version in crd["spec"]["versions"]:
            schema = version["schema"]["openAPIV3Schema"]
            schema["x-kubernetes-validations"] = fragment["x-kubernetes-validations"]
            schema["properties"]["status"]["properties"] |= fragment["properties"]["status"]["properties"]
    return yaml.safe_dump_all(documents)


class Shop:
    """The cluster as an administrator sees it."""

    def __init__(self, plane: ControlPlane, node: Node, folder: Path) -> None:
        self.plane, self.node, self.folder = plane, node, folder

    # --- as it was, and as it is after adoption

    def install(self) -> None:
        """Kinds, account and role, as they were under plain Kopf."""
        self.apply("base.yaml", "crds.yaml")
        self.plane.wait_established()
        self.create("Rack", "big", {})

    def run_plain(self) -> PodReplica:
        self.apply("deployment-kopf.yaml")
        return self.replica()

    def merge_schema(self, fragment: dict[str, Any]) -> None:
        crds = self.folder / "crds.yaml"
        crds.write_text(merged(crds.read_text(), fragment))

    def fence(self, *, in_force: bool = True) -> None:
        """Schema, RBAC, FlowSchema and policies, by the functions below `kopf-ha manifests`."""
        self.merge_schema(schema_fragment())
        self.apply("crds.yaml")
        self.plane.kubectl("apply", "-f", "-", input=render([*rbac(DESCRIPTION), *flow_schema(DESCRIPTION)]))
        if in_force:
            self.apply_policies()

    def apply_policies(self, text: str = "") -> None:
        self.plane.kubectl("apply", "-f", "-", input=text or render(policies(DESCRIPTION)))
        self.until("the policies to be in force", self.in_force)

    def in_force(self) -> bool:
        """Whether they refuse what they must: the account without a pod, and a Lease of nobody's."""
        dry, account = ("-n", "shop", "--dry-run=server"), f"--as={ACCOUNT}"
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "shop-operator"}}
        lease |= {"spec": {"holderIdentity": "nobody", "leaseTransitions": 0}}
        asked = [
            self.plane.kubectl("create", *dry, "-f", "-", input=json.dumps(lease), check=False),
            self.plane.kubectl("create", *dry, account, "configmap", "probe", check=False),
            self.plane.kubectl("label", *dry, account, "rack/big", "probe=yes", check=False),
        ]
        return all("ValidatingAdmissionPolicy" in a.stderr for a in asked)

    def run_fenced(self) -> None:
        self.apply("deployment.yaml")
        self.until("a leader", self.leader)

    # --- the world

    def apply(self, *files: str) -> None:
        for file in files:
            self.plane.kubectl("apply", "-f", str(self.folder / file))

    def create(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        body = {"apiVersion": "shop.example.com/v1", "kind": kind, "metadata": {"name": name, "namespace": "shop"}}
        administrator(self.plane).must("POST", {"Rack": RACKS, "Box": BOXES}[kind], body | {"spec": spec})

    def boxes(self, *names: str) -> None:
        for name in names:
            self.create("Box", name, {"rack": "big"})

    def all(self, kind: str, query: str = "") -> list[dict[str, Any]]:
        path = {"racks": RACKS, "boxes": BOXES, "configmaps": MAPS, "leases": f"{LEASES}/shop/leases"}[kind]
        return list(administrator(self.plane).must("GET", path + query)["items"])

    def until(self, what: str, check: Any) -> Any:
        return until(what, check, PATIENCE, 0.2, watched=[self.node])

    def until_placed(self, count: int) -> None:
        """Wait until there are that many boxes, each with a slot, an entry in the rack and a ConfigMap."""

        def placed() -> bool:
            boxes = {b["metadata"]["uid"]: (b.get("status") or {}).get("slot") for b in self.all("boxes")}
            (rack,) = self.all("racks")
            slots = {uid: slot for slot, uid in (rack.get("status") or {}).get("slots", {}).items()}
            # those of deleted boxes are garbage, which is collected at its own pace
            told = {c["metadata"]["ownerReferences"][0]["uid"] for c in self.children()}
            return len(boxes) == count and boxes == slots and boxes.keys() <= told

        self.until(f"{count} boxes to be placed", placed)

    def children(self) -> list[dict[str, Any]]:
        return self.all("configmaps", "?labelSelector=app%3Dshop")

    def state(self) -> dict[tuple[str, str], Any]:
        """All that adoption must keep, without stamps and what goes with each write."""
        made = {}
        for kind in ("racks", "boxes", "configmaps"):
            for item in self.children() if kind == "configmaps" else self.all(kind):
                status = {k: v for k, v in (item.get("status") or {}).items() if k != "fencing"}
                kept = {k: item["metadata"].get(k) for k in ("uid", "labels", "finalizers", "ownerReferences")}
                made[kind, item["metadata"]["name"]] = (kept, item.get("spec"), item.get("data"), status)
        return made

    def tokens(self) -> dict[tuple[str, str], int]:
        """The token that each object records; 0 for none."""
        made = {}
        for kind in ("racks", "boxes"):
            for item in self.all(kind):
                made[kind, item["metadata"]["name"]] = (item.get("status") or {}).get("fencing", {}).get("token", 0)
        for item in self.children():
            notes = item["metadata"].get("annotations") or {}
            made["configmaps", item["metadata"]["name"]] = int(notes.get(ANNOTATION_TOKEN, 0))
        return made

    # --- the replicas

    def replica(self, label: str = OPERATOR) -> PodReplica:
        found: list[PodReplica] = self.until(f"a replica with {label}", lambda: self.node.replicas(label))
        return found[-1]

    def lease(self) -> dict[str, Any]:
        return dict(next((i["spec"] for i in self.all("leases") if i["metadata"]["name"] == "shop-operator"), {}))

    def leader(self) -> PodReplica | None:
        """The replica that the Lease names."""
        holder = self.lease().get("holderIdentity") or ""
        return next((r for r in self.node.replicas() if holder.startswith(f"{r.name}_{r.uid}_")), None)

    def runs(self, handler: str) -> list[str]:
        """The boxes whose handler ran, once for each run, in all replicas so far."""
        found = []
        for replica in self.node.all:
            for line in replica.log.splitlines():
                if line.endswith(f"HANDLER {handler}"):
                    found.append(line.split("[shop/")[1].split("]")[0])
        return sorted(found)

    def refusals(self) -> list[str]:
        return [line for r in self.node.all for line in r.log.splitlines() if "refused by" in line]

    def writes(self, replica: PodReplica) -> list[tuple[str, str, int]]:
        """A replica's writes as (verb, resource, code), by the audit log; without events and Leases."""
        made = []
        for event in self._audited(replica):
            ref = event["objectRef"]
            sub = f"/{ref['subresource']}" if ref.get("subresource") else ""
            made.append((event["verb"], ref["resource"] + sub, int(event["responseStatus"]["code"])))
        return made

    def answers(self, replica: PodReplica) -> list[tuple[str, int]]:
        """The same, as (path, code)."""
        return [(e["requestURI"].partition("?")[0], int(e["responseStatus"]["code"])) for e in self._audited(replica)]

    def _audited(self, replica: PodReplica) -> list[dict[str, Any]]:
        found = []
        for path in self.plane.audit_logs:
            for line in path.read_text().splitlines():
                event = json.loads(line)
                who = (event["user"].get("extra") or {}).get("authentication.kubernetes.io/pod-uid")
                what = (event.get("objectRef") or {}).get("resource")
                if (
                    who == [replica.uid]
                    and event["verb"] in ("create", "update", "patch", "delete")
                    and what not in ("events", "leases", None)
                    and "dryRun" not in event["requestURI"]
                ):
                    found.append(event)
        return found
