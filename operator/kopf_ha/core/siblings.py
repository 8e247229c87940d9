"""What a replica knows about its siblings from their Pods.

No I/O: what the watch and the reads bring comes in, judgements go out. Can the Lease's holder still run? Is my own
revision outdated? No judgement ends a term. At worst a follower takes the Lease over from a leader that lives, and the
writes of that leader are refused (I3). Whatever is in doubt is left to the Lease's expiry.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kopf_ha.core.revisions import newer

#: Labels in which siblings may differ: those of one Pod, of one revision, of one version. Kubernetes copies zone and
#: region from the node, from 1.35 on (admission plugin PodTopologyLabels).
_OWN_LABELS = frozenset({
    "pod-template-hash", "controller-revision-hash", "pod-template-generation",
    "statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index",
    "topology.kubernetes.io/zone", "topology.kubernetes.io/region",
    "app.kubernetes.io/version", "helm.sh/chart",
})  # fmt: skip
_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
#: The kubelet gives times in whole seconds, rounded down.
_SECOND = 1.0


@dataclass(frozen=True, slots=True)
class Pod:
    """One revision of a Pod.

    Args:
        name: its name.
        uid: its uid.
        version: its resourceVersion.
        created: RFC 3339 in whole seconds, so that texts compare as times do.
        owner: name of its workload, the same for all revisions; empty without a controller.
        revision: hash of the template that it was made from; empty for none.
        prefix: what the names of all Pods of its workload begin with, the same for all revisions; empty for none.
        over: its phase is Failed or Succeeded: no container of it will run again.
        deleting: it has a deletionTimestamp, which does not mean that its processes are dead.
        ready: its condition Ready is true.
        running: id of the operator's container that runs; empty while none runs, or while it is not known which it is.
        ended: ids of its operator's containers that ended, and when, in seconds of its node's clock.
    """

    name: str
    uid: str
    version: str = ""
    created: str = ""
    owner: str = ""
    revision: str = ""
    prefix: str = ""
    over: bool = False
    deleting: bool = False
    ready: bool = False
    running: str = ""
    ended: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Pod:
        """Read an API object.

        The operator's container is the default one by annotation, else the only one. If there are several and no
        annotation, none is judged: a sidecar that crashes must not cost a healthy leader the Lease (I10).
        """
        meta, spec, status = (body.get(k) or {} for k in ("metadata", "spec", "status"))
        labels, notes = meta.get("labels") or {}, meta.get("annotations") or {}
        names = [c.get("name") for c in spec.get("containers") or ()]
        name = notes.get(_DEFAULT_CONTAINER) or (names[0] if len(names) == 1 else "")
        found: Mapping[str, Any] = next((c for c in status.get("containerStatuses") or () if c.get("name") == name), {})
        states = [found.get("state") or {}, found.get("lastState") or {}]
        over = [s["terminated"] for s in states if s.get("terminated")]
        revision = str(labels.get("pod-template-hash") or labels.get("controller-revision-hash") or "")
        return cls(
            name=str(meta.get("name") or ""),
            uid=str(meta.get("uid") or ""),
            version=str(meta.get("resourceVersion") or ""),
            created=str(meta.get("creationTimestamp") or ""),
            owner=next((_workload(o, revision) for o in meta.get("ownerReferences") or () if o.get("controller")), ""),
            revision=revision,
            prefix=str(meta.get("generateName") or "").removesuffix(f"{revision}-"),
            over=status.get("phase") in ("Failed", "Succeeded"),
            deleting=bool(meta.get("deletionTimestamp")),
            ready=any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or ()),
            running=str(found.get("containerID") or "") if states[0].get("running") is not None else "",
            ended={str(t["containerID"]): at for t in over if t.get("containerID") and (at := _seconds(t))},
        )


def sibling_labels(body: Mapping[str, Any]) -> dict[str, str]:
    """Give the labels that a Pod shares with the other replicas, whatever their revision."""
    labels = (body.get("metadata") or {}).get("labels") or {}
    return {str(k): str(v) for k, v in labels.items() if k not in _OWN_LABELS}


def pod_of(holder: str) -> tuple[str, str]:
    """Give the name and the uid of the Pod in a holder identity; two empty texts if it has another form."""
    parts = holder.split("_")
    return (parts[0], parts[1]) if len(parts) == 3 and all(parts) else ("", "")


class Siblings:
    """The Pods of one workload, as one of them sees them.

    Args:
        me: uid of my own Pod.
    """

    def __init__(self, me: str) -> None:
        self._me = me
        self._pods: dict[str, Pod] = {}  #: by uid, those that exist as far as is known
        self._once: set[str] = set()  #: uids of Pods that exist or once did
        self._shown: set[str] = set()  #: uids that the watch shows, so that news of them come by themselves
        self._dead: set[str] = set()  #: uids that a read did not find; they never come back
        self._ended: dict[str, float] = {}
        self._container: dict[str, str] = {}  #: holder identity → id of the container it ran in
        #: uid → identities whose container is not known yet, in the order in which they led, and when they acquired
        self._waiting: dict[str, dict[str, float | None]] = {}

    # --- what came in

    def saw(self, pod: Pod) -> None:
        """Take in a Pod that the watch shows; an older revision than the one known changes nothing."""
        self._shown.add(pod.uid)
        self._exists(pod)

    def _exists(self, pod: Pod) -> None:
        known = self._pods.get(pod.uid)
        if pod.uid in self._dead or (known and not newer(pod.version, known.version)):
            return
        self._pods[pod.uid] = pod
        self._once.add(pod.uid)
        self._ended |= pod.ended
        self._match(pod)

    def lost_sight(self, uid: str) -> None:
        """Note that the watch does not show it any more: it was deleted, or its labels were changed. A read tells."""
        self._pods.pop(uid, None)
        self._shown.discard(uid)

    def listed(self, pods: Iterable[Pod]) -> None:
        """Take in a whole list."""
        pods = list(pods)
        for uid in self._pods.keys() - {p.uid for p in pods}:
            self.lost_sight(uid)
        for pod in pods:
            self.saw(pod)

    def read(self, uid: str, found: Pod | None, name: str = "") -> None:
        """Take in the answer of a consistent read.

        A replica that was made after the holder was gone never saw the holder's Pod. If its name begins as mine does,
        it was one of my siblings, and not a process outside of the cluster with an identity of the same form.

        Args:
            uid: of the Pod that was asked for.
            found: the Pod that has the name now; None for none.
            name: the name that was read; empty if it was in another namespace than mine.
        """
        if found is not None and found.uid == uid:
            self._exists(found)
            return
        self._dead.add(uid)
        self.lost_sight(uid)
        me = self._pods.get(self._me)
        if me and me.prefix and name.startswith(me.prefix):
            self._once.add(uid)

    def leads(self, holder: str, acquired: str | None) -> None:
        """Note that the Lease names this holder, since this `acquireTime`.

        The status of a Pod lags: a process that was just restarted may lead while the status still shows the
        container before. So a container belongs to the first identity that was seen to lead while it was shown. The
        next identity of the same Pod belongs to the next container.
        """
        uid = pod_of(holder)[1]
        waiting = self._waiting.setdefault(uid, {})
        if not uid or holder in self._container or holder in waiting:
            return
        waiting[holder] = _time(acquired)
        if pod := self._pods.get(uid):
            self._match(pod)

    def _match(self, pod: Pod) -> None:
        """Find the container of the identity that has waited longest for its container to be known."""
        waiting = self._waiting.get(pod.uid)
        if not waiting:
            return
        holder, begun = next(iter(waiting.items()))
        free = {c: at for c, at in pod.ended.items() if c not in self._container.values()}
        # A container that ended before anybody saw it run. It certainly ended after its process acquired the Lease.
        ended = next((c for c, at in free.items() if begun is not None and begun < at), "")
        running = pod.running if pod.running not in self._container.values() else ""
        if found := ended or running:
            del waiting[holder]
            self._container[holder] = found

    # --- judgements

    def known(self, uid: str) -> bool:
        """Whether this Pod certainly exists or existed."""
        return uid in self._once

    def shown(self, uid: str) -> bool:
        """Whether the watch shows this Pod, so that its end is seen when it comes."""
        return uid in self._shown

    def missing(self, uid: str) -> bool:
        """Whether a Pod that existed is not shown any more. Only a read can tell why."""
        return uid in self._once and uid not in self._pods

    def gone(self, holder: str, acquired: str | None) -> str:
        """Say why the process of this holder cannot go on leading; empty if it can, as far as is known.

        After news from the watch alone this is a suspicion; after a consistent `read` it is a judgement. My own Pod is
        never judged: its status tells my container from the one before too late.

        Args:
            holder: the Lease's holder.
            acquired: the Lease's `acquireTime`, by the clock of the holder's node. The same clock says when its
                containers ended. The two times are compared only to reject a presumed death: a holder that acquired
                the Lease after a container ended ran in another container.
        """
        name, uid = pod_of(holder)
        if not uid or uid == self._me or uid not in self._once:
            return ""
        pod = self._pods.get(uid)
        if pod is None:
            return f"Pod {name} is gone"
        if pod.over:
            return f"Pod {name} has ended"
        ended = self._ended.get(self._container.get(holder, ""))
        begun = _time(acquired)
        if ended is not None and begun is not None and begun < ended + _SECOND:
            return f"the container of Pod {name} in which it ran has ended"
        return ""

    def outdated(self) -> bool:
        """Whether a replica of a newer revision than mine is ready to lead.

        The revision of the Pod that was created last is the one that is being rolled out, after a rollback too. So
        ReplicaSets need not be read.
        """
        mine = self._pods.get(self._me)
        if mine is None or not mine.revision:
            return False
        kin = [p for p in self._pods.values() if p.owner == mine.owner and p.revision and not p.over]
        last = max((p.created for p in kin), default="")
        revisions = {p.revision for p in kin if p.created == last}
        # Two revisions in one second: it is not known which is newer.
        if mine.revision in revisions or len(revisions) > 1:
            return False
        return any(p.revision in revisions and p.ready and not p.deleting for p in kin)


def _workload(owner: Mapping[str, Any], revision: str) -> str:
    """Name it, since labels may select Pods of others. A ReplicaSet is named after its Deployment and its revision."""
    return f"{owner.get('kind')}/{str(owner.get('name') or '').removesuffix(f'-{revision}')}"


def _seconds(terminated: Mapping[str, Any]) -> float | None:
    return _time(terminated.get("finishedAt"))


def _time(text: object) -> float | None:
    """Read RFC 3339; None for anything else."""
    try:
        return datetime.datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None
