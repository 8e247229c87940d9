"""todo"""

JUDGED: dict[tuple[str, str, str], str] = {}
