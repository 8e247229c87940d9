"""All places of a module where one small change can be made at random.

Each change is one that people make by mistake: a comparison turned around or off by one, `and` for `or`, a lost `not`,
another constant, `min` for `max`, a statement or a condition that is missing, a function that returns too early.
Docstrings, annotations, and the texts of errors and logs stay as they are.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

_SWAPS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_CALLS = {"min": "max", "max": "min", "any": "all", "all": "any"}
_SUMS: dict[type[ast.operator], ast.operator] = {ast.Add: ast.Sub(), ast.Sub: ast.Add(), ast.Mult: ast.Div()}


@dataclass(frozen=True, slots=True)
class Point:
    """One change of one module.

    Args:
        path: of the module, from the root.
        line: of the text that is replaced.
        last: line of that text.
        start: where the text begins, in characters from the beginning of the module.
        end: where it ends.
        old: the text.
        new: what replaces it.
        function: the line of the innermost `def` around it; 0 for none, then importing the module runs it.
    """

    path: str
    line: int
    last: int
    start: int
    end: int
    old: str
    new: str
    function: int

    def applied(self, text: str) -> str:
        """Return the module's text with the change."""
        return text[: self.start] + self.new + text[self.end :]

    def shown(self, text: str) -> tuple[str, str]:
        """Return the line before and after the change, which identify it as long as nobody changes the line."""
        begin, end = text.rfind("\n", 0, self.start) + 1, text.find("\n", self.end)
        before, after = text[begin : self.start], text[self.end : end if end >= 0 else len(text)]
        return tuple(" ".join((before + middle + after).split()) for middle in (self.old, self.new))  # type: ignore[return-value]


def points_in(path: str, text: str) -> list[Point]:
    """Return all changes of a module. A few of them may be no Python; see `compiles`."""
    walker = _Walker(path, text)
    walker.visit(ast.parse(text))
    return walker.found


def compiles(text: str) -> bool:
    """Whether a module's text is Python."""
    try:
        compile(text, "mutant", "exec")
    except SyntaxError:
        return False
    return True


class _Walker(ast.NodeVisitor):
    def __init__(self, path: str, text: str) -> None:
        self.found: list[Point] = []
        self._path = path
        self._lines = [0]
        for line in text.encode().splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))
        self._bytes = text.encode()
        self._function = 0

    def _add(self, node: ast.expr | ast.stmt, *new: str) -> None:
        start = self._at(node.lineno, node.col_offset)
        end = self._at(node.end_lineno or node.lineno, node.end_col_offset or 0)
        old = self._bytes[start:end].decode()
        first, last = len(self._bytes[:start].decode()), len(self._bytes[:end].decode())
        for one in new:
            place = (self._path, node.lineno, node.end_lineno or node.lineno, first, last)
            self.found.append(Point(*place, old, one, self._function))

    def _at(self, line: int, column: int) -> int:
        return self._lines[line - 1] + column

    # --- what is left as it is

    def visit_Raise(self, node: ast.Raise) -> None:
        """Errors keep their texts."""
        self._add(node, "pass")

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """So do messages."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """Only the value counts."""
        if node.value is not None:
            self.visit(node.value)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Annotations and docstrings are not run."""
        if node.name in ("__str__", "__repr__"):
            return
        for value in (*node.args.defaults, *(one for one in node.args.kw_defaults if one is not None)):
            self.visit(value)
        around, self._function = self._function, node.decorator_list[0].lineno if node.decorator_list else node.lineno
        for statement in node.body:
            self.visit(statement)
        self._function = around

    # --- what is changed

    def visit_Expr(self, node: ast.Expr) -> None:
        """A call that is missing."""
        if isinstance(node.value, ast.Constant):
            return  # a docstring
        self._add(node, "pass")
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        """An assignment that is missing, where the name has a value already."""
        if self._function and all(isinstance(one, ast.Attribute | ast.Subscript) for one in node.targets):
            self._add(node, "pass")
        self.visit(node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        """The same."""
        self._add(node, "pass")
        self.visit(node.value)

    def visit_Continue(self, node: ast.Continue) -> None:
        """A loop that goes on."""
        self._add(node, "pass")

    def visit_Break(self, node: ast.Break) -> None:
        """A loop that does not end."""
        self._add(node, "pass")

    def visit_Return(self, node: ast.Return) -> None:
        """A function that returns too early, or does not return here."""
        if node.value is None:
            self._add(node, "pass")
            return
        if not isinstance(node.value, ast.Constant):
            self._add(node, "return None")
        self.visit(node.value)

    def visit_If(self, node: ast.If) -> None:
        """A condition that is missing."""
        self._condition(node.test)
        for statement in (*node.body, *node.orelse):
            self.visit(statement)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        """The same."""
        self._condition(node.test)
        self.visit(node.body)
        self.visit(node.orelse)

    def _condition(self, test: ast.expr) -> None:
        self._add(test, "True", "False")
        self.visit(test)

    def visit_Compare(self, node: ast.Compare) -> None:
        """Another comparison."""
        for i, op in enumerate(node.ops):
            for other in _SWAPS[type(op)]:
                ops = [*node.ops[:i], other(), *node.ops[i + 1 :]]
                self._add(node, f"({ast.unparse(ast.Compare(node.left, ops, node.comparators))})")
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        """`and` for `or`, and a part that is missing."""
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        made: list[ast.expr] = [ast.BoolOp(other, node.values)]
        for i in range(len(node.values)):
            rest = [*node.values[:i], *node.values[i + 1 :]]
            made.append(ast.BoolOp(node.op, rest) if len(rest) > 1 else rest[0])
        self._add(node, *(f"({ast.unparse(one)})" for one in made))
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        """A `not` that is missing."""
        if isinstance(node.op, ast.Not):
            self._add(node, f"({ast.unparse(node.operand)})")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        """A sum for a difference."""
        other = _SUMS.get(type(node.op))
        texts = any(isinstance(one, ast.JoinedStr | ast.Constant) and _is_text(one) for one in (node.left, node.right))
        if other is not None and not texts:
            self._add(node, f"({ast.unparse(ast.BinOp(node.left, other, node.right))})")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        """Another constant. Texts with spaces are for people."""
        value = node.value
        if isinstance(value, bool):
            self._add(node, str(not value))
        elif isinstance(value, int | float):
            self._add(node, repr(value + 1))
        elif isinstance(value, str) and value and " " not in value:
            self._add(node, repr(value + "~"))

    def visit_Call(self, node: ast.Call) -> None:
        """`min` for `max`."""
        if isinstance(node.func, ast.Name) and node.func.id in _CALLS:
            self._add(node.func, _CALLS[node.func.id])
        self.generic_visit(node)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def all_points(texts: dict[str, str]) -> Iterator[Point]:
    """Return all changes of these modules, by path and place."""
    for path in sorted(texts):
        yield from points_in(path, texts[path])
