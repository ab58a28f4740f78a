"""The rules of ARCHITECTURE.md that hold for files and imports, rather than for behaviour."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from diffgemma_lsp.settings.schema import Settings

ROOT = Path(__file__).resolve().parents[1]
TOP_LEVEL = {
    "pyproject.toml",
    "Makefile",
    "LICENSE",
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    ".ci",
    ".gitattributes",
    ".gitignore",
    "diffgemma_lsp",
    "editors",
    "engine",
    "tests",
}
LONGEST_FILE = {"engine": 400, "diffgemma_lsp": 300}

# What the language server may know of the engine: its vocabulary, and where the service lives.
# The bare package stands for its place on disk.
SHARED = (
    "engine.types",
    "engine.errors",
    "engine.wire",
    "engine.paths",
    "engine.models",
    "engine.known",
    "engine.sudoku",
    "engine.program",
)
HEAVY = ("torch", "transformers", "tokenizers", "safetensors", "numpy")
# The parts of the engine: each may import those of the rows above its own, and of its own row only
# itself. `serve` gets an engine from `engine.engine`; a request's way (run) and the engine are one.
ONE = (
    "engine.py",
    "run.py",
    "canvas_run.py",
    "window_run.py",
    "left_run.py",
    "choice_run.py",
)
HOUSE = (
    ("errors", "program", "memory"),
    ("types", "bases", "identity", "known"),
    ("models",),
    ("paths",),
    ("wire", "profile", "sudoku", "charts"),
    ("text",),
    ("backbones",),
    ("weights",),
    ("attention",),
    ("diffusion",),
    ("choice",),
    ONE,
    ("serve",),
    ("training",),
    ("benchmark",),
    ("evaluation",),
)
# The same of the language server.
SERVER_HOUSE = (
    ("engine_process.py",),
    ("engine_client.py",),
    ("remote_engine.py",),
    ("settings",),
    ("text",),
    ("lsp", "syntax", "stats"),
    ("context", "polish"),
    ("session",),
    ("suggest", "actions", "next_edit"),
    ("serve",),
    ("features",),
    ("server.py",),
    ("setup",),
    ("commands",),
    ("cli.py",),
    ("__main__.py",),
)
# What the language server itself needs, but only once it has something to do.
LATER = ("tree_sitter", "tree_sitter_python", "tree_sitter_javascript", "tree_sitter_c")
EDITOR_SIDE = ("diffgemma_lsp", "pygls", "lsprotocol")


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """All modules that a file imports anywhere in it, in full; `from x import y` counts as x.y."""
    package = ".".join(path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base]).rstrip(".")
            yield from (f"{base}.{alias.name}" for alias in node.names)


def within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in packages)


def case(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", sources("engine"), ids=case)
def test_the_engine_knows_nothing_of_editors(path: Path) -> None:
    assert [name for name in imports(path) if within(name, EDITOR_SIDE)] == []


@pytest.mark.parametrize("path", sources("diffgemma_lsp"), ids=case)
def test_the_server_knows_the_engine_by_its_types_only(path: Path) -> None:
    found = list(imports(path))
    assert [name for name in found if within(name, HEAVY)] == []
    engine_modules = [name for name in found if name.startswith("engine.")]
    assert [name for name in engine_modules if not within(name, SHARED)] == []


def part_of(module: str, house: tuple[tuple[str, ...], ...]) -> str:
    """The part of a package that a module belongs to."""
    name = module.split(".")[1]
    return f"{name}.py" if any(f"{name}.py" in row for row in house) else name


def not_above(
    path: Path, house: tuple[tuple[str, ...], ...], one: tuple[str, ...] = ()
) -> list[str]:
    """What a file imports of its own package that lies in none of the rows above its part's.

    one: parts that are one.
    """
    rows = {part: row for row, parts in enumerate(house) for part in parts}
    package, *inner = path.relative_to(ROOT).with_suffix("").parts
    own = part_of(".".join((package, *inner)), house)
    return [
        name
        for name in imports(path)
        if name.startswith(f"{package}.")
        and (other := part_of(name, house)) != own
        and not {own, other} <= set(one)
        and rows[other] >= rows[own]
    ]


@pytest.mark.parametrize("path", sources("engine"), ids=case)
def test_the_parts_of_the_engine_know_those_above_them_only(path: Path) -> None:
    if path == ROOT / "engine" / "__init__.py":
        assert [name for name in imports(path) if within(name, ("engine",))] == []
    else:
        assert not_above(path, HOUSE, ONE) == []


@pytest.mark.parametrize("path", sources("diffgemma_lsp"), ids=case)
def test_the_parts_of_the_server_know_those_above_them_only(path: Path) -> None:
    if path == ROOT / "diffgemma_lsp" / "__init__.py":
        assert [name for name in imports(path) if within(name, ("diffgemma_lsp",))] == []
    else:
        assert not_above(path, SERVER_HOUSE) == []


def loaded_after(statement: str) -> set[str]:
    """The top-level modules in memory after a fresh interpreter ran the statement."""
    script = f"{statement}\nimport sys\nprint(*(name.partition('.')[0] for name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_the_server_loads_nothing_heavy() -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sources("diffgemma_lsp")
        if path.stem not in ("__init__", "__main__")
    ]
    loaded = loaded_after("\n".join(f"import {module}" for module in modules))
    assert loaded & {*HEAVY, *LATER} == set()


def test_an_engine_that_is_not_ours_is_named(tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "__init__.py").write_text("")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import diffgemma_lsp"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"{tmp_path / 'engine'}'] is not that of diffgemma-lsp" in done.stderr.splitlines()[-1]


def test_the_shared_types_load_nothing_but_the_standard_library() -> None:
    before = loaded_after("")
    loaded = loaded_after("\n".join(f"import {name}" for name in SHARED))
    assert loaded - before - set(sys.stdlib_module_names) == {"engine"}


def test_a_server_that_starts_loads_nothing_heavy() -> None:
    loaded = loaded_after("from diffgemma_lsp.server import build_server\nbuild_server()")
    assert loaded & {*HEAVY, *LATER} == set()


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (
            "engine.types",
            "Fixed Hole Segment Template fill_in_the_middle rewrite SamplingParams Snippet "
            "InfillRequest Piece Frame Infill EngineInfo StopReason",
        ),
        (
            "engine.errors",
            "EngineError BadRequest ModelError OutOfMemory Cancelled DeadlineExceeded "
            "EngineUnavailable error_from_code",
        ),
        ("engine.engine", "InfillEngine"),
        ("diffgemma_lsp.engine_client", "EngineClient"),
        ("diffgemma_lsp.engine_process", "EngineOptions"),
        ("diffgemma_lsp.server", "build_server run_stdio"),
        ("diffgemma_lsp.cli", "main"),
    ],
)
def test_exports(module: str, names: str) -> None:
    loaded = importlib.import_module(module)
    assert [name for name in names.split() if not hasattr(loaded, name)] == []


@pytest.mark.parametrize("path", [*sources("engine"), *sources("diffgemma_lsp")], ids=case)
def test_files_stay_readable(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST_FILE[path.relative_to(ROOT).parts[0]]
    assert not text.strip() or ast.get_docstring(ast.parse(text)), "what is this file for?"


def test_nothing_else_lies_at_the_top() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tracked.returncode:
        pytest.skip("not a git checkout")
    assert {name.partition("/")[0] for name in tracked.stdout.splitlines()} <= TOP_LEVEL


def test_the_readme_has_all_settings() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    names = [field.name for field in fields(Settings)]
    assert [name for name in names if f"`{name}`" not in readme] == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names of the files in the wheel, built without a network."""
    from hatchling.builders.wheel import WheelBuilder

    folder = tmp_path_factory.mktemp("wheel")
    (path,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def test_the_wheel_ships_the_two_packages_and_nothing_else(wheel: list[str]) -> None:
    tops = {name.partition("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"diffgemma_lsp", "engine"}
    assert any(name.endswith("/LICENSE") for name in wheel)
    assert any(name.endswith("/entry_points.txt") for name in wheel)


def test_the_wheel_ships_what_the_packages_need(wheel: list[str]) -> None:
    nano = {name.rpartition("/")[2] for name in wheel if name.startswith("engine/weights/nano/")}
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= nano
    assert sum(name.startswith("diffgemma_lsp/demo_files/") for name in wheel) >= 3
    assert {"plugin/diffgemma.lua", "lsp/diffgemma.lua", "lua/diffgemma/init.lua"} <= {
        name.removeprefix("diffgemma_lsp/neovim/") for name in wheel
    }
    assert not [name for name in wheel if name.endswith((".pyc", ".log", ".tmp"))]
