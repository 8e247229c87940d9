"""The API server's line of the fence (line 3), written for any kinds, Lease and service account.

Pure functions from a `Description` to Kubernetes objects. What they refuse, they refuse inside the storage
transaction, to any client, however it was made: I1, I3, I4 and the Lease's part of I2.
"""

from kopf_ha.manifests.description import Child, Description, Kind
from kopf_ha.manifests.flow import flow_schema
from kopf_ha.manifests.policies import policies
from kopf_ha.manifests.rbac import rbac
from kopf_ha.manifests.render import render
from kopf_ha.manifests.schema import schema_fragment

__all__ = ["Child", "Description", "Kind", "flow_schema", "policies", "rbac", "render", "schema_fragment"]
