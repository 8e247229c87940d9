"""The demo: on a real API server, a leader is paused while it allocates addresses, and wakes too late.

`python -m demo` starts a control plane, applies the manifests, and runs three replicas of the reference operator with
their pods' credentials. At the end the judge checks the whole history. The operator runs as anybody would run it,
except that the demo can pause the leader at the worst moment (replica.py).
"""
