"""Edits made from code: those that other places must follow, and those that none must."""

from __future__ import annotations

import ast
import io
import random
import re
import tokenize
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from engine.evaluation.holes import Source

WORD = re.compile(r"\b[A-Za-z_]\w*\b")
PER_FILE = 3
"""The most cases of a kind that may come from one file."""


class Replacement(NamedTuple):
    """`new` in place of line `line` (from 0)."""

    line: int
    new: str


@dataclass
class Case:
    """A text, an edit of it, line by line, and by line what must follow; lines are those of the
    text, whose number no edit changes but one that puts lines in."""

    kind: str
    name: str
    text: str
    edits: list[Replacement]
    expected: dict[int, str] = field(default_factory=dict[int, str])


Make = Callable[[Source, random.Random, "Pool"], Iterator[Case]]


class Pool:
    """Names and strings of all sources, to put in."""

    def __init__(self, sources: Sequence[Source]) -> None:
        names: Counter[str] = Counter()
        for source in sources:
            names.update(WORD.findall(source.text))
        common = (n for n, count in names.items() if count > 3 and 2 < len(n) < 20)
        self.names = sorted(n for n in common if n.islower() and not hasattr(__builtins__, n))

    def name(self, old: str, text: str, rng: random.Random) -> str:
        """Another name, which the text does not have: one of elsewhere, or one made of the old."""
        derived = [f"{prefix}_{old}" for prefix in ("new", "raw", "current", "_")]
        derived += [f"{old}_{suffix}" for suffix in ("value", "item", "data")]
        while True:
            pool = derived if rng.random() < 0.5 else self.names
            name = rng.choice(pool)
            if not re.search(rf"\b{name}\b", text) and name.isidentifier():
                return name


def tree_of(source: Source) -> ast.Module | None:
    try:
        return ast.parse(source.text)
    except SyntaxError:
        return None


def columns(line: str, node: ast.expr | ast.arg) -> int:
    """The column of a node in characters."""
    return len(line.encode()[: node.col_offset].decode())


def renamed(lines: list[str], places: dict[int, set[int]], old: str, new: str) -> dict[int, str]:
    """The lines with `new` at these columns of each."""
    made: dict[int, str] = {}
    for number, starts in places.items():
        line = lines[number]
        for start in sorted(starts, reverse=True):
            assert line[start : start + len(old)] == old
            line = line[:start] + new + line[start + len(old) :]
        made[number] = line
    return made


def followed(
    kind: str, source: Source, made: dict[int, str], rng: random.Random, first: bool = False
) -> Case:
    """A case in which the first lines of `made` are edits, and the others must follow."""
    order = sorted(made)
    count = 1 if first else rng.randint(1, max(1, min(3, len(order) - 1)))
    edits = [Replacement(line, made[line]) for line in order[:count]]
    rest = {line: made[line] for line in order[count:]}
    return Case(kind, source.name, source.text, edits, rest)


# ---- what has followers ----


Function = ast.FunctionDef | ast.AsyncFunctionDef


def locals_of(function: Function, lines: list[str]) -> dict[str, dict[int, set[int]]]:
    """The places of the names that belong to a function alone, by name, line and column."""
    found: dict[str, dict[int, set[int]]] = {}
    own = {a.arg for a in ast.walk(function.args) if isinstance(a, ast.arg)} - {"self", "cls"}
    inner = [n for n in ast.walk(function) if n is not function]
    if any(
        isinstance(n, Function | ast.Lambda | ast.ClassDef | ast.Global | ast.Nonlocal)
        for n in inner
    ):
        return {}
    own |= {n.id for n in inner if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    for node in ast.walk(function):
        name = (
            node.id if isinstance(node, ast.Name) else node.arg if isinstance(node, ast.arg) else ""
        )
        if name in own:
            line = node.lineno - 1  # type: ignore[attr-defined]
            if lines[line][columns(lines[line], node) :].startswith(name):  # type: ignore[arg-type]
                found.setdefault(name, {}).setdefault(line, set()).add(columns(lines[line], node))  # type: ignore[arg-type]
            else:
                own.discard(name)  # in a part of a string, whose columns are not told
                found.pop(name, None)
    return found


def functions(source: Source) -> Iterator[Function]:
    tree = tree_of(source)
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, Function):
            yield node


