"""Writes the Kubernetes objects by which the API server itself fences an operator (line 3 of the fence).

Pure functions turn a `Description` of the operator into policies, RBAC, a FlowSchema and a schema. The policies refuse
writes inside the storage transaction, whatever client sends them: I1, I3, I4 and the Lease's part of I2.

`bundle` reads the description from an operator's own manifests, and adds to these what the fence needs.
"""

from kopf_ha.manifests.description import Child, Description, Kind
from kopf_ha.manifests.policies import policies
from kopf_ha.manifests.priority import flow_schema
from kopf_ha.manifests.rbac import rbac
from kopf_ha.manifests.render import render
from kopf_ha.manifests.schema import schema_fragment

__all__ = ["Child", "Description", "Kind", "flow_schema", "policies", "rbac", "render", "schema_fragment"]
