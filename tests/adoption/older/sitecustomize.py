"""Makes kopf-ha an older release for a test: one that named the annotations of its stamps otherwise."""

import kopf_ha.core.token

kopf_ha.core.token.ANNOTATION_TOKEN = "kopf-ha.dev/older-token"
kopf_ha.core.token.ANNOTATION_HOLDER = "kopf-ha.dev/older-holder"
kopf_ha.core.token.ANNOTATION_LEASE = "kopf-ha.dev/older-lease"
kopf_ha.core.token.ANNOTATION_POD_UID = "kopf-ha.dev/older-pod-uid"
