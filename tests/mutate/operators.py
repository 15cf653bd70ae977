"""What can go wrong in one place: mutation operators over the syntax tree of a file.

A mutant replaces one piece of source by another. What changes looks alone (sizes, gaps, colors, wording), annotations,
docstrings, `assert`, the `strict` of a zip and the words of errors are left as they are.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

# Words that stand for two sides of one thing: each is replaced by its other, whole or between underscores.
SIDES = (
    "i2t t2i", "image text", "images texts", "min max", "any all", "argmin argmax", "idxmin idxmax", "floor ceil",
    "low high", "lower upper", "row column", "rows columns", "x y", "w h", "x0 x1", "y0 y1", "width height",
    "before now", "first second", "left right", "train val", "mean median", "zeros ones", "head tail", "first last",
    "log linear", "dash solid", "intersection union", "contrastive alignment", "page book", "pages books",
    "searchsorted digitize", "nanmin nanmax", "minimum maximum", "query key", "source target", "start end",
)  # fmt: skip
OTHER = {a: b for pair in SIDES for a, b in (pair.split(), reversed(pair.split()))}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Calls that give back much the same thing, so that a program without them runs on: functions, and methods.
PASSED_THROUGH = _words(
    """abs round set sorted reversed sqrt log exp log2 log10 escape normalize unique nan_to_num logical_not"""
)
UNDONE = _words(
    """strip lstrip rstrip lower upper casefold clip clamp clamp_min sort_values sort_index dropna fillna abs detach
    float double long astype round copy resolve reset_index sort cumsum unique T transpose mean sum head tail title
    replace drop_duplicates groupby masked_fill tolist flatten to squeeze unsqueeze contiguous exp log sqrt"""
)
LOOKS = _words(
    """height width size gap padding margin margins opacity color help icon label title caption font line_width border
    layout columns vertical_alignment horizontal_alignment description placeholder showlegend hovertemplate"""
)
COMMUTE = _words("max min maximum minimum isclose array_equal intersect1d union1d isdisjoint")  # in their arguments
TYPES = _words("tuple dict list set type Literal Callable Sequence Mapping Iterator Iterable Any Memory")
LOOKS_CALLS = _words("columns container space divider markdown caption html toast info")
COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt, ast.GtE), ast.Gt: (ast.GtE, ast.Lt), ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.In: (ast.NotIn,), ast.NotIn: (ast.In,), ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}  # fmt: skip
KNOWN = _words("min max any all argmin argmax idxmin idxmax floor ceil zeros ones head tail mean median")
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.Pow: ast.Mult,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One replacement: `source[start:end]` of `file` becomes `after`. Lines count from 1."""

    file: str
    line: int
    operator: str
    scope: str
    start: int
    end: int
    before: str
    after: str
    nth: int = 0

    @property
    def key(self) -> str:
        """The same for the same mutation of the same text, wherever it stands in the file."""
        text = "\0".join((self.file, self.scope, self.operator, self.before, self.after, str(self.nth)))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def apply(self, source: str) -> str:
        """The file's source with this bug in it."""
        return source[: self.start] + self.after + source[self.end :]


def mutants(file: str, source: str) -> list[Mutant]:
    """Every mutant of a file that compiles and is another program, in the order of the source."""
    tree = ast.parse(source)
    starts = _line_starts(source)
    found: dict[tuple[int, int, str], Mutant] = {}
    seen: dict[tuple[str, ...], int] = {}
    for operator, scope, anchor, after in _Walk(tree).all():
        start, end = _at(starts, source, anchor.lineno, anchor.col_offset), _end(starts, source, anchor)
        before = source[start:end]
        slices = isinstance(anchor, ast.Tuple) and any(isinstance(e, ast.Slice) for e in anchor.elts)
        if slices:  # a colon stands in no parentheses: `x[(:, 0)]` is no program
            text = after.removeprefix("(").removesuffix(")")
            same = not _differ(f"_[{before}]", f"_[{text}]")
        else:
            text = after if isinstance(anchor, ast.stmt) else f"({after})"
            same = not _differ(before, text)
        if (start, end, text) in found:
            continue
        alike = (scope, operator, before, text)
        mutant = Mutant(file, anchor.lineno, operator, scope, start, end, before, text, seen.get(alike, 0))
        if not same:
            found[start, end, text] = mutant
            seen[alike] = mutant.nth + 1
    return sorted(found.values(), key=lambda m: (m.start, m.end, m.after))


