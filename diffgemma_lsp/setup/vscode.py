"""VS Code and what is made of it: settings.json, and the extension by the editor's own program."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffgemma_lsp.setup.json_members import Members
from diffgemma_lsp.setup.place import Place, Setup, on_path, output_of

_ID = "diffgemma.diffgemma-lsp"
_PROGRAM, _MODEL = ("diffgemma.server.path",), ("diffgemma.model",)
_USER = "User/settings.json"
_NAMES = {
    "Code": "code",
    "Code - Insiders": "code-insiders",
    "Code - OSS": "code-oss",
    "VSCodium": "codium",
}
"""The program of each, by the folder of its settings."""


@dataclass(frozen=True)
class _Variant:
    """program: what starts it. folder: where it keeps its things, of which `settings` can name a
    server's program."""

    program: str
    folder: Path
    settings: str

    @property
    def file(self) -> Path:
        return self.folder / self.settings


def is_here(place: Place) -> bool:
    return any(one.folder.is_dir() or on_path(one.program) for one in _variants(place))


def setup(place: Place) -> Setup:
    """The settings of each that is there, or else of VS Code itself."""
    values: dict[tuple[str, ...], Any] = {_PROGRAM: place.program}
    if place.other_model is not None:
        values[_MODEL] = place.other_model
    replaced = (_MODEL,) if place.model is not None and place.other_model is None else ()
    edit = Members(values, ours=(_PROGRAM, _MODEL), without=replaced)
    chosen = _chosen(place)
    programs = sorted({one.program for one in chosen if on_path(one.program)})
    versions = {name: _version(name) for name in programs}
    return Setup(
        {one.file: edit for one in chosen},
        install=tuple(_installations(versions, place.extension)),
        uninstall=tuple(
            (name, "--uninstall-extension", _ID) for name in programs if versions[name] is not None
        ),
        then=tuple(_left(versions, place.extension)),
    )


def _chosen(place: Place) -> list[_Variant]:
    """Those that have been started, and those that can be."""
    known = _variants(place)
    found = [one for one in known if one.folder.is_dir()]
    seen = {one.program for one in found}
    for one in known:
        if one.program not in seen and on_path(one.program):
            found.append(one)
            seen.add(one.program)
    return found or known[:1]


def _variants(place: Place) -> list[_Variant]:
    """All that are known. Where VS Code works on this machine from another one, as on Windows with
    WSL, its settings are those of the machine."""
    machine = "Machine/settings.json"
    windows = [_Variant(name, place.settings / it, _USER) for it, name in _NAMES.items()]
    remote = _Variant("code", place.home / ".vscode-server", f"data/{machine}")
    served = _Variant("code-server", place.data / "code-server", machine)
    first = [remote, *windows] if "WSL_DISTRO_NAME" in os.environ else [*windows, remote]
    return [*first, served]


def _installations(
    versions: Mapping[str, str | None], extension: Path | None
) -> Iterator[tuple[str, ...]]:
    if extension is not None:
        wanted = _version_of(extension)
        for name, version in versions.items():
            if wanted is None or version != wanted:
                yield name, "--install-extension", str(extension)


def _left(versions: Mapping[str, str | None], extension: Path | None) -> Iterator[str]:
    if extension is None:
        yield (
            "The extension has to be made in a checkout: `make vsix` there, and then "
            "`diffgemma-lsp setup vscode --vsix editors/vscode/dist/diffgemma-lsp.vsix`."
        )
    elif not versions:
        yield f"Install {extension} by Extensions: Install from VSIX… in VS Code."
    else:
        wanted = _version_of(extension)
        for name, version in versions.items():
            if wanted is not None and version == wanted:
                yield f"{name} has version {wanted} of the extension already."
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
