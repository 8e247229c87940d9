"""Makes kopf-ha an older release for a test: one that named the annotations of its stamps otherwise."""

from kopf_ha.core import notes

notes.PREFIX = "kopf-ha.dev/older-stamp-"
notes.ANNOTATION_TOKEN = "kopf-ha.dev/older-token"
notes.ANNOTATION_HOLDER = "kopf-ha.dev/older-holder"
notes.ANNOTATION_LEASE = "kopf-ha.dev/older-lease"
notes.ANNOTATION_POD_UID = "kopf-ha.dev/older-pod-uid"
notes.EARLIER = (notes.ANNOTATION_TOKEN, notes.ANNOTATION_HOLDER, notes.ANNOTATION_LEASE, notes.ANNOTATION_POD_UID)
