"""The mutations with names: each breaks what somebody relies on."""

from mutants.mutation import Mutation
from mutants.named.barrier import BARRIER
from mutants.named.election import ELECTION
from mutants.named.fence import FENCE
from mutants.named.ipam import IPAM
from mutants.named.server import SERVER

NAMED: tuple[Mutation, ...] = (*FENCE, *ELECTION, *BARRIER, *SERVER, *IPAM)

__all__ = ["NAMED"]
