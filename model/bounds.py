"""What one exploration covers: how many of everything there are, and which defences are switched off."""

from __future__ import annotations

from dataclasses import dataclass, field

#: Every line of defence that can be switched off, and what is left without it.
DEFENCES = {
    "gate": "line 1: writes leave without a valid grant",
    "version": "line 2: what the fence sends names no revision",
    "stamps": "line 2: status writes and changes of children carry no stamp",
    "rules": "line 3: neither the CRD's rule nor the policies about stamps",
    "one-sided": "line 4 refuses whatever another pod sends, also with a newer token than it has heard of",
    "barrier": "a term decides before it has stamped the deciding objects",
    "floor": "the barrier does not compare the listed tokens with its own",
    "rising": "who acquires the Lease does not raise its number",
    "owner": "an equal token of another holder counts as one's own",
    "drain": "the Lease is given back before the handlers have ended, with the gate open",
    "moment": "the gate is still open at the very moment of its deadline",
    "sending": "a grant counts from the answer, not from when the request was sent",
    "asking": "a held gate opens again without a question to the API server",
    "resume": "the election is never told that a lost term is drained",
    "heeded": "who acquires the Lease does not look whether it is paused",
    "order": "an address is freed before its claim is gone",
}


_ONE = {
    "faults": "fault",
    "edits": "edit",
    "deletions": "deletion",
    "losses": "loss",
    "pauses": "pause",
    "handovers": "handover",
}


@dataclass(frozen=True)
class Bounds:
    """The bounds of one exploration, all of which it prints.

    Args:
        replicas: how many.
        terms: the highest token; nobody asks for a higher one.
        faults: how many requests get no answer although their term goes on: lost, answered late, or late themselves. A
            request whose term has ended waits in the network in any case, at no cost.
        edits: how many changes users make: to pools and children.
        deletions: how many claims are deleted.
        losses: how often the Lease is deleted.
        pauses: how often somebody pauses. Each pause may end at any time, or never.
        handovers: how often somebody asks the leader to hand over, to any of the replicas.
        term: whether line 4 is there, and the leader writes the Term.
        recovers: whether a term may go on after its renew deadline, with its gate held meanwhile.
        off: names of `DEFENCES` that are switched off.
    """

    replicas: int = 2
    terms: int = 3
    faults: int = 0
    edits: int = 0
    deletions: int = 0
    losses: int = 0
    pauses: int = 0
    handovers: int = 0
    term: bool = False
    recovers: bool = False
    off: frozenset[str] = field(default_factory=frozenset)

    def __str__(self) -> str:
        count = [f"{n} {name}{'s' if n > 1 else ''}" for name, n in (("replica", self.replicas), ("term", self.terms))]
        many = [count[0], "2 deciding objects", "2 children", count[1]]
        for name in _ONE:
            if n := getattr(self, name):
                many.append(f"{n} {name if n > 1 else _ONE[name]}")
        many += ["line 4"] if self.term else []
        many += ["terms that recover"] if self.recovers else []
        many += [f"without {', '.join(sorted(self.off))}"] if self.off else []
        return ", ".join(many)
