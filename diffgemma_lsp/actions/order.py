"""Orders: work on a document that the user asked for, by name, as it travels between messages.

A code action carries one in its `data`, a command takes one as its argument, in the same JSON:

    {"action": "rewrite", "textDocument": {"uri": ..., "version": 3}, "range": {...},
     "instruction": null, "strength": 0.5, "seed": 1, "apply": true, "token": "mine"}

Only the document, and for most actions the range, have to be there. What is said there of
`version` holds the order to that version; without it, the document is taken as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from lsprotocol import converters, types

from diffgemma_lsp.actions.kinds import KINDS, ActionKind
from diffgemma_lsp.lsp.client import member

_CONVERTER = converters.get_converter()

COMMAND = "diffgemma."
"""What the names of commands begin with."""


class BadOrder(Exception):
    """The order makes no sense; the text says why."""


@dataclass(frozen=True, slots=True)
class Order:
    """Work on a document.

    version: the version that the range is about; None takes the document as it is.
    instruction: what to do, in words, for models that follow instructions.
    strength: how much of a draft may change, from 0 to 1; seed: another one gives another answer.
    apply: False hands the edit back instead of having it applied.
    token: names this order in the notifications that show it settle.
    """

    kind: ActionKind
    uri: str
    version: int | None
    range: types.Range
    instruction: str | None = None
    strength: float | None = None
    seed: int | None = None
    apply: bool = True
    token: str | None = None

    @property
    def needs(self) -> str:
        """What the model has to be able to do."""
        return self.kind.needs if self.instruction is None else "instruct"

    def to_json(self) -> dict[str, Any]:
        """The inverse of `order_from_json`."""
        return {
            "action": self.kind.name,
            "textDocument": {"uri": self.uri, "version": self.version},
            "range": _CONVERTER.unstructure(self.range),
            "instruction": self.instruction,
            "strength": self.strength,
            "seed": self.seed,
            "apply": self.apply,
            "token": self.token,
        }


def order_from_json(raw: object, action: str | None = None) -> Order:
    """The order that a client sent; `action` if the command's name says what to do.

    Raises BadOrder.
    """
    data = _plain(raw)
    if not isinstance(data, dict):
        raise BadOrder("the argument is an object: {textDocument, range, ...}")
    fields = cast("dict[str, Any]", data)
    name = action or fields.get("action")
    if not isinstance(name, str) or name not in KINDS:
        raise BadOrder(f"there is no action {name!r}; there are {', '.join(KINDS)}")
    document = fields.get("textDocument")
    if not isinstance(document, dict):
        raise BadOrder("textDocument: expected an object with the uri of an open document")
    known = cast("dict[str, Any]", document)
    return Order(
        KINDS[name],
        _expect(known, "uri", str, "a text"),
        _optional(known, "version", int, "a whole number"),
        _range(fields.get("range")),
        _optional(fields, "instruction", str, "a text"),
        _share(fields),
        _seed(fields),
        bool(fields.get("apply", True)),
        _optional(fields, "token", str, "a text"),
    )


def document_of(raw: object) -> str:
    """The uri in `textDocument`, whatever else is wrong there; empty if there is none."""
    uri = member(member(raw, "textDocument"), "uri")
    return uri if isinstance(uri, str) else ""


def _plain(value: object) -> object:
    """Data as JSON has it: pygls hands unstructured JSON over as dicts, lists or named tuples."""
    if hasattr(value, "_asdict"):
        value = cast(Any, value)._asdict()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in cast("dict[str, object]", value).items()}
    return value


def _range(raw: object) -> types.Range:
    try:
        return _CONVERTER.structure(raw, types.Range)
    except Exception as error:
        raise BadOrder("range: expected {start: {line, character}, end: ...}") from error


def _expect(fields: dict[str, Any], name: str, kind: type, expected: str) -> Any:
    value = fields.get(name)
    # True is an int to Python, and to nobody else.
    if not isinstance(value, kind) or isinstance(value, bool):
        raise BadOrder(f"{name}: expected {expected}")
    return value


def _optional(fields: dict[str, Any], name: str, kind: type, expected: str) -> Any:
    return None if fields.get(name) is None else _expect(fields, name, kind, expected)


def _share(fields: dict[str, Any]) -> float | None:
    value = fields.get("strength")
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise BadOrder("strength: expected a number from 0 to 1")
    return float(value)


def _seed(fields: dict[str, Any]) -> int | None:
    seed: int | None = _optional(fields, "seed", int, "a whole number")
    if seed is not None and not 0 <= seed < 2**63:
        raise BadOrder("seed: expected a whole number from 0 to 2**63 - 1")
    return seed