def whole(places: dict[int, set[int]], name: str, lines: list[str], first: int, last: int) -> bool:
    """Whether the code of these lines has the name at no other place: not in strings, either."""
    for number in range(first, last):
        code = lines[number].split("#")[0]
        count = len(
            re.findall(rf"(?<![\w.])\b{name}\b(?!\s*=[^=])|(?<![\w.])\b{name}\b(?=\s*=[^=])", code)
        )
        if count != len(places.get(number, ())):
            return False
    return True


def local_names(source: Source, rng: random.Random, pool: Pool) -> Iterator[Case]:
    lines = source.text.split("\n")
    for function in functions(source):
        for name, places in locals_of(function, lines).items():
            span = function.lineno - 1, function.end_lineno or 0
            if len(places) > 2 and len(name) > 1 and whole(places, name, lines, *span):
                made = renamed(lines, places, name, pool.name(name, source.text, rng))
                yield followed("local name", source, made, rng)


def attributes(source: Source, rng: random.Random, pool: Pool) -> Iterator[Case]:
    lines = source.text.split("\n")
    given = re.findall(r"^\s+self\.(\w+)(?:: [^=]+)? = ", source.text, re.MULTILINE)
    for name in sorted(set(given)):
        every = re.findall(rf"\b{name}\b", source.text)
        places: dict[int, set[int]] = {}
        for number, line in enumerate(lines):
            for match in re.finditer(rf"\bself\.({name})\b", line.split("#")[0]):
                places.setdefault(number, set()).add(match.start(1))
        if len(places) > 2 and sum(map(len, places.values())) == len(every):
            made = renamed(lines, places, name, pool.name(name, source.text, rng))
            yield followed("attribute", source, made, rng)


def function_names(source: Source, rng: random.Random, pool: Pool) -> Iterator[Case]:
    lines = source.text.split("\n")
    for function in functions(source):
        name = function.name
        if name.startswith("__") or function.decorator_list:
            continue
        places: dict[int, set[int]] = {}
        method = lines[function.lineno - 1].startswith(" ")
        use = rf"(?<=\bself\.){name}\b(?=\()" if method else rf"(?<![.\w]){name}\b(?=\()"
        for number, line in enumerate(lines):
            for match in re.finditer(rf"(?<=def ){name}\b|{use}", line.split("#")[0]):
                places.setdefault(number, set()).add(match.start())
        uses = len(re.findall(rf"\b{name}\b", source.text))
        defined = len(re.findall(rf"def {name}\b", source.text))
        if len(places) > 1 and sum(map(len, places.values())) == uses and defined == 1:
            made = renamed(lines, places, name, pool.name(name, source.text, rng))
            first = function.lineno - 1
            edit = [Replacement(first, made.pop(first))] if first in made else []
            if edit and made:
                yield Case("function", source.name, source.text, edit, made)


CALL = re.compile(r"\b(\w+)\(([^()\n]*?)(, (\w+)=([\w.\"']+))\)")


def new_arguments(source: Source, rng: random.Random, pool: Pool) -> Iterator[Case]:
    """The same last argument in several calls, taken out of all and put in again."""
    lines = source.text.split("\n")
    calls: dict[tuple[str, str], dict[int, tuple[str, str]]] = {}
    for number, line in enumerate(lines):
        found = list(CALL.finditer(line))
        if len(found) == 1 and "def " not in line and "#" not in line:
            (match,) = found
            without = line[: match.start(3)] + line[match.end(3) :]
            calls.setdefault((match[1], match[3]), {})[number] = (line, without)
    for places in calls.values():
        if len(places) < 2:
            continue
        old = list(lines)
        for number, (_, without) in places.items():
            old[number] = without
        text = "\n".join(old)
        made = {number: line for number, (line, _) in places.items()}
        if tree_of(Source("", text)):
            yield followed("new argument", Source(source.name, text), made, rng, first=True)


PLAIN = re.compile(r"(\"[^\"\\\n]{2,30}\"|'[^'\\\n]{2,30}')")


