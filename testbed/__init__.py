"""What tests and benchmarks share: an operator's replicas as processes, in containers and on nodes.

`devcluster` knows nothing of kopf_ha. This package runs operators on it. What has to succeed is asserted.
"""
