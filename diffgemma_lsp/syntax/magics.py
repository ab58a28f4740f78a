"""Lines in a Python document that are none of Python's, such as a notebook's `%magic`.

A text is read as if they were comments, each character in its place, so that they don't hide what
is sound around them: magics and commands of IPython, its `name?`, the markers of a merge conflict.
"""

from __future__ import annotations

import re

# What begins like that within brackets or a string is taken for one too, which does no harm there:
# in a string only its first two characters are others, and few write `%name` without a blank.
_FOREIGN = re.compile(
    r"^(?P<own>[ \t]*(?:[A-Za-z_][\w.]*[ \t]*=[ \t]*)?)(?:%%?|!!?)(?=[\w./~$])."
    r"|^(?P<blanks>[ \t]*)\?\??(?=[\w.])."
    r"|^(?P<name>[ \t]*[\w.]+)\?\??(?=[ \t]*$)"
    r"|^(?:<{7}|={7}|>{7}|\|{7})(?=[ \r]|$)",
    re.MULTILINE,
)


def without_magics(text: str) -> str:
    """`text` with what is not Python made comments; lines end in "\\n"."""
    if not any(sign in text for sign in ("%", "!", "?", "<<<<<<<", "=======", ">>>>>>>")):
        return text
    return _FOREIGN.sub(_comment, text)


def _comment(found: re.Match[str]) -> str:
    size = len(found[0])
    if (name := found["name"]) is not None:
        return name.ljust(size)
    code = found["own"] or found["blanks"] or ""
    if found["own"] is None and found["blanks"] is None:
        return "#".ljust(size, "=")
    return code + "0#".ljust(size - len(code), "%")
