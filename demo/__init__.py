"""The main job, told as a story on a real API server: a leader is paused while it allocates, and wakes too late.

`python -m demo` starts a control plane, applies the manifests, runs three replicas of the reference operator
under the pods' own credentials, and ends with what the judge says of the whole history. It runs the operator
as anybody would; the one thing that it adds is a hand on the leader at the wrong moment (replica.py).
"""
