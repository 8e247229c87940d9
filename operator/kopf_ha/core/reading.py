"""Finds out whether this term may write an object."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kopf_ha.core.gate import Gate
from kopf_ha.core.hearing import leads
from kopf_ha.core.known import Known, Revision, revision_of
from kopf_ha.core.notes import EARLIER, note_name, section_of
from kopf_ha.core.target import Target
from kopf_ha.core.token import MalformedStamp, Verdict, judge
from kopf_ha.core.wire import OwnRequestRefused, Request, Response, Steps
from kopf_ha.errors import FloorLost, ForeignStamp, StaleLeader, StampDropped, TermEnded, Unfenced

_REPAIR = (
    f"remove its {{section}} {{name}} and the annotations {', '.join(EARLIER)}, by an administrator where a policy"
    " protects them, or raise leaseTransitions above the token if the Lease lost its count"
)


@dataclass(frozen=True, slots=True)
class Found:
    """An object that this term may write, at the revision whose stamp was judged.

    Args:
        revision: of the object.
        mine: this very term has stamped it.
        answer: to the read; None if the revision was known without one.
    """

    revision: Revision
    mine: bool
    answer: Response | None = None


@dataclass(frozen=True, slots=True)
class Gone:
    """There is no object of that name. `answer` is the API server's 404."""

    answer: Response


