"""The names of a syntax tree, and what each declares; the words for that are in naming.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from diffgemma_lsp.syntax.naming import Naming, words

if TYPE_CHECKING:
    from tree_sitter import Node

_MEMBERS = words("property_identifier private_property_identifier field_identifier")
_SHORTHANDS = words("shorthand_property_identifier shorthand_field_initializer")
_LEAVES = _MEMBERS | words("""
    identifier simple_identifier type_identifier implicit_parameter namespace_identifier
    package_identifier shorthand_property_identifier shorthand_property_identifier_pattern
    shorthand_field_identifier
""")

_NO_PATTERN = words("""
    type value right size default default_value condition key path scope return_type returns body
    parameters arguments superclass
""")
"""The children of a pattern that declare nothing."""

_NO_PATTERNS = words("""
    attribute subscript call decorator annotation modifiers user_type type_annotation block
    statements type
""")
"""The nodes in one that don't, beside expressions."""

_DECLARED_BY_BODY = words("struct_specifier union_specifier enum_specifier class_specifier")


@dataclass(eq=False, slots=True)
class Scope:
    """Where names hold, from `start` to `end`, in characters.

    declared: what is declared there at once. title, head: of a class, its name, and all names
    between it and its body.
    """

    kind: Literal["block", "function", "class"]
    start: int
    end: int
    parent: Scope | None
    declared: set[str] = field(default_factory=set[str])
    title: str = ""
    head: frozenset[str] = frozenset()


@dataclass(eq=False, slots=True)
class Name:
    """A name, where it stands.

    declared_in: where it holds, if it is declared here. head: as the name of a function or a class.
    member: as one that is reached through an object. dotted: it stands behind a dot. label: it
    names an argument or a key. shorthand: it stands for a key and its value.
    """

    text: str
    start: int
    scope: Scope
    declared_in: Scope | None = None
    head: bool = False
    member: bool = False
    dotted: bool = False
    label: bool = False
    shorthand: bool = False


class _Role(NamedTuple):
    """What is declared by a node that is looked into, if anything is."""

    target: Scope | None = None
    direct: bool = False
    head: bool = False
    member: bool = False
    label: bool = False
    lifted: bool = False


_NONE = _Role()