def plain_strings(source: Source) -> dict[str, dict[int, set[int]]]:
    """Short strings that are no documentation, by text, line and column."""
    found: dict[str, dict[int, set[int]]] = {}
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type == tokenize.STRING and PLAIN.fullmatch(token.string):
            line, column = token.start
            found.setdefault(token.string, {}).setdefault(line - 1, set()).add(column)
    return found


def strings(source: Source, rng: random.Random, pool: Pool) -> Iterator[Case]:
    lines = source.text.split("\n")
    for old, places in plain_strings(source).items():
        if len(places) > 1 and sum(map(len, places.values())) == source.text.count(old):
            new = f"{old[0]}{pool.name('text', source.text, rng).replace('_', '-')}{old[0]}"
            yield followed("string", source, renamed(lines, places, old, new), rng)


def defaults(source: Source, rng: random.Random, pool: Pool) -> Iterator[Case]:
    """The same default of the same parameter in several functions, or calls of one."""
    lines = source.text.split("\n")
    tree = tree_of(source)
    if tree is None:
        return
    found: dict[tuple[str, str], dict[int, set[int]]] = {}
    for node in ast.walk(tree):
        if not isinstance(node, Function):
            continue
        names = [*node.args.posonlyargs, *node.args.args][-len(node.args.defaults) or 999 :]
        pairs = [*zip(names, node.args.defaults, strict=False)]
        pairs += [
            (a, d) for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if d
        ]
        for argument, default in pairs:
            if isinstance(default, ast.Constant) and type(default.value) in (bool, int):
                line = default.lineno - 1
                key = (argument.arg, repr(default.value))
                found.setdefault(key, {}).setdefault(line, set()).add(columns(lines[line], default))
    for (_, old), places in found.items():
        if len(places) > 1:
            new = {"True": "False", "False": "True"}.get(old) or str(int(old) + 2)
            made = renamed(lines, places, old, new)
            yield followed("default", source, made, rng, first=True)


# ---- what has none ----


def unchanged(kind: str, source: Source, text: str, line: int, new: str) -> Case:
    return Case(kind, source.name, text, [Replacement(line, new)])


def new_lines(source: Source, rng: random.Random, pool: Pool) -> Iterator[Case]:
    lines = source.text.split("\n")
    for number in rng.sample(range(len(lines)), min(40, len(lines))):
        old = [*lines[:number], "", *lines[number + 1 :]]
        if lines[number].strip() and tree_of(Source("", "\n".join(old))):
            yield unchanged("new line", source, "\n".join(old), number, lines[number])


def complete_renames(source: Source, rng: random.Random, pool: Pool) -> Iterator[Case]:
    """All of a function, while others have the name, too."""
    lines = source.text.split("\n")
    for function in functions(source):
        for name, places in locals_of(function, lines).items():
            span = function.lineno - 1, function.end_lineno or 0
            outside = [*lines[: span[0]], *lines[span[1] :]]
            elsewhere = re.search(rf"\b{name}\b", "\n".join(outside))
            if elsewhere and len(places) < 4 and whole(places, name, lines, *span):
                made = renamed(lines, places, name, pool.name(name, source.text, rng))
                edits = [Replacement(line, made[line]) for line in sorted(made)]
                yield Case("complete rename", source.name, source.text, edits)


def other_names(source: Source, rng: random.Random, pool: Pool) -> Iterator[Case]:
    """One use of a name becomes one of another that is there."""
    lines = source.text.split("\n")
    for function in functions(source):
        known = locals_of(function, lines)
        for name, places in known.items():
            others = [o for o in known if o != name and min(known[o]) < max(places)]
            if len(places) > 2 and others:
                line = max(places)
                new = renamed(lines, {line: {max(places[line])}}, name, rng.choice(others))[line]
                if tree_of(Source("", "\n".join([*lines[:line], new, *lines[line + 1 :]]))):
                    yield unchanged("another name", source, source.text, line, new)