def _differ(before: str, after: str) -> bool:
    """Whether both are sound and not the same program."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _dumped(f"({before})") != ast.dump(ast.parse(f"({after})"))
        except SyntaxError:  # a statement, which stands in no parentheses
            return after != before


@functools.lru_cache(maxsize=256)  # of one place come many mutants
def _dumped(source: str) -> str:
    return ast.dump(ast.parse(source))


def _line_starts(source: str) -> list[int]:
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    return starts


def _at(starts: list[int], source: str, line: int, column: int) -> int:
    """The place in the text of a line and a column in bytes, as the syntax tree counts."""
    text = source[starts[line - 1] : starts[line]]
    return starts[line - 1] + len(text.encode()[:column].decode())


def _end(starts: list[int], source: str, node: ast.expr | ast.stmt) -> int:
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return _at(starts, source, node.end_lineno, node.end_col_offset)


Found = tuple[str, str, ast.expr | ast.stmt, str]


class _Walk:
    """Goes through a tree; every operator proposes another node for the one that it meets."""

    def __init__(self, tree: ast.Module) -> None:
        self.tree = tree
        nodes = list(ast.walk(tree))
        self.words = {n.id for n in nodes if isinstance(n, ast.Name)}
        self.words |= {n.attr for n in nodes if isinstance(n, ast.Attribute)} | KNOWN
        self.words |= {n.arg for n in nodes if isinstance(n, ast.arg)}

    def all(self) -> Iterator[Found]:
        for statement in self.tree.body:
            yield from self._node(self.tree, "body", None, statement, "", None)

    def _node(
        self, parent: ast.AST, field: str, index: int | None, node: ast.AST, scope: str, whole: ast.expr | None
    ) -> Iterator[Found]:
        if _left_alone(parent, field, node):
            return
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            scope = f"{scope}.{node.name}" if scope else node.name
        if isinstance(node, ast.JoinedStr) and whole is None:
            whole = node  # positions within f-strings are not told before Python 3.12: the whole string is written anew
        for operator, other in self._others(parent, field, node):
            yield from self._written(parent, field, index, node, scope, whole, operator, other)
        for name, value in ast.iter_fields(node):
            for i, child in enumerate(value) if isinstance(value, list) else ((None, value),):
                if isinstance(child, ast.AST) and not isinstance(child, ast.expr_context | ast.operator | ast.cmpop):
                    yield from self._node(node, name, i, child, scope, whole)

    def _written(
        self,
        parent: ast.AST,
        field: str,
        index: int | None,
        node: ast.AST,
        scope: str,
        whole: ast.expr | None,
        operator: str,
        other: ast.AST,
    ) -> Iterator[Found]:
        if whole is None or whole is node:
            if isinstance(node, ast.expr | ast.stmt):
                yield operator, scope, node, _unparsed(other)
            return
        _put(parent, field, index, other)
        try:
            yield operator, scope, whole, _unparsed(whole)
        finally:
            _put(parent, field, index, node)

    def _others(self, parent: ast.AST, field: str, node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
        if isinstance(node, ast.stmt):
            yield from _of_statement(node)
        elif isinstance(node, ast.Constant):
            yield from _of_constant(parent, field, node)
        elif isinstance(node, ast.Name | ast.Attribute):
            yield from _of_name(node, self.words)
        elif isinstance(node, ast.Call):
            yield from _of_call(node)
        elif isinstance(node, ast.expr):
            yield from _of_expression(parent, node)
        if field == "test" or (field == "ifs" and isinstance(node, ast.expr)):
            yield "negate", ast.UnaryOp(ast.Not(), node)  # type: ignore[arg-type]


def _unparsed(node: ast.AST) -> str:
    return ast.unparse(ast.fix_missing_locations(node))


def _put(parent: ast.AST, field: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[index] = node


def _left_alone(parent: ast.AST, field: str, node: ast.AST) -> bool:
    if isinstance(node, ast.Import | ast.ImportFrom | ast.Assert | ast.Global | ast.Nonlocal | ast.arguments):
        return True
    if field in ("annotation", "returns", "decorator_list", "bases", "type_params"):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True  # a docstring
    if isinstance(parent, ast.Raise) or isinstance(node, ast.arg):
        return True
    if isinstance(node, ast.keyword) and (node.arg in LOOKS or node.arg == "strict"):
        return True  # `strict=True` of a zip is an assertion
    if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
        return True
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in TYPES:
        return True
    if isinstance(node, ast.If):
        test = _unparsed(node.test)
        return "TYPE_CHECKING" in test or "__name__" in test
    if isinstance(parent, ast.Call) and field == "args":
        name = parent.func.attr if isinstance(parent.func, ast.Attribute) else getattr(parent.func, "id", "")
        return name in LOOKS_CALLS or name.endswith(("Error", "Problem")) or name in ("cast", "TypeVar", "getLogger")
    return False


def _of_statement(node: ast.stmt) -> Iterator[tuple[str, ast.AST]]:
    droppable = (
        isinstance(node, ast.Expr | ast.AugAssign | ast.Raise | ast.Continue | ast.Break | ast.Delete)
        or (isinstance(node, ast.Assign) and not isinstance(node.targets[0], ast.Name | ast.Tuple))
        or (isinstance(node, ast.Return) and node.value is None)
    )
    if droppable:
        yield "drop statement", ast.Pass()
    if isinstance(node, ast.AugAssign) and type(node.op) in ARITHMETIC:
        yield "swap operator", ast.AugAssign(node.target, ARITHMETIC[type(node.op)](), node.value)


def _of_constant(parent: ast.AST, field: str, node: ast.Constant) -> Iterator[tuple[str, ast.AST]]:
    value = node.value
    if isinstance(value, bool):
        yield "change constant", ast.Constant(not value)
    elif isinstance(value, int):
        axis = isinstance(parent, ast.keyword) and parent.arg in ("axis", "dim")
        if axis:
            yield "swap axes", ast.Constant(1 if value == 0 else 0)
        else:
            yield "one more", ast.Constant(value + 1)
            if value > 0:
                yield "one less", ast.Constant(value - 1)
    elif isinstance(value, float):
        yield "change constant", ast.Constant(value * 1.5 if value else 1.0)
    elif isinstance(value, str) and not isinstance(parent, ast.JoinedStr):
        other = _other_word(value)
        if other is not None:
            yield "swap sides", ast.Constant(other)


def _other_word(word: str) -> str | None:
    """The word with its one side replaced by the other, or None where there is none."""
    if word in OTHER:
        return OTHER[word]
    if " " in word or not word.replace("/", "_").replace(".", "_").isidentifier():
        return None
    for mark in "/_.":
        parts = word.split(mark)
        for i, part in enumerate(parts):
            if len(part) > 1 and part in OTHER:
                return mark.join([*parts[:i], OTHER[part], *parts[i + 1 :]])
    return None


def _of_name(node: ast.Name | ast.Attribute, words: set[str]) -> Iterator[tuple[str, ast.AST]]:
    if not isinstance(node.ctx, ast.Load):
        return
    if isinstance(node, ast.Name):
        other = _other_word(node.id)
        if other in words:
            yield "swap sides", ast.Name(other, ast.Load())
        return
    other = _other_word(node.attr)
    if other in words:
        yield "swap sides", ast.Attribute(node.value, other, ast.Load())


def _of_call(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    args, keywords = node.args, node.keywords
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    plain = not any(isinstance(a, ast.Starred) for a in args) and name not in COMMUTE
    for i in range(len(args) - 1):
        if plain and ast.dump(args[i]) != ast.dump(args[i + 1]):
            yield "swap arguments", ast.Call(node.func, [*args[:i], args[i + 1], args[i], *args[i + 2 :]], keywords)
    for i, keyword in enumerate(keywords):
        if keyword.arg is None or keyword.arg in LOOKS or keyword.arg == "strict":
            continue
        yield "drop keyword", ast.Call(node.func, args, [*keywords[:i], *keywords[i + 1 :]])
        after = keywords[i + 1] if i + 1 < len(keywords) else None
        if after is not None and after.arg is not None and after.arg not in LOOKS:
            first, second = ast.keyword(keyword.arg, after.value), ast.keyword(after.arg, keyword.value)
            yield "swap arguments", ast.Call(node.func, args, [*keywords[:i], first, second, *keywords[i + 2 :]])
    if isinstance(node.func, ast.Attribute) and node.func.attr in UNDONE:
        base = node.func.value
        if not (isinstance(base, ast.Name) and base.id in ("np", "torch", "pd", "F", "os", "shutil", "math")):
            yield "drop call", base
    if args and not isinstance(args[0], ast.Starred) and name in PASSED_THROUGH:
        yield "drop call", args[0]


def _of_expression(parent: ast.AST, node: ast.expr) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            for other in COMPARISONS[type(op)]:
                ops = [*node.ops[:i], other(), *node.ops[i + 1 :]]
                yield "swap comparison", ast.Compare(node.left, ops, node.comparators)
    elif isinstance(node, ast.BoolOp):
        for i in range(len(node.values)):
            rest = [*node.values[:i], *node.values[i + 1 :]]
            yield "drop condition", rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)
        yield "swap and/or", ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        if not any(isinstance(n, ast.JoinedStr) or _is_text(n) for n in (node.left, node.right)):
            yield "swap operator", ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub | ast.Invert):
        yield ("drop not" if not isinstance(node.op, ast.USub) else "drop minus"), node.operand
    elif isinstance(node, ast.IfExp):
        yield "swap branches", ast.IfExp(node.test, node.orelse, node.body)
    elif isinstance(node, ast.Tuple) and isinstance(node.ctx, ast.Load) and len(node.elts) > 1:
        if isinstance(
            parent, ast.Call | ast.Subscript | ast.Compare | ast.BinOp
        ):  # elsewhere it is taken apart by length
            for i in range(len(node.elts)):
                if isinstance(parent, ast.Subscript) and _says_nothing(node.elts, i):
                    continue
                yield "drop part", ast.Tuple([*node.elts[:i], *node.elts[i + 1 :]], ast.Load())
        for i in range(len(node.elts) - 1 if isinstance(parent, ast.Return | ast.Assign | ast.Subscript) else 0):
            order = [*node.elts[:i], node.elts[i + 1], node.elts[i], *node.elts[i + 2 :]]
            yield "swap parts", ast.Tuple(order, ast.Load())
    elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
        yield from _of_subscript(node)


def _says_nothing(parts: list[ast.expr], i: int) -> bool:
    """Whether an index means the same without one part: a leading None, to what broadcasts, or a last full slice."""
    part = parts[i]
    if isinstance(part, ast.Constant):
        return i == 0 and part.value is None
    return i == len(parts) - 1 and isinstance(part, ast.Slice) and not (part.lower or part.upper or part.step)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _of_subscript(node: ast.Subscript) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node.slice, ast.Slice):
        part = node.slice
        for name in ("lower", "upper", "step"):
            if getattr(part, name) is not None:
                kept = {n: getattr(part, n) for n in ("lower", "upper", "step") if n != name}
                yield "drop bound", ast.Subscript(node.value, ast.Slice(**kept), ast.Load())
    elif isinstance(node.slice, ast.Constant) and node.slice.value == 0:
        yield "last for first", ast.Subscript(node.value, ast.Constant(-1), ast.Load())
