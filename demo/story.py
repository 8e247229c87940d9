"""The steps of the demo, in their order. They are the same for every mode of the fence; only the end differs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import requests

import judge
import replay
from demo.places import Place
from demo.replicas import NAMESPACE, Replica, start_replicas
from demo.timeline import Timeline
from demo.world import LEASE, LEASE_DURATION, POOL, World, claim
from devcluster.waiting import until
from replay import report

FENCES = {
    "full": "every write is fenced",
    "rv": "fence=rv: only optimistic concurrency; after a conflict, read again and try again",
    "none": "fence=none: only leader election; client-go's package comment warns of that",
}


#: How many findings of each kind are shown.
SHOWN = 3


class Story:
    """One run of the demo."""

    def __init__(self, place: Place, timeline: Timeline, folder: Path, fence: str) -> None:
        self.place, self.timeline, self.folder, self.fence = place, timeline, folder, fence
        self.world = World(place.cluster, timeline)
        self.replicas: list[Replica] = []

    def tell(self) -> bool:
        """Run all steps, and return whether every promise held, and every replica did what the core does."""
        try:
            with self.world:
                self.install()
                frozen = self.pause_leader_while_it_allocates()
                self.others_take_over(frozen)
                self.the_paused_one_wakes(frozen)
                if self.fence == "full":
                    self.nobody_listens_to_its_credentials(frozen)
                self.leader_ended_by_sigterm()
                self.leader_killed()
        finally:
            for replica in self.replicas:  # all at once; otherwise each of the last ones would lead for a moment
                replica.end()
            for replica in self.replicas:
                replica.close()
        history = self.history()
        verdict = self.ask_the_judge(history)
        return self.replay(history) and verdict.ok

    # --- the steps

    def install(self) -> None:
        """Apply the manifests, start three replicas."""
        say = self.timeline
        say.stage(f"1. Install the operator: {FENCES[self.fence]}")
        self.place.install(self.world.kubectl)
        if self.fence != "full":
            # With the policies, the API server would refuse a stale leader even without the fence in the process.
            self.world.kubectl("delete", "validatingadmissionpolicybindings", "-l", "app.kubernetes.io/part-of=kopf-ha")
        self.replicas = start_replicas(self.place.cluster, say, self.folder, self.fence, self.place.why)
        self.world.wait_leader(0)

    def pause_leader_while_it_allocates(self) -> Frozen:
        """Create claims and a pool, and stop the leader between its decision and the write."""
        say = self.timeline
        say.stage("2. Thirty claims and a pool; the leader is paused in the middle of allocating")
        self.world.kubectl("apply", "-f", "examples/claims.yaml")
        leader = self.leader()
        leader.trigger.touch()
        self.world.kubectl("apply", "-f", "examples/pool.yaml")
        note = leader.trigger.with_suffix(".note")
        until("the leader to be paused while it allocates", note.exists, timeout=20 * LEASE_DURATION)
        until("the process to be stopped", lambda: stopped(leader), timeout=20 * LEASE_DURATION)
        frozen = Frozen(leader, json.loads(note.read_text()), self.world.lease()[1])
        first, last = frozen.addresses[0], frozen.addresses[-1]
        say.say(
            "fault",
            f"{leader.short} is paused (SIGSTOP): it has decided on {len(frozen.given)} addresses,"
            f" {first} to {last}, and has not sent them",
        )
        return frozen

    def others_take_over(self, frozen: Frozen) -> None:
        """Delete a claim, let the Lease expire and another leader allocate, then delete and create more claims."""
        say = self.timeline
        say.stage("3. Another replica takes over; claims are deleted and created")
        name = frozen.given[frozen.addresses[0]].split("/")[1]
        self.world.kubectl("delete", "addressclaim", name, "--wait=false")
        self.world.wait_leader(frozen.token)
        until("the deleted claim to be gone", lambda: name not in self.world.claims(), timeout=20 * LEASE_DURATION)
        self.world.wait_bound()
        claims = self.world.claims()
        self.compare(frozen, claims)
        self.world.kubectl("delete", "addressclaim", *sorted(claims)[-3:])
        made = ["robin", "wren", "finch", "swift", "heron"]
        self.world.kubectl("apply", "-f", "-", stdin=documents(claim(n) for n in made))
        self.world.wait_bound()

    def compare(self, frozen: Frozen, claims: dict[str, dict[str, Any]]) -> None:
        """Show one claim whose address the paused leader would change."""
        for decided, owner in frozen.given.items():
            name = owner.split("/")[1]
            has = claims[name]["status"]["address"] if name in claims else decided
            if has != decided:
                self.timeline.say(
                    "detail", f"claim {name} has {has}; the paused leader had decided on {decided} for it"
                )
                return

    def the_paused_one_wakes(self, frozen: Frozen) -> None:
        """Let the paused leader continue. It sends its write at once."""
        say = self.timeline
        replica = frozen.replica
        before = read_log(replica)
        say.stage(f"4. {replica.short} wakes, still believes that it leads, and writes")
        say.say("fault", f"{replica.short} continues (SIGCONT): it sends at once what it had decided")
        replica.running.resume()
        if self.fence == "full":
            until("the refusal of the stale write", lambda: "refused by" in read_log(replica)[len(before) :])
        until("the paused leader to notice that it lost", lambda: lost(read_log(replica)[len(before) :]))
        self.world.wait_bound(strict=self.fence == "full")

    def nobody_listens_to_its_credentials(self, frozen: Frozen) -> None:
        """Send raw requests with the stale leader's service account token, without any of our code."""
        say = self.timeline
        say.stage("5. Only its credentials, without any of our code: raw requests with its service account token")
        stamp = {
            "lease": f"{NAMESPACE}/{LEASE}",
            "token": frozen.token,
            "holder": f"{frozen.replica.pod}_{frozen.replica.uid}_late",
            "podUID": frozen.replica.uid,
        }
        theft = {"allocations": {frozen.addresses[0]: "default/x/y"}}
        self.raw(frozen.replica, {"status": {"fencing": stamp, **theft}})  # the CRD's transition rule
        self.raw(frozen.replica, {"status": theft})  # a policy: the stamp on the object is another pod's

    def raw(self, replica: Replica, body: dict[str, Any]) -> None:
        """Patch the pool's status with a replica's service account token and nothing else."""
        say = self.timeline
        path = f"/apis/ipam.kopf-ha.dev/v1/addresspools/{POOL}/status"
        say.say("you", f"$ curl --oauth2-bearer <{replica.short}'s> -X PATCH …{path} -d '{json.dumps(body)}'")
        answer = requests.patch(
            self.place.cluster.servers[0] + path,
            data=json.dumps(body),
            headers={"Authorization": f"Bearer {replica.token}", "Content-Type": "application/merge-patch+json"},
            verify=str(self.place.cluster.ca_file or True),
            timeout=10,
        )
        if answer.ok:
            say.say("bad", "the API server accepted it")
            return
        say.refusal("server")
        say.say("refused", f"REFUSED by server: {answer.status_code} {answer.json().get('message', '')}"[:500])

    def leader_ended_by_sigterm(self) -> None:
        """End the leader by SIGTERM: it releases the Lease, and another replica leads at once."""
        say = self.timeline
        say.stage("6. The leader is ended by SIGTERM: it releases the Lease, and another one leads at once")
        leader, token = self.leader(), self.world.lease()[1]
        leader.running.terminate()
        say.say("fault", f"SIGTERM to {leader.short}")
        self.world.kubectl("apply", "-f", "-", stdin=documents(claim(n) for n in ("otter", "lynx")))
        self.world.wait_leader(token)
        self.world.wait_bound(strict=self.fence == "full")
        leader.running.wait(20 * LEASE_DURATION)
        leader.start()

    def leader_killed(self) -> None:
        """Kill the leader: its Lease has to expire first."""
        say = self.timeline
        say.stage("7. The leader is killed: its Lease has to expire")
        leader, token = self.leader(), self.world.lease()[1]
        leader.running.kill()
        say.say("fault", f"SIGKILL to {leader.short}")
        self.world.kubectl("apply", "-f", "-", stdin=documents(claim(n) for n in ("hare", "stoat")))
        self.world.wait_leader(token)
        self.world.wait_bound(strict=self.fence == "full")

    def history(self) -> judge.History:
        """Read what happened."""
        what = (
            "every revision from etcd, and the audit log" if self.place.whole else "every revision that watches showed"
        )
        self.timeline.stage(f"8. The judge reads {what}")
        return self.place.history()

    def ask_the_judge(self, history: judge.History) -> judge.Verdict:
        """Let the judge check the history."""
        whole = self.place.whole
        expected = judge.Expectations(
            operator_user=f"system:serviceaccount:{NAMESPACE}:{self.replicas[0].account}",
            lease_names=(f"{NAMESPACE}/{LEASE}",),
            fenced=self.fence == "full",
            min_terms=4,
            min_bound_claims=30,
            min_refusals=2 if self.fence == "full" and whole else 0,
            pods_expected=whole,
            audit_whole=whole,
        )
        verdict = judge.judge(history, self.place.audit(), expected)
        self.conclude(verdict)
        return verdict

    def replay(self, history: judge.History) -> bool:
        """Put the replicas' traces through the core again, and join them with the history; return whether all fits."""
        runs = [run for each in self.replicas for run in replay.read(each.trace)]
        found = report.check(runs, history if self.fence == "full" and self.place.whole else None)
        self.show("bad", [str(one) for one in found.differences])
        self.timeline.say("bad" if found.differences else "good", report.summary(found))
        return not found.differences

    def conclude(self, verdict: judge.Verdict) -> None:
        """Show what the judge found."""
        say, seen = self.timeline, verdict.summary
        terms = ", ".join(str(term) for term in (t.token for t in seen.terms))
        say.say(
            "detail",
            f"{seen.revisions} revisions, {seen.objects} objects, terms {terms}, {seen.claims_bound} claims bound,"
            f" {seen.addresses_given} addresses given; refused answers: {dict(seen.refused)}",
        )
        duplicates = verdict.duplicates
        others = [finding for finding in verdict.findings if finding not in duplicates]
        self.show("detail" if duplicates else "bad", [str(finding) for finding in others])
        self.show("bad", [finding.sentence for finding in duplicates])
        if verdict.ok:
            say.say("good", f"no address twice, no token going down. Writes refused: {say.refusals()}.")
        elif duplicates:
            say.say("bad", f"{len(duplicates)} addresses were given twice. This is what the fence is for.")

    def show(self, kind: str, sentences: list[str]) -> None:
        """Show the first findings, and how many more there are."""
        for sentence in sentences[:SHOWN]:
            self.timeline.say(kind, re.sub(r"\(uid ([0-9a-f]{8})[-0-9a-f]+\)", r"(uid \1…)", sentence))
        if len(sentences) > SHOWN:
            self.timeline.say(kind, f"… and {len(sentences) - SHOWN} more of this kind")

    def leader(self) -> Replica:
        """Return the replica that leads now."""

        def find() -> Replica | None:
            holder, _ = self.world.lease()
            return next((r for r in self.replicas if r.pod == holder), None)

        return until("a leader", find, timeout=20 * LEASE_DURATION)