def other_methods(source: Source, rng: random.Random, pool: Pool) -> Iterator[Case]:
    """One call of a method of something else becomes one of another method."""
    lines = source.text.split("\n")
    found: dict[str, list[tuple[int, int]]] = {}
    for number, line in enumerate(lines):
        for match in re.finditer(r"(?<=[\w)\]])\.(\w+)\(", line.split("#")[0]):
            if not re.search(rf"def {match[1]}\b|self\.{match[1]}\b", source.text):
                found.setdefault(match[1], []).append((number, match.start(1)))
    for name, places in found.items():
        if len(places) > 1:
            line, start = places[0]
            made = renamed(lines, {line: {start}}, name, pool.name(name, source.text, rng))
            yield unchanged("another method", source, source.text, line, made[line])


def prose(source: Source, rng: random.Random, pool: Pool) -> Iterator[Case]:
    lines = source.text.split("\n")
    for number, line in enumerate(lines):
        match = re.search(r"^\s*# .*\b([a-z_]{4,})\b", line)
        if match and source.text.count(match[1]) > 1:
            made = renamed(lines, {number: {match.start(1)}}, match[1], rng.choice(pool.names))
            yield unchanged("comment", source, source.text, number, made[number])


def numbers(source: Source, rng: random.Random, pool: Pool) -> Iterator[Case]:
    """But for defaults, which may be those of other functions, too."""
    lines, tree = source.text.split("\n"), tree_of(source)
    found = (n for n in ast.walk(tree) if isinstance(n, Function)) if tree else ()
    left = {d.lineno - 1 for f in found for d in (*f.args.defaults, *f.args.kw_defaults) if d}
    for number, line in enumerate(lines):
        if number in left:
            continue
        match = re.search(r"(?<![\w.\"'])(\d+)(?![\w.\"'])", line.split("#")[0])
        if match and "def " not in line and '"' not in line:
            new = line[: match.start()] + str(int(match[1]) + 1) + line[match.end() :]
            if tree_of(Source("", "\n".join([*lines[:number], new, *lines[number + 1 :]]))):
                yield unchanged("number", source, source.text, number, new)


def single_strings(source: Source, rng: random.Random, pool: Pool) -> Iterator[Case]:
    lines = source.text.split("\n")
    for old, places in plain_strings(source).items():
        if source.text.count(old) == 1:
            new = f"{old[0]}{rng.choice(pool.names)}{old[0]}"
            ((number, line),) = renamed(lines, places, old, new).items()
            yield unchanged("single string", source, source.text, number, line)


def other_arguments(source: Source, rng: random.Random, pool: Pool) -> Iterator[Case]:
    """An argument of one call is another one, where calls of the function have others."""
    lines = source.text.split("\n")
    calls: dict[str, list[tuple[int, re.Match[str]]]] = {}
    for number, line in enumerate(lines):
        found = list(re.finditer(r"\b(\w+)\(([a-z_]\w*)\)", line))
        if len(found) == 1 and "def " not in line and "#" not in line and '"' not in line:
            calls.setdefault(found[0][1], []).append((number, found[0]))
    for places in calls.values():
        if len(places) > 1 and len({match[2] for _, match in places}) == len(places):
            (line, match), (_, other) = places[:2]
            made = renamed(lines, {line: {match.start(2)}}, match[2], other[2])
            yield unchanged("another argument", source, source.text, line, made[line])


CHANGED: tuple[Make, ...] = (
    local_names,
    attributes,
    function_names,
    new_arguments,
    strings,
    defaults,
)
UNCHANGED: tuple[Make, ...] = (
    new_lines,
    complete_renames,
    other_names,
    other_methods,
    prose,
    numbers,
    single_strings,
    other_arguments,
)


def drawn(makers: Sequence[Make], sources: Sequence[Source], count: int, seed: int) -> list[Case]:
    """So many cases, of each maker as many as there are to be had of an equal share."""
    rng = random.Random(seed)
    pool = Pool(sources)
    queues: list[list[Case]] = []
    for maker in makers:
        found: list[Case] = []
        for source in rng.sample(sources, len(sources)):
            cases = list(islice(maker(source, rng, pool), 10 * PER_FILE))
            found += rng.sample(cases, min(PER_FILE, len(cases)))
            if len(found) > 2 * count / len(makers):
                break
        rng.shuffle(found)
        queues.append(found)
    cases: list[Case] = []
    while len(cases) < count and any(queues):
        cases += [queue.pop() for queue in queues if queue]
    return cases[:count]
