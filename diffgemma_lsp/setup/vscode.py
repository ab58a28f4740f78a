"""VS Code and what is made of it: settings.json, and the extension by the editor's own program."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diffgemma_lsp.setup.json_members import Members
from diffgemma_lsp.setup.place import Place, Setup, on_path, output_of

_ID = "diffgemma.diffgemma-lsp"
_PROGRAM, _MODEL = ("diffgemma.server.path",), ("diffgemma.model",)
_NAMES = {
    "Code": "code",
    "Code - Insiders": "code-insiders",
    "Code - OSS": "code-oss",
    "VSCodium": "codium",
}
"""The program of each, by the folder of its settings."""


def is_here(place: Place) -> bool:
    return on_path(*_NAMES.values(), "code-server") or any(
        path.parent.is_dir() for _, path in _known(place)
    )


def setup(place: Place) -> Setup:
    """The settings of each that is there, or else of VS Code itself."""
    values: dict[tuple[str, ...], Any] = {_PROGRAM: place.program}
    if place.other_model is not None:
        values[_MODEL] = place.other_model
    replaced = (_MODEL,) if place.model is not None and place.other_model is None else ()
    edit = Members(values, ours=(_PROGRAM, _MODEL), without=replaced)
    known = list(_known(place))
    found = [(name, path) for name, path in known if path.parent.is_dir() or on_path(name)]
    chosen = found or known[:1]
    programs = sorted({name for name, _ in chosen if on_path(name)})
    return Setup(
        {path: edit for _, path in chosen},
        install=tuple(_installations(programs, place.extension)),
        uninstall=tuple(
            (name, "--uninstall-extension", _ID) for name in programs if _version(name) is not None
        ),
        then=tuple(_left(programs, place.extension)),
    )


def _known(place: Place) -> Iterator[tuple[str, Path]]:
    """Each program, and its settings that can name the server's. Where VS Code works on this
    machine from another one, those are the machine's."""
    for folder, name in _NAMES.items():
        yield name, place.settings / folder / "User" / "settings.json"
    machine = Path("Machine") / "settings.json"
    yield "code", place.home / ".vscode-server" / "data" / machine
    yield "code-server", place.data / "code-server" / machine


def _installations(programs: list[str], extension: Path | None) -> Iterator[tuple[str, ...]]:
    if extension is not None:
        wanted = _version_of(extension)
        for name in programs:
            if wanted is None or _version(name) != wanted:
                yield name, "--install-extension", str(extension)


def _left(programs: list[str], extension: Path | None) -> Iterator[str]:
    if extension is None:
        yield (
            "The extension has to be made in a checkout: `make vsix` there, and then "
            "`diffgemma-lsp setup vscode --vsix editors/vscode/dist/diffgemma-lsp.vsix`."
        )
    elif not programs:
        yield f"Install {extension} by Extensions: Install from VSIX… in VS Code."
    else:
        yield "Open a Python file, type, and accept with Tab."


def _version(program: str) -> str | None:
    """Of the extension that the editor has."""
    listed = output_of(program, "--list-extensions", "--show-versions").split()
    found = [line.partition("@")[2] for line in listed if line.lower().startswith(f"{_ID}@")]
    return found[0] if found else None


def _version_of(extension: Path) -> str | None:
    """Of a packaged one; None if it is none."""
    try:
        with zipfile.ZipFile(extension) as archive:
            return json.loads(archive.read("extension/package.json"))["version"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
