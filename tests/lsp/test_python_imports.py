"""Which files a document imports."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffgemma_lsp.context.python_imports import HEAD_CHARS, MOST_FILES, Import, imports_of, resolve
from tests.cases import cases


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import a", [Import("a")]),
        ("import a.b as c, d  # e", [Import("a.b"), Import("d")]),
        ("from a.b import c, d as e", [Import("a.b", ("c", "d"))]),
        ("from . import c\nfrom ..a import b", [Import(".", ("c",)), Import("..a", ("b",))]),
        ("from a import (\n    b,  # why, so\n    c as d,\n)", [Import("a", ("b", "c"))]),
        ("from a import (b,\n    c", [Import("a", ("b", "c"))]),
        ("from a import *", [Import("a")]),
        ("if x:\n    from a import b; c = 1", [Import("a", ("b",))]),
        ("import a\nimport a", [Import("a")]),
        ("from a import", [Import("a")]),
        ("important = 1\nfrom_here = import_it", []),
        ("from x import ../y", [Import("x", ("y",))]),
        ('"""\nimport a\n"""\n# import b\nimport c', [Import("c")]),
        ("import a.\nimport b", [Import("a"), Import("b")]),
        ("from a import b,\n\nx = 1", [Import("a", ("b",))]),
        ("import \nfrom x import y", [Import("x", ("y",))]),
        (
            "x = foo(\nimport a\nfrom b import (\n  c,\n\ndef f(): ...",
            [Import("a"), Import("b", ("c", "f"))],  # an open bracket takes what follows, too
        ),
        ("from a import \\\n    b, c", [Import("a", ("b", "c"))]),
        ("from __future__ import annotations", [Import("__future__", ("annotations",))]),
        ("import größe\nfrom . import größe", [Import("größe"), Import(".", ("größe",))]),
    ],
)
def test_statements(text: str, found: list[Import]) -> None:
    assert imports_of(text) == tuple(found)


@cases(300)
@given(st.text("from imprt.,()*#;\\\n as", max_size=80))
def test_a_text_that_does_not_parse_is_no_obstacle(text: str) -> None:
    resolve(imports_of(text), Path("/nowhere/at/all.py"), [Path("/nowhere")])


def test_only_the_head_is_looked_through() -> None:
    assert imports_of("#" * HEAD_CHARS + "\nimport a") == ()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in (
        "app/__init__.py",
        "app/core.py",
        "app/deep/__init__.py",
        "app/deep/inner.py",
        "app/deep/other.py",
        "src/lib/__init__.py",
        "src/lib/part.py",
        "tools/run.py",
        "tools/helper.py",
        "json.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("import app.core", {"app/core.py": ""}),
        ("from app.core import A, B", {"app/core.py": "A B"}),
        ("from app import core", {"app/core.py": ""}),
        ("from app import core, A", {"app/core.py": "", "app/__init__.py": "A"}),
        ("from . import other, A", {"app/deep/other.py": "", "app/deep/__init__.py": "A"}),
        ("from .other import A", {"app/deep/other.py": "A"}),
        ("from ..core import A", {"app/core.py": "A"}),
        ("from .. import A", {"app/__init__.py": "A"}),
        ("import lib.part", {"src/lib/part.py": ""}),
        ("from lib import part", {"src/lib/part.py": ""}),
        ("import other", {"app/deep/other.py": ""}),
        ("import inner", {}),
        ("import nothing.here, os", {}),
        ("from ........ import a", {}),
        ("import app.core\nfrom app.core import A", {"app/core.py": "A"}),
    ],
)
def test_where_modules_lie(tree: Path, statement: str, found: dict[str, str]) -> None:
    document = tree / "app/deep/inner.py"
    files = resolve(imports_of(statement), document, [tree])
    assert {file: frozenset(names.split()) for file, names in found.items()} == {
        file.relative_to(tree).as_posix(): names for file, names in files.items()
    }


def test_scripts_import_what_lies_beside_them(tree: Path) -> None:
    files = resolve(imports_of("import helper"), tree / "tools/run.py", [tree])
    assert list(files) == [tree / "tools/helper.py"]


def test_one_document_leads_to_so_many_files(tmp_path: Path) -> None:
    for n in range(50):
        (tmp_path / f"m{n}.py").touch()
    text = "\n".join(f"import m{n}" for n in range(50))
    files = resolve(imports_of(text), tmp_path / "x.py", [tmp_path])
    assert list(files) == [tmp_path / f"m{n}.py" for n in range(MOST_FILES)]


@pytest.mark.parametrize(
    "text", ["from " + "." * 8_000, "from" + " " * 8_000 + "x", "from ." + " " * 8_000]
)
def test_a_long_line_is_read_once(text: str) -> None:
    began = time.process_time()
    for _ in range(20):
        assert imports_of(text) == ()
    assert time.process_time() - began < 0.5, "a quadratic expression takes ten seconds"
