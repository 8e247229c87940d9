"""What somebody on call types: `kopf-ha status`, `kopf-ha history` and the like.

Nothing here runs in an operator. The commands read with the rights of the person who types them, never import Kopf, and
load the client of the API server only when they are run.
"""
