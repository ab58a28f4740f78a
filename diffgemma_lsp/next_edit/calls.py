"""What follows a change of an argument: the same change in calls of the same function.

An argument can be changed in a call, or a parameter in the definition: one that is new and has no
default needs an argument in each call.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from diffgemma_lsp.next_edit.parts import Change, Op, Region
from diffgemma_lsp.next_edit.source import Source
from diffgemma_lsp.next_edit.tokens import Token

Call = tuple[int, int]
"""The brackets of a call or a definition, by the indexes of their tokens."""


_OPTIONAL = re.compile(r"\A[\s,]*\*|=|\?:|\.\.\.|\b(?:vararg|params)\b")
"""What is in a parameter that a call needn't give."""


def call_changes(
    source: Source, old: list[Token], op: Op, edit: Region, sure: bool = True
) -> Iterator[list[Change]]:
    """What may follow `op`, if it changed what stands between the brackets of a call or of a
    definition; each list is another way. sure: the same may be
    replaced in other calls."""
    opened = source.opened(op.start)
    if opened is None or source.tokens[opened].text != "(" or opened == 0:
        return
    callee = opened - 1
    if source.tokens[callee].kind != "name":
        return
    was = [token.text for token in old[op.low : op.high]]
    now = source.tokens[op.start : op.end]
    defined = source.is_definition(callee)
    calls = list(_calls(source, callee, edit))
    text = _text(source, now)
    keyword = _name_of(source, op.start, opened)
    if defined:
        if was and now and keyword:
            others = _definitions(source, keyword, edit)
            yield [c for one in others for c in _replaced(source, one, keyword, was, text)]
        if (
            not was
            and (name := _parameter(source, op)) is not None
            and source.behind(op.end - 1) == ")"
        ):
            yield [change for call in calls for change in _added(source, call, name, name)]
            if source.language.compiled:
                named = f"{name}={name}"
                yield [change for call in calls for change in _added(source, call, named, name)]
        return
    if not was:
        argument = text.strip(" ,\n")
        named = argument.partition("=")[0].strip() if _is_keyword(now) else ""
        at_end = source.behind(op.end - 1) == ")"
        if argument and (named or at_end) and "\n" not in argument:
            yield [change for call in calls for change in _added(source, call, argument, named)]
    elif not now:
        yield [change for call in calls for change in _removed(source, call, was)]
    elif sure:
        yield [change for call in calls for change in _replaced(source, call, keyword, was, text)]


def _calls(source: Source, callee: int, edit: Region) -> Iterator[Call]:
    """The brackets of other calls of a function."""
    for index in source.by_text.get(source.tokens[callee].text, ()):
        token = source.tokens[index]
        line = source.line_of(token.start)
        if index == callee or token.kind != "name" or source.behind(index) != "(":
            continue
        if edit.first <= line <= edit.last or source.is_definition(index):
            continue
        if (closed := source.closed(index + 1)) is not None:
            yield index + 1, closed


def _definitions(source: Source, parameter: str, edit: Region) -> Iterator[Call]:
    """The brackets of other functions that have a parameter of this name."""
    for index in source.by_text.get(parameter, ()):
        line = source.line_of(source.tokens[index].start)
        opened = source.opened(index)
        if opened is None or opened == 0 or edit.first <= line <= edit.last:
            continue
        closed = source.closed(opened)
        if source.is_definition(opened - 1) and closed is not None:
            yield opened, closed


def _added(source: Source, call: Call, argument: str, keyword: str) -> Iterator[Change]:
    """One more argument behind the last one, unless it is there or a line would be new."""
    opened, closed = call
    tokens = source.tokens
    inside = range(opened + 1, closed)
    if keyword and any(
        tokens[i].text == keyword and source.behind(i) in ("=", ",", ")") for i in inside
    ):
        return
    last = tokens[closed - 1]
    if source.line_of(last.start) != source.line_of(tokens[closed].start):
        return
    if any(tokens[i].text in ("*", "**") and tokens[i - 1].text in ("(", ",") for i in inside):
        return  # which may hold it already
    lead = "" if closed == opened + 1 else " " if last.text == "," else ", "
    yield Change(last.end, last.end, lead + argument)


def _removed(source: Source, call: Call, was: list[str]) -> Iterator[Change]:
    """The same tokens taken out."""
    for start, end in _same(source, call, was):
        low, high = source.tokens[start].start, source.tokens[end - 1].end
        if was[0] != ",":  # the blank behind its comma goes with it
            high += source.text[high : high + 1] == " "
        yield Change(low, high, "")


def _replaced(
    source: Source, call: Call, keyword: str, was: list[str], new: str
) -> Iterator[Change]:
    """The same argument replaced: of the same name, or a whole one without."""
    opened, _ = call
    for start, end in _same(source, call, was):
        whole = source.before(start) in ("(", ",") and source.tokens[end].text in (")", ",")
        whole = whole and not was[0][:1].isdigit()  # which means something else elsewhere
        named = _name_of(source, start, opened) == keyword
        if named if keyword else whole:
            yield Change(source.tokens[start].start, source.tokens[end - 1].end, new)


def _name_of(source: Source, value: int, opened: int) -> str:
    """The name of the argument or parameter that has this value; empty if it has none."""
    if source.before(value) != "=":
        return ""
    at = value - 2
    while at > opened + 1 and source.before(at) not in (",", "("):
        at -= 1
    return source.tokens[at].text


def _same(source: Source, call: Call, was: list[str]) -> Iterator[tuple[int, int]]:
    """Where these tokens stand in a call."""
    opened, closed = call
    for start in range(opened + 1, closed - len(was) + 1):
        if [token.text for token in source.tokens[start : start + len(was)]] == was:
            yield start, start + len(was)


def _parameter(source: Source, op: Op) -> str | None:
    """The name of the one parameter that is new, if calls have to give it."""
    new = range(op.start, op.end)
    text = _text(source, source.tokens[op.start : op.end])
    texts = [source.tokens[index].text for index in new]
    if _OPTIONAL.search(text) or texts[-1] == ",":
        return None
    known = [source.name(index) for index in new]
    if any(known):
        names = [one.text for one in known if one is not None and one.declared_in is not None]
        return names[0] if len(names) == 1 else None
    texts = texts[1:] if texts[0] == "," else texts
    return texts[0] if texts and "," not in texts and texts[0].isidentifier() else None


def _is_keyword(now: list[Token]) -> bool:
    texts = [token.text for token in now if token.text != ","]
    return len(texts) > 2 and texts[1] == "="


def _text(source: Source, now: list[Token]) -> str:
    return source.text[now[0].start : now[-1].end] if now else ""
