"""todo"""

from mutants.random_ones import Result


def write(results: list[Result], seed: int) -> None:
    """todo"""
