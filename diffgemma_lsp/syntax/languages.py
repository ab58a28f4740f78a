"""What is known of languages: how they write strings and comments, and who has a grammar.

A new language is an entry in `_LANGUAGES`; a grammar is a package that offers `language()` as those
of tree-sitter do. Of a language that is not in the table nothing is known, and whoever asks about
it does nothing. Grammars are loaded when they are first needed.
"""

from __future__ import annotations

import importlib
import logging
import re
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import PurePath
from typing import TYPE_CHECKING

from diffgemma_lsp.syntax.naming import NAMING, Naming

if TYPE_CHECKING:
    from tree_sitter import Language as Loaded
    from tree_sitter import Tree
    from typing_extensions import CapsuleType

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Grammar:
    """A tree-sitter grammar, and what a text of the language may look like while it is written.

    package: the module to import.
    blocks: the nodes that hold at least one statement, all in one column. So does the whole text,
        unless there are none.
    stand_ins: what can take the place of something that is yet to be written in a line, and what
        the line looks like before it.
    endings: how a line that is being written may go on, and what it looks like until then.
    endings_below: the same for what began in a line above it.
    cut_off: what a line may lack that was cut off as it was written, and what it looks like then.
    whole_line: what a line looks like to which nothing needs to be added; empty if nobody can say.
    """

    package: str
    blocks: tuple[str, ...] = ()
    stand_ins: tuple[tuple[str, str], ...] = (("", ""),)
    endings: tuple[tuple[str, str], ...] = ()
    endings_below: tuple[tuple[str, str], ...] = ()
    cut_off: tuple[tuple[str, str], ...] = ()
    whole_line: str = ""


@dataclass(frozen=True, slots=True)
class Language:
    """How a language is written.

    strings: what begins and ends a string. comments: what begins and what ends one.
    lasting: those of the strings that go on over line ends.
    known: brackets come in pairs, and what is above is all that hides them.
    compiled: Python itself can say whether it is sound.
    grammar: for checks of its syntax. naming: for what its names mean.
    """

    strings: tuple[str, ...] = ('"', "'", "`")
    lasting: tuple[str, ...] = ()
    comments: tuple[tuple[str, str], ...] = ()
    known: bool = False
    compiled: bool = False
    grammar: Grammar | None = None
    naming: Naming | None = None


_CLAUSE = r"\s*(async|class|def|elif|else|except|finally|for|if|match|case|try|while|with)\b"
_PYTHON = Language(
    strings=('"""', "'''", '"', "'"),
    lasting=('"""', "'''"),
    comments=(("#", "\n"),),
    known=True,
    compiled=True,
    grammar=Grammar(
        "tree_sitter_python",
        blocks=("block",),
        stand_ins=(
            *((r"", text) for text in ("", "_", "_()", "_ in _", "_ import _", "_: _")),
            (r"\s*from\b", "import _"),
            (r"\s*from\b", "annotations"),
            (r".*\b(for|not)\b", "in _"),
            (r".*\bif\b", "else _"),
            (r".*\bif\b", "_ else _"),
            (r"\s*(async\b|\Z)", "def _(): _"),
            (r"\s*\Z", "finally: _"),
            (r"\s*\Z", "case _: _"),
        ),
        endings=(
            (r"\s*match\b", ":\n case _: _"),
            (r"\s*match\b", "\n case _: _"),
            (_CLAUSE, ":"),
            (_CLAUSE, ": _"),
            (r".*:\s*\Z", " _"),
            (r"\s*@", "\ndef _(): _"),
            (r"\s*try\b", ": _\nfinally: _"),
            (r"\s*try\b", " _\nfinally: _"),
        ),
        endings_below=((r"\s*try\b", "\nfinally: _"),),
        cut_off=(
            (r"\s*(async\s+)?def\s+\w+\Z", "()"),
            (r"\s*(async\s+)?def\Z", " _()"),
            (r"\s*from\b(?!.*\bimport\b)", " import _"),
            (r".*\bfor\Z", " _ in _"),
            (r".*\bfor\b(?!.*\bin\b)", " in _"),
            (r".*\blambda\b[^:]*\Z", ": _"),
            (r".*", " _"),
            (r".*\w\Z", "._"),
            (r".*\bif\b", " else _"),
        ),
        whole_line=rf"(?:.*(?:\b(?:pass|break|continue)|\.\.\.)|(?!{_CLAUSE}).*[)\]}}\"'])\Z",
    ),
)
_SLASHES = (("//", "\n"), ("/*", "*/"))
# Where a lone ' is no string: it stands in front of a lifetime, or around a character.
_C = Language(('"',), (), _SLASHES, known=True)
_SCRIPT = Language(('"', "'", "`"), ("`",), _SLASHES, known=True)
_JSON = Language(('"',), (), _SLASHES, known=True)
_HASH = Language(comments=(("#", "\n"),))
_UNKNOWN = Language()

