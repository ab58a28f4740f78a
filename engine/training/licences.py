"""Which licences are permissive, and what a package says about its own.

Stricter than what the Python corpus asks (``packages.is_permissive``): MIT, BSD, ISC, Apache-2.0,
Zlib and the Unlicense, and nothing that merely looks like them.
"""

from __future__ import annotations

import email
import json
import re
from dataclasses import dataclass
from typing import Any, cast

_PERMISSIVE = re.compile(
    r"(?:the )?(?:"
    r"expat|mit(?:-0|-1|-cmu|/x11|/x| license| licence| style| \(expat\))?|x11|isc(?: license)?"
    r"|0bsd|(?:new |modified |simplified |revised )?bsd(?: license)?"
    r"|bsd[- ~]?c?[0123](?:[- ]?clauses?)?(?:[-~+ ](?!.*(?:gpl|nuclear|advert|attrib|military)).*)?"
    r"|[23][- ]clause[- ]bsd(?: license)?"
    r"|apache(?: software)?(?: license| licence)?(?:,? ?(?:version |[- ]?v?)2(?:\.0)?)"
    r"(?: license)?(?: with llvm[- ]exception)?|apache software license"
    r"|zlib(?:/libpng)?(?: license)?|unlicense"
    r")"
)
_TEXT = re.compile(r"copyright|agreement|^files:|^\W", re.I)
_SPDX = re.compile(r"SPDX-License-Identifier:[ \t]*([\w.+() -]*[\w+)])")
_RESTRICTIVE = re.compile(
    r"GNU[\s*#/]+(?:(?:Lesser|Library|Affero)[\s*#/]+)?General[\s*#/]+Public"
    r"|\b[AL]?GPL(?:v?[123])?\b|Mozilla[\s*#/]+Public[\s*#/]+Licen"
    r"|Creative\s+Commons\s+Attribution-(?:Share|NonC)"
)
_TOKENS = re.compile(
    r"\(|\)|,\s*and\b|\band\b|\bor\b|/(?=\s*(?:apache|mit|bsd|unlicense))|;|,", re.I
)


def is_permissive(expression: str) -> bool:
    """Whether a licence expression leaves a choice that is permissive in all its parts.

    Reads SPDX ("(MIT OR GPL-2.0) AND ISC"), what Debian writes ("Expat or GPL-2+, and ISC") and
    what older packages do ("MIT/Apache-2.0"). An unknown name is not permissive.
    """
    # Written as one name though it has a separator in it.
    text = re.sub(r"mit\s*/\s*x11|mit/expat", "X11", expression.strip(), flags=re.I)
    text = re.sub(r"\band/or\b", "or", text, flags=re.I)
    text = re.sub(r",? version (?=2)", " ", text, flags=re.I)
    tokens: list[str] = []
    at = 0
    for match in _TOKENS.finditer(text):
        tokens += [text[at : match.start()].strip(), " ".join(match.group().lower().split())]
        at = match.end()
    tokens.append(text[at:].strip())
    reader = _Reader([t for t in tokens if t])
    value = reader.everything()
    return value and reader.at == len(reader.tokens)


