"""The fault matrix: each cause of a lost leader, placed where it bites, and what it cost.

`python -m faults` runs three replicas of the reference operator, with the credentials of their pods and the policies
of deploy/, while users make and delete claims. One fault after the other is put and taken away (table.py). After each,
the judge reads all that ever happened, and service has to be back within the bound of that fault. docs/faults.md has
the table of one run. `python -m faults.soak` runs the same load for long, and asks whether replicas grow.

No node is needed. A replica is a process that is started again when it ended, as a kubelet would. Each reaches the API
server by a link of its own (link.py), which can do to its requests whatever a network or a server does.
"""
