"""Messages that are not as they should be: what is put right in them, and what can't be."""

from __future__ import annotations

import json
import math
import re
from itertools import islice
from typing import Any, cast

from cattrs import Converter
from lsprotocol import types

_LARGEST = 2**31 - 1

DEEPEST = 100
"""No message is nested deeper than this; what is could not be read or answered to its end."""


def mended(data: dict[str, Any], converter: Converter) -> dict[str, Any]:
    """The message with what clients are known to get wrong put right.

    Of capabilities that can't be read as a whole, the parts are kept that can; of a diagnostic,
    where it is and what it says.
    """
    right = _in_bounds(data)
    params = right["params"]
    if isinstance(params, dict) and "capabilities" in params:
        known = cast("dict[str, Any]", params)
        known["capabilities"] = _readable(known["capabilities"], converter)
    context = cast("dict[str, Any]", params).get("context") if isinstance(params, dict) else None
    if isinstance(context, dict) and "diagnostics" in context:
        known = cast("dict[str, Any]", context)
        known["diagnostics"] = _diagnostics(known["diagnostics"], converter)
    return right


def _readable(capabilities: object, converter: Converter) -> dict[str, Any]:
    if not isinstance(capabilities, dict):
        return {}
    table, whole = cast("dict[str, Any]", capabilities), types.ClientCapabilities
    return {name: it for name, it in table.items() if _fits({name: it}, whole, converter)}


def _diagnostics(said: object, converter: Converter) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = []
    for one in cast("list[Any]", said) if isinstance(said, list) else []:
        if isinstance(one, dict):
            whole = cast("dict[str, Any]", one)
            least = {key: it for key, it in whole.items() if key in ("range", "message")}
            forms = (form for form in (whole, least) if _fits(form, types.Diagnostic, converter))
            kept.extend(islice(forms, 1))
    return kept


def _fits(value: dict[str, Any], kind: type, converter: Converter) -> bool:
    try:
        converter.structure(value, kind)
    except Exception:  # whatever a hook of the converter comes upon
        return False
    return True


def _in_bounds(data: Any) -> Any:
    """Positions beyond what LSP allows ("to the end") are clamped, a range of null is left out."""
    if isinstance(data, list):
        return [_in_bounds(item) for item in cast("list[Any]", data)]
    if not isinstance(data, dict):
        return data
    right = {key: _in_bounds(value) for key, value in cast("dict[str, Any]", data).items()}
    if right.get("range", 0) is None:
        del right["range"]
    for key in ("line", "character"):
        number = right.get(key)
        if isinstance(number, int | float):
            right[key] = int(min(max(number, 0), _LARGEST))
    return right


def depth(value: object) -> int:
    """How deep JSON is nested, or a little more than DEEPEST if it is deeper."""
    found, level = 0, [value]
    while level and found <= DEEPEST:
        found += 1
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                below += cast("dict[str, object]", item).values()
            elif isinstance(item, list):
                below += cast("list[object]", item)
        level = below
    return found


# A string, also one that goes on behind the end, or a sign of JSON.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"?|[][{},]', re.DOTALL)
_CLOSING = {"{": "}", "[": "]"}


def whole_part(head: bytes) -> dict[str, Any]:
    """What a message holds as far as its beginning tells: members that are whole.

    head: the first bytes of JSON, cut anywhere. Empty if they are no beginning of an object.
    """
    text = head.decode(errors="ignore")
    closing: list[str] = []
    found = "{}"
    for token in _TOKEN.finditer(text):
        if token[0] in _CLOSING:
            closing.append(_CLOSING[token[0]])
        elif token[0] in "]}":
            del closing[-1:]
        elif token[0] == ",":
            found = text[: token.start()] + "".join(reversed(closing))
    try:
        value: object = json.loads(found, parse_constant=no_json, parse_float=finite)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def no_json(constant: str) -> None:
    """Refuses Python's own NaN and Infinity. For `json.loads`, as `finite` is."""
    raise ValueError(constant)


def finite(number: str) -> float:
    """A number that could be sent back. Raises ValueError."""
    value = float(number)
    if math.isinf(value):
        raise ValueError(number)
    return value