_LANGUAGES: dict[str, Language] = {
    "python": _PYTHON,
    **dict.fromkeys(("c", "cpp", "csharp", "java", "kotlin", "rust", "swift"), _C),
    **dict.fromkeys(
        ("dart", "go", "javascript", "javascriptreact", "typescript", "typescriptreact"), _SCRIPT
    ),
    **dict.fromkeys(("json", "jsonc"), _JSON),
    **dict.fromkeys(("shellscript", "toml", "yaml"), _HASH),
    "css": Language(comments=(("/*", "*/"),)),
    "html": Language(comments=(("<!--", "-->"),)),
}
_LANGUAGES.update(
    {name: replace(_LANGUAGES[name], naming=naming) for name, naming in NAMING.items()}
)


def language_of(language_id: str) -> Language:
    """What is known of the language that LSP calls `language_id`."""
    return _LANGUAGES.get(language_id, _UNKNOWN)


_SUFFIXES = {
    "python": ".py .pyi .pyw",
    "c": ".c .h",
    "cpp": ".cc .cpp .cxx .hh .hpp",
    "csharp": ".cs",
    "css": ".css",
    "dart": ".dart",
    "go": ".go",
    "html": ".html .htm",
    "java": ".java",
    "javascript": ".js .cjs .mjs",
    "javascriptreact": ".jsx",
    "json": ".json",
    "jsonc": ".jsonc",
    "kotlin": ".kt .kts",
    "rust": ".rs",
    "shellscript": ".sh .bash",
    "swift": ".swift",
    "toml": ".toml",
    "typescript": ".ts .cts .mts",
    "typescriptreact": ".tsx",
    "yaml": ".yaml .yml",
}


def language_id_of(name: str) -> str:
    """What LSP calls the language of a file of this name; "" if that is not known."""
    suffix = PurePath(name).suffix.lower()
    return next((found for found, ends in _SUFFIXES.items() if suffix in ends.split()), "")


def title(name: str, language_id: str) -> str:
    """A file's name as a comment, a line of its own: it tells a model the language of a file that
    has just begun, and what it is about. "" where the language has no comments that are known.
    """
    comments, suffixes = language_of(language_id).comments, _SUFFIXES.get(language_id, "").split()
    if not comments or not suffixes or language_id == "json":
        return ""
    begin, end = comments[0]
    own = "".join(filter(str.isprintable, PurePath(name).name))
    if PurePath(own).suffix.lower() not in suffixes:
        own += suffixes[0]
    return f"{begin} {own}\n" if end == "\n" else f"{begin} {own.replace(end, '')} {end}\n"


def parse(text: str, language: Language) -> Tree | None:
    """The syntax tree of `text`, or None without a grammar.

    A byte of the tree is a character of the text: what is not ASCII is parsed by a stand-in.
    """
    return None if language.grammar is None else _parsed(text, language, language.grammar.package)


def parse_names(text: str, language: Language) -> Tree | None:
    """The same, by the grammar that knows its names."""
    naming = language.naming
    return None if naming is None else _parsed(text, language, naming.package, naming.entry)


def _parsed(text: str, language: Language, package: str, entry: str = "language") -> Tree | None:
    return _parse(without_magics(text) if language.compiled else text, package, entry)


@lru_cache(maxsize=8)
def _parse(text: str, package: str, entry: str) -> Tree | None:
    """Kept, since one request asks several times for the same text."""
    if (loaded := load(package, entry)) is None:
        return None
    from tree_sitter import Parser

    # A parser of its own for each call: it costs nothing, and there may be several threads.
    return Parser(loaded).parse(in_ascii(text).encode())


@cache
def load(package: str, entry: str = "language") -> Loaded | None:
    """A grammar, ready for use, or None if it is not installed."""
    try:
        import tree_sitter

        pointer: CapsuleType = getattr(importlib.import_module(package), entry)()
        return tree_sitter.Language(pointer)
    except (ImportError, AttributeError, OSError, ValueError) as error:
        logger.warning("what %s knows is not used: it can't be loaded (%s)", package, error)
        return None


# ---- what is not Python's in a Python document ----

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


# ---- what is not ASCII ----

_NOT_ASCII = re.compile(r"[^\x01-\x7f]+|\r(?!\n)")


def in_ascii(text: str) -> str:
    """A text of the same length and structure in ASCII, whose lines end at no lone "\\r"."""
    return _NOT_ASCII.sub(lambda found: "".join(map(_stand_in, found[0])), text)


def _stand_in(char: str) -> str:
    if char == "\r":
        return "\n"
    if f"_{char}".isidentifier():
        return "x"
    return "\f" if char == "\ufeff" else "?"  # a byte order mark is nothing, as is a form feed
