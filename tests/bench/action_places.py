"""Places for actions, made of held-out functions: something is taken away, or is wrong."""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from engine.evaluation.holes import Source
from engine.evaluation.metrics import compiles

Function = ast.FunctionDef | ast.AsyncFunctionDef
Change = tuple[int, int, str]
"""The characters from one offset to another, and what stands there instead."""

BODY = (2, 8)
"""The fewest and the most lines of a body that is to be written."""

MOST_HINTS = 6
NEAR = 400
"""Characters between two holes that are filled together, at most."""

PER_FILE = 10
_NAME = re.compile(r"\b[^\W\d]\w{2,}\b")
_OPEN = re.compile(r"\.\.\.|___|TODO")


@dataclass(frozen=True, slots=True)
class Place:
    """A text, what is selected of it, and what should come to stand at each place of it."""

    kind: str
    source: Source
    text: str
    start: int
    end: int
    references: tuple[str, ...]


class _File:
    """A source that is read. Only ASCII, since Python counts columns in bytes."""

    def __init__(self, source: Source, rng: random.Random) -> None:
        self.source, self.text, self.rng = source, source.text, rng
        self._starts = [0, *accumulate(len(line) for line in self.text.splitlines(keepends=True))]

    def functions(self) -> Iterator[tuple[Function, bool]]:
        """All functions, and of each whether it is a method."""
        for node in ast.walk(ast.parse(self.text)):
            for child in ast.iter_child_nodes(node):
                if isinstance(child, Function):
                    yield child, isinstance(node, ast.ClassDef)

    def span(self, node: ast.AST) -> tuple[int, int]:
        place: ast.expr = node  # type: ignore[assignment]
        assert place.end_lineno is not None
        assert place.end_col_offset is not None
        start = self._starts[place.lineno - 1] + place.col_offset
        return start, self._starts[place.end_lineno - 1] + place.end_col_offset

    def place(
        self, kind: str, changes: Sequence[Change], references: Sequence[str], chosen: bool = False
    ) -> Place:
        """The file with changes, in their order. chosen: all from the first one to the last one is
        selected; else the cursor is in front of the first."""
        pieces: list[str] = []
        at = 0
        for start, end, new in changes:
            pieces += self.text[at:start], new
            at = end
        text, start = "".join(pieces), changes[0][0]
        end = len(text) if chosen else start
        return Place(kind, self.source, text + self.text[at:], start, end, tuple(references))


def docstring(file: _File, function: Function, method: bool) -> Place | None:
    """The docstring is gone."""
    if len(function.body) < 2 or ast.get_docstring(function) is None:
        return None
    start, end = file.span(function.body[0])
    head = file.text[:start].rstrip()
    if not file.text.startswith('"""', start) or head[-1] != ":":
        return None
    return file.place("docstring", [(len(head), end, "")], [file.text[len(head) : end]])


def hints(file: _File, function: Function, method: bool) -> Place | None:
    """All type hints of the head are gone."""
    given, text = function.args, file.text
    each = [*given.posonlyargs, *given.args]
    defaults = dict(zip(reversed(each), reversed(given.defaults), strict=False))
    defaults |= {a: d for a, d in zip(given.kwonlyargs, given.kw_defaults, strict=True) if d}
    each += [one for one in (given.vararg, *given.kwonlyargs, given.kwarg) if one]
    changes: list[Change] = []
    for one in each[int(method) :]:
        if one.annotation is None:
            return None
        start, (_, end) = file.span(one)[0] + len(one.arg), file.span(one.annotation)
        if one in defaults:
            changes.append((start, file.span(defaults[one])[0], "="))
        else:
            changes.append((start, end, ""))
    if function.returns is None or not 1 < len(changes) + 1 <= MOST_HINTS:
        return None
    start, end = file.span(function.returns)
    arrow = text.rfind("->", 0, start)
    changes.append((len(text[:arrow].rstrip()), end, ""))
    return file.place("hints", changes, [text[start:end] for start, end, _ in changes])


def rewrite(file: _File, function: Function, method: bool) -> Place | None:
    """A line in which one name is another one of the function, selected."""
    nodes = [*ast.walk(function)]
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    names |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    lines = [
        file.span(node)
        for node in nodes
        if isinstance(node, ast.Assign | ast.Expr | ast.Return | ast.AugAssign)
        and node.lineno == node.end_lineno
    ]
    if not lines:
        return None
    first, last = file.rng.choice(lines)
    right = file.text[first:last]
    found = [match for match in _NAME.finditer(right) if match[0] in names]
    if len(found) < 2:
        return None
    wrong = file.rng.choice(found)
    other = file.rng.choice(sorted(names - {wrong[0]}))
    line = right[: wrong.start()] + other + right[wrong.end() :]
    if not compiles(f"async def f():\n {line}"):
        return None
    return file.place("rewrite", [(first, last, line)], [right], chosen=True)


def holes(file: _File, function: Function, method: bool) -> Place | None:
    """One or two expressions are gone, and `...` stands there."""
    values: list[ast.expr] = []
    for node in ast.walk(function):
        match node:
            case ast.Assign(value=value) | ast.Return(value=ast.expr() as value):
                values.append(value)
            case ast.Call(args=args, keywords=keywords):
                values += [one for one in args if not isinstance(one, ast.Starred)]
                values += [one.value for one in keywords if one.arg]
            case _:
                continue
    spans = [file.span(one) for one in values if one.lineno == one.end_lineno]
    spans = [(start, end) for start, end in spans if end - start > 2]
    if not spans or _OPEN.search(file.text[slice(*file.span(function))]):
        return None
    first = file.rng.choice(spans)
    near = [one for one in spans if first[1] + 3 < one[0] < first[1] + NEAR]
    chosen = [first, *file.rng.sample(near, min(len(near), file.rng.randrange(2)))]
    changes = [(start, end, "...") for start, end in chosen]
    return file.place("holes", changes, [file.text[s:e] for s, e in chosen], chosen=True)


def body(file: _File, function: Function, method: bool) -> Place | None:
    """The body is gone but for its docstring, and `...` stands there."""
    own = function.body[int(ast.get_docstring(function) is not None) :]
    if not own or own[0].lineno == function.lineno or getattr(own[0], "decorator_list", None):
        return None
    start, (_, end) = file.span(own[0])[0], file.span(own[-1])
    lines = file.text[start:end].split("\n")
    if not BODY[0] <= len(lines) <= BODY[1] or file.text[:start].rsplit("\n", 1)[1].strip():
        return None
    return file.place("body", [(start, end, "...")], ["\n".join(lines)])


KINDS: dict[str, Callable[[_File, Function, bool], Place | None]] = {
    "docstring": docstring,
    "hints": hints,
    "rewrite": rewrite,
    "holes": holes,
    "body": body,
}


def places(sources: Sequence[Source], kind: str, seed: int, count: int) -> list[Place]:
    """Places of a kind, in an order that the seed alone decides."""
    found: list[Place] = []
    for source in sources:
        if not source.text.isascii() or not compiles(source.text):
            continue
        rng = random.Random(f"{seed} {kind} {source.name}")
        file = _File(source, rng)
        own = (KINDS[kind](file, function, method) for function, method in file.functions())
        all_own = [place for place in own if place is not None]
        found += rng.sample(all_own, min(PER_FILE, len(all_own)))
    random.Random(f"{seed} {kind}").shuffle(found)
    return found[:count]