class Frozen:
    """The write that a paused leader has decided but not sent."""

    def __init__(self, replica: Replica, note: dict[str, Any], token: int) -> None:
        self.replica, self.token = replica, token
        allocations = note["body"]["status"]["allocations"]
        self.given: dict[str, str] = {address: owner for address, owner in allocations.items() if owner}
        self.addresses = sorted(self.given, key=lambda a: [int(part) for part in re.split(r"[.:]", a) if part])


def stopped(replica: Replica) -> bool:
    """Return whether the replica's process is stopped (state T)."""
    pid = replica.running.pid
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def lost(log: str) -> bool:
    """Return whether a part of a replica's log says that its term is over."""
    return re.search(r"term \d+ .*is over|\] lost: ", log) is not None


def read_log(replica: Replica) -> str:
    """Return what a replica has logged so far."""
    return replica.log.read_text()


def documents(objects: Any) -> str:
    """Return objects as one stream for kubectl."""
    return "\n---\n".join(json.dumps(o) for o in objects)


def tell(timeline: Timeline, place: Place, folder: Path, fence: str) -> bool:
    """Run the demo in a place; return whether all was as it should be."""
    timeline.say("detail", f"ready; kubeconfig {place.cluster.kubeconfig}")
    return Story(place, timeline, folder, fence).tell()