class Reader:
    """Reads all names of a text off its tree, into `names`, by where they begin."""

    def __init__(self, text: str, root: Node, naming: Naming) -> None:
        self.names: dict[int, Name] = {}
        self._text, self._naming = text, naming
        self._heads: list[tuple[Scope, int, int]] = []
        self._lifted: set[tuple[str, Scope]] = set()
        self._read(root, Scope("block", 0, len(text), None))
        for scope, start, end in self._heads:
            found = (one.text for one in self.names.values() if start <= one.start < end)
            scope.head = frozenset((*found, scope.title))
        for name in self.names.values():
            if name.declared_in is not None and (name.text, name.declared_in) in self._lifted:
                name.declared_in.declared.discard(name.text)
                name.declared_in = None

    def _read(self, root: Node, everywhere: Scope) -> None:
        left: list[tuple[Node, Node | None, Scope, _Role]] = [(root, None, everywhere, _NONE)]
        while left:
            node, parent, around, role = left.pop()
            if node.type in _LEAVES and not node.named_child_count:
                self._take(node, parent, around, role)
                continue
            inside = self._opened(node, parent, around)
            above = "" if parent is None else parent.type
            first = node.type + ".1" in self._naming.declares
            for number, child in enumerate(node.children):
                if child.is_named:
                    key = node.field_name_for_child(number) or ""
                    if f"{node.type}.=" in self._naming.labels and child.next_sibling:
                        key = child.next_sibling.type
                    found = self._role(node, key, above, around, inside, role)
                    if found.target is not None and _is_no_pattern(child):
                        found = _NONE
                    elif first and found is _NONE and child.type in _LEAVES:
                        found, first = _Role(inside, direct=True), False
                    left.append((child, node, inside, found))

    def _opened(self, node: Node, parent: Node | None, around: Scope) -> Scope:
        """The scope that holds within a node."""
        naming, kind = self._naming, node.type
        start, end = node.start_byte, node.end_byte
        if kind in naming.classes:
            scope = Scope("class", start, end, around)
            whole = node if parent is None or _title(node) else parent
            scope.title = _title(whole)
            bodies = (one for one in node.children if one.type.endswith("_body"))
            body = node.child_by_field_name("body") or next(bodies, node)
            self._heads.append((scope, whole.start_byte, body.start_byte))
            return scope
        own = kind == "function_declarator" and around.kind != "function"
        if own or kind in naming.functions:
            return Scope("function", start, end, around)
        return Scope("block", start, end, around) if kind in naming.blocks else around

    def _role(
        self, node: Node, named: str, above: str, around: Scope, inside: Scope, role: _Role
    ) -> _Role:
        """What the child `named` declares. above: the kind of the node's parent. around, inside:
        what holds outside of the node, and in it."""
        naming, kind = self._naming, node.type
        keys = {f"{kind}.{named}", f"{kind}.*"}
        if role.label or keys & naming.labels or _is_renamed(node, named):
            return _Role(label=True)
        if keys & naming.lifts:
            return _Role(lifted=True)
        if keys & naming.members and (role.head or kind in naming.functions):
            return _Role(head=True, member=True)
        if keys & naming.heads:
            return self._head(node, around, inside, role)
        if keys & naming.declares:
            return _Role(function_around(inside) if above in naming.hoists else inside, direct=True)
        in_pattern = named not in _NO_PATTERN or keys == {"pair_pattern.value", "pair_pattern.*"}
        if role.target is not None and in_pattern:
            return role._replace(direct=False)
        return _NONE

    def _head(self, node: Node, around: Scope, inside: Scope, role: _Role) -> _Role:
        """What the name of a function or a class declares."""
        if node.type in _DECLARED_BY_BODY and node.child_by_field_name("body") is None:
            return _NONE
        if node.type != "function_declarator":
            return _Role(around, direct=True, head=True)
        if role.target is not None:
            return role._replace(head=True)
        parent = around.parent if inside is around else None
        return _Role(parent or around, direct=True, head=True)

    def _take(self, node: Node, parent: Node | None, around: Scope, role: _Role) -> None:
        start, is_member = node.start_byte, node.type in _MEMBERS
        text = self._text[start : node.end_byte]
        name = Name(text, start, around, None, role.head, role.member or is_member)
        before = self._text[max(0, start - 80) : start].rstrip()
        name.dotted = before.endswith(self._naming.dots) and not before.endswith("..")
        name.label = role.label
        kinds = {node.type, "" if parent is None else parent.type}
        name.shorthand = not kinds.isdisjoint(_SHORTHANDS)
        if role.lifted:
            self._lifted.add((text, function_around(around)))
        if (target := role.target) is not None and self._declares(node, text, role):
            in_class = target.kind == "class"
            name.member |= in_class
            if in_class or not is_member:
                name.declared_in = target
                target.declared.add(text)
        self.names[start] = name

    def _declares(self, node: Node, text: str, role: _Role) -> bool:
        """Whether a name of a pattern is declared by it, and not only mentioned."""
        if role.direct:
            return True
        return node.type != "type_identifier" and not (self._naming.capitals and text[:1].isupper())


def function_around(scope: Scope) -> Scope:
    """The function around, or the whole text."""
    while scope.kind != "function" and scope.parent is not None:
        scope = scope.parent
    return scope


def _title(node: Node) -> str:
    """What a class is called; empty if it is not said there."""
    named = node.child_by_field_name("name") or node.child_by_field_name("type")
    return "" if named is None or named.text is None else named.text.decode().partition("<")[0]


def _is_renamed(node: Node, named: str) -> bool:
    """Whether a child is a name of elsewhere, which is another one here."""
    taken = named == "name" and node.type != "export_specifier"
    return taken and node.child_by_field_name("alias") is not None


def _is_no_pattern(node: Node) -> bool:
    return node.type.endswith("_expression") or node.type in _NO_PATTERNS