class _Reader:
    """A parser of licence expressions; the loosest join is a comma, the tightest is ``and``."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.at = 0

    def _take(self, *wanted: str) -> bool:
        if self.at < len(self.tokens) and self.tokens[self.at] in wanted:
            self.at += 1
            return True
        return False

    def everything(self) -> bool:
        value = self._either()
        while self._take(",and", ", and", ",", ";"):
            value = self._either() and value
        return value

    def _either(self) -> bool:
        value = self._both()
        while self._take("or", "/"):
            value = self._both() or value
        return value

    def _both(self) -> bool:
        value = self._one()
        while self._take("and"):
            value = self._one() and value
        return value

    def _one(self) -> bool:
        if self._take("("):
            return self.everything() and self._take(")")
        if self.at == len(self.tokens):
            return False
        self.at += 1
        return _PERMISSIVE.fullmatch(self.tokens[self.at - 1].lower()) is not None


def header_forbids(text: str) -> bool:
    """Whether a file's own first lines put it under a licence that isn't permissive.

    For files that a package took from elsewhere, which its metadata doesn't tell apart.
    """
    head = text[:3000]
    named = _SPDX.findall(head)
    if named:
        return not all(is_permissive(name) for name in named)
    return _RESTRICTIVE.search(head) is not None


def npm_licence(package_json: bytes) -> str:
    """The licence in a ``package.json``, of the old forms (an object, a list of them) too."""
    raw = cast("dict[str, Any]", json.loads(package_json))
    value = raw.get("license") or raw.get("licenses") or ""
    entries = cast("list[Any]", value) if isinstance(value, list) else [value]
    names = [str(e.get("type", "")) if isinstance(e, dict) else str(e) for e in entries]
    return " OR ".join(names)


def python_licence(metadata: bytes) -> str:
    """The licence in a ``METADATA`` or ``PKG-INFO``: expression, short field or classifiers."""
    message = email.message_from_bytes(metadata)
    expression = str(message["License-Expression"] or "").strip()
    if expression:
        return expression
    classifiers = [str(c) for c in message.get_all("Classifier", [])]
    named = [c.rsplit("::", 1)[-1].strip() for c in classifiers if c.startswith("License ::")]
    short = str(message["License"] or "").strip().splitlines()
    # Some put the licence's text there, of which the first line says nothing.
    plain = bool(short) and len(short[0]) < 80 and _TEXT.search(short[0]) is None
    field = short[:1] if plain else []
    return "; ".join(dict.fromkeys(n for n in field + named if n != "OSI Approved"))


@dataclass(frozen=True)
class _Stanza:
    globs: tuple[str, ...]
    patterns: tuple[re.Pattern[str], ...]
    licence: str


class DebianCopyright:
    """A machine-readable ``debian/copyright``: the licence of each file of a source package."""

    def __init__(self, text: str) -> None:
        self._stanzas: list[_Stanza] = []
        for paragraph in re.split(r"\n[ \t]*\n", text.replace("\r", "")):
            fields = _fields(paragraph)
            if "files" in fields and "license" in fields:
                globs = tuple(fields["files"].split())
                patterns = tuple(_glob(p) for p in globs)
                licence = fields["license"].strip().split("\n")[0].strip()
                self._stanzas.append(_Stanza(globs, patterns, licence))

    def __bool__(self) -> bool:
        """Whether any file's licence is known: false for free text."""
        return bool(self._stanzas)

    def licences(self) -> list[str]:
        """The licences of all files but the packaging's own, each once."""
        upstream = [s for s in self._stanzas if not all(g.startswith("debian/") for g in s.globs)]
        return list(dict.fromkeys(s.licence for s in upstream))

    def licence_of(self, path: str) -> str:
        """The licence of a file by its path in the source tree: the last stanza that names it."""
        for stanza in reversed(self._stanzas):
            if any(p.fullmatch(path) for p in stanza.patterns):
                return stanza.licence
        return ""


def _fields(paragraph: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for line in paragraph.split("\n"):
        if line[:1] in (" ", "\t") and name:
            fields[name] += "\n" + line.strip()
        elif ":" in line and not line.startswith("#"):
            name, value = line.split(":", 1)
            name = name.strip().lower()
            fields[name] = value.strip()
    return fields


def _glob(pattern: str) -> re.Pattern[str]:
    """A pattern of a Files field, in which ``*`` and ``?`` match slashes too."""
    pattern = pattern.removeprefix("./").rstrip(",")
    parts = re.split(r"(\\.|\*|\?)", pattern)
    joined = "".join(
        ".*" if p == "*" else "." if p == "?" else re.escape(p[1:] if p[:1] == "\\" else p)
        for p in parts
    )
    # A folder is sometimes written without the star.
    return re.compile(joined + ".*" if pattern.endswith("/") else joined)