class Reader:
    """Reads the object of one write, judges the stamp that it records, and notes what the answers show of it.

    Args:
        target: the object, or the collection in which it is created.
        stamped: whether the kind carries `status.fencing`.
        known: what this process knows; it is kept up to date.
        gate: sends the requests.
        root: what the API server's paths begin with, when it is behind a proxy.
    """

    def __init__(self, target: Target, stamped: bool, known: Known, gate: Gate, root: str) -> None:
        self.target = target
        self.stamped = stamped
        self.known = known
        self.gate = gate
        self.root = root
        self.mine = gate.grant.stamp
        self.path = root + target.path

    def look(self, version: str | None, uid: str | None) -> Steps[Found | Gone]:
        """Find the object, without a request if it is known at the revision that the caller means.

        Args:
            version: the resourceVersion that the caller named; None if any will do.
            uid: the uid that the caller named; None if any will do.

        Raises:
            Refused: this term may not write it; see `read`.
        """
        revision = self.known.objects.get(self.target.key)
        if revision is None or version not in (None, revision.version) or uid not in (None, revision.uid):
            # The stamp has to be judged at the very revision that the write is conditioned on.
            return (yield from self.read())
        return Found(revision, (yield from self.check_stamp(revision)))

    def read(self) -> Steps[Found | Gone]:
        """Read the object from a quorum.

        Raises:
            TermEnded: a later term wrote it.
            ForeignStamp: `status.fencing` names another Lease.
            Unfenced: its metadata claims a later term that the Lease does not know. Or the answer is no object; if
                that was taken for "gone", a write would be reported that never happened.
            MalformedStamp: its stamp is incomplete or invalid.
            OwnRequestRefused: the read was refused.
        """
        self.known.objects.forget(self.target.key)
        answer = yield from self.gate.send(Request("GET", self.path))
        if answer.status == 404:
            return Gone(answer)
        if not answer.ok:
            raise OwnRequestRefused(answer)
        revision = self.learn(answer)
        if revision is None:
            raise Unfenced(
                f"{self.target}: the API server's answer to a read is no object with a uid and a version",
                by_object=True,
            )
        return Found(revision, (yield from self.check_stamp(revision)), answer)

    def check_stamp(self, revision: Revision) -> Steps[bool]:
        """Refuse to write an object of a later term (I2, I3); otherwise return whether its stamp is this term's.

        Whoever may edit a child may write its annotations, unless a policy protects them. So a token in annotations
        refuses the write, but only the Lease can tell that the term is over (I10).

        Raises:
            TermEnded: a later term wrote it.
            ForeignStamp: `status.fencing` names another Lease.
            Unfenced: its metadata claims a later term that the Lease does not know.
        """
        verdict, recorded, mine = judge(revision.stamp, self.mine), revision.stamp, self.mine
        if recorded is None or verdict in (Verdict.FREE, Verdict.MINE):
            return verdict is Verdict.MINE
        if verdict is Verdict.FOREIGN:
            raise ForeignStamp(
                f"{self.target} is fenced by Lease {recorded.lease} (token {recorded.token}, {recorded.holder}), not"
                f" by {mine.lease}: two operators must not write one kind; stop one of them, and remove"
                " status.fencing by the break-glass of the documentation if the other is gone for good"
            )
        what = (
            f"{self.target} records token {recorded.token} of {recorded.holder},"
            f" this term's is {mine.token} of {mine.holder}"
        )
        leads = yield from self.leads()
        if not self.stamped and leads is not False:
            says = "says that this process leads" if leads else "cannot be read"
            kind = self.target.kind
            repair = _REPAIR.format(section=section_of(kind)[:-1], name=note_name(mine.lease, kind))
            raise Unfenced(f"{what}, although Lease {mine.lease} {says}: {repair}", by_object=True)
        raise self.overtaken(what, recorded.token, leads)

    def check_floor(self, token: int) -> Steps[None]:
        """Check a token that the watch saw of this kind before its schema was known.

        Raises:
            TermEnded: it is above this term's.
        """
        if token > self.mine.token:
            what = f"an object of {self.target.kind} records token {token}, this term's is {self.mine.token}"
            raise self.overtaken(what, token, (yield from self.leads()))

    def leads(self) -> Steps[bool | None]:
        """Read the Lease from a quorum: whether this term is the current one; None when the answer does not say.

        It is read before a term is declared stale. An edited or recreated Lease may have lost its count.
        """
        return (yield from leads(self.gate.send, self.root, self.mine))

    def overtaken(self, what: str, token: int, leads: bool | None) -> TermEnded:
        """Return the error for a token in `status.fencing` that is not below this term's."""
        if leads:
            return FloorLost(f"{what}, although Lease {self.mine.lease} says that this process leads", token)
        return StaleLeader(f"stale leader: {what}")

    def learn(self, answer: Response, *, must_be_mine: bool = False) -> Revision | None:
        """Note the object in an accepted answer, and return its revision; None if the answer is no object.

        Raises:
            StampDropped: the object has to carry this term's stamp and does not. This ends the term, since no write to
                such a kind can be fenced.
            MalformedStamp: its stamp is incomplete or invalid.
        """
        body = answer.json
        dropped = StampDropped(
            f"{self.target}: the API server accepted the write and did not keep the stamp;"
            " does the kind's schema have status.fencing with lease, token, holder and podUID?"
        )
        try:
            lease, kind = self.mine.lease, self.target.kind
            revision = (
                revision_of(body, stamped=self.stamped, lease=lease, kind=kind) if isinstance(body, dict) else None
            )
        except MalformedStamp:
            if must_be_mine:
                raise dropped from None
            raise
        if revision is None:
            self.known.objects.forget(self.target.key)
            return None
        if must_be_mine and not (revision.stamp and self.mine.is_read_as(revision.stamp)):
            raise dropped
        kind, namespace, name = self.target.key
        name = name or str(body["metadata"].get("name", ""))  # a POST goes to the collection
        self.known.keep((kind, namespace, name), revision, stamped=self.stamped)
        return revision

    def learn_scale(self, answer: Response, at: Revision) -> None:
        """Note the revision in an accepted Scale. It shows no stamp: the object has those that it had before, `at`."""
        metadata = answer.json.get("metadata") if isinstance(answer.json, dict) else None
        if not isinstance(metadata, dict) or not metadata.get("resourceVersion") or not metadata.get("uid"):
            self.known.objects.forget(self.target.key)
            return
        now = replace(at, uid=str(metadata["uid"]), version=str(metadata["resourceVersion"]))
        self.known.keep(self.target.key, now, stamped=self.stamped)
