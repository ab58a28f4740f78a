"""A hub and a package index on this machine that can do all that goes wrong, and a small base."""

from __future__ import annotations

import hashlib
import json
import threading
import zipfile
from dataclasses import asdict, dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType as Quant
from tiny_gguf import random_model, write

from engine.bases import Base, WheelPart, sha256
from engine.models import read_base

_CUTS = (0, 200_000, 320_000)
"""Where the members of the small base's wheels begin in its file."""


@dataclass(frozen=True)
class SmallBase:
    """A base as mini's, but tiny: described in `weights`/mini/base.json. wheels: by their names."""

    base: Base
    weights: Path
    gguf: bytes
    wheels: dict[str, bytes]


@dataclass
class Server:
    """What it serves and how. The lists are used up, a value a request; that a client only asks
    whether a file can be had uses up statuses alone.

    files: by name; pages: by path, the names of files that the page links to; redirects: by path;
    api: by path, what is answered as JSON. refused: what else a refusal says, as a header.
    cut: bytes after which the connection breaks. stall: the file of which, and the byte from which,
    nothing comes any more. asked: pages and files, with where they shall begin.
    """

    files: dict[str, bytes]
    pages: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    redirects: dict[str, str] = field(default_factory=dict[str, str])
    api: dict[str, Any] = field(default_factory=dict[str, Any])
    json: bool = True
    ranges: bool = True
    page_status: int = 200
    refused: dict[str, str] = field(default_factory=dict[str, str])
    file_status: list[int] = field(default_factory=list[int])
    cut: list[int] = field(default_factory=list[int])
    stall: tuple[str, int] | None = None
    asked: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    stalled: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._server = _Quiet(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def page(self, names: list[str]) -> tuple[str, bytes]:
        """The content type and the text of a page with links to these files."""
        if self.json:
            files = [{"filename": "x-1.tar.gz", "url": "x-1.tar.gz", "hashes": {}}]
            files += [{"filename": name, "url": f"../../files/{name}#sha256=00"} for name in names]
            return "application/vnd.pypi.simple.v1+json", json.dumps({"files": files}).encode()
        links = "".join(f'<A class="y" HREF="../../files/{name}">{name}</A>' for name in names)
        text = f'<html><a href="x-1.tar.gz">x</a>{links}</html>'
        return "text/html; charset=utf-8", text.encode()


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are nothing to tell of."""


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            if self.path in server.redirects:
                self._answer(302, "text/x", b"", Location=server.redirects[self.path])
            elif self.path == f"/files/{name}" and name in server.files:
                self._file(name)
            elif server.page_status != 200:
                self._answer(server.page_status, "text/x", b"", **server.refused)
            elif (path := self.path.partition("?")[0]) in server.api:
                body = json.dumps(server.api[path]).encode()
                self._answer(200, "application/json", body)
            elif self.path in server.pages:
                server.asked.append((self.path, 0))
                self._answer(200, *server.page(server.pages[self.path]))
            else:
                self._answer(404, "text/x", b"")

        def _answer(self, status: int, kind: str, body: bytes, **more: str) -> None:
            self.send_response(status)
            for key, value in more.items():
                self.send_header(key, value)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _file(self, name: str) -> None:
            content = server.files[name]
            wanted = self.headers.get("Range", "")
            start = int(wanted.removeprefix("bytes=").partition("-")[0] or 0)
            only_asks = wanted == "bytes=0-0"
            if not only_asks:
                server.asked.append((name, start))
            status = server.file_status.pop(0) if server.file_status else 200
            if status != 200:
                self._answer(status, "text/plain", b"no")
                return
            if wanted and server.ranges:
                last = 0 if only_asks else len(content) - 1
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{last}/{len(content)}")
                body = content[start : last + 1]
            else:
                start, body = 0, content
                self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self._send(name, start, body, only_asks)
            self.close_connection = True

        def _send(self, name: str, start: int, body: bytes, only_asks: bool) -> None:
            if only_asks:
                self.wfile.write(body)
            elif server.stall and server.stall[0] == name:
                self.wfile.write(body[: server.stall[1] - start])
                self.wfile.flush()
                server.stalled.set()
                server.released.wait(60)
            else:
                self.wfile.write(body[: server.cut.pop(0) if server.cut else None])

        def log_message(self, format: str, *args: object) -> None:
            """Tests are quiet."""

    return Handler


def hub_of(base: Base, gguf: bytes) -> Server:
    """A hub that has the file, elsewhere than where it is asked for, as the hub does."""
    path = f"/{base.hub.repo}/resolve/{base.hub.revision}/{base.file}"
    return Server({base.file: gguf}, redirects={path: f"/files/{base.file}"})


def hub_with(repo: str, commit: str, folder: Path, more: tuple[str, ...] = ()) -> Server:
    """A hub that has the model in `folder`, and files that hold nothing of use to anyone."""
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    files |= dict.fromkeys(more, b"print('it was run')")
    served = Server({name.replace("/", "--"): content for name, content in files.items()})
    publish(served, repo, commit, files)
    return served


def publish(served: Server, repo: str, commit: str, files: dict[str, bytes]) -> None:
    """Makes this the newest commit of the model, as the hub's listing and its links have it."""
    listed: list[dict[str, Any]] = []
    for name, content in files.items():
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        one: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": blob}
        if name.endswith(".safetensors"):
            digest = hashlib.sha256(content).hexdigest()
            one["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 135}
        listed.append(one)
        path = f"/{repo}/resolve/{commit}/{name}"
        served.redirects[path] = f"/files/{name.replace('/', '--')}"
    info = {"id": repo, "sha": commit, "siblings": listed}
    for path in ("", "/revision/main", f"/revision/{commit}"):
        served.api[f"/api/models/{repo}{path}"] = info


def index_of(base: Base, wheels: dict[str, bytes]) -> Server:
    """An index, whose URL is that of the server and /simple, with the wheels."""
    pages = {f"/simple/{wheel.package}/": [wheel.wheel] for wheel in base.wheels}
    return Server(dict(wheels), pages)


def base_for(gguf: Path) -> Base:
    """What a base.json would say of this file, with a wheel that is not made."""
    base, size = read_base("mini"), gguf.stat().st_size
    wheel = replace(base.wheels[0], member_bytes=size)
    return replace(base, file_bytes=size, sha256=sha256(gguf), wheels=(wheel,))


def small_base(folder: Path) -> SmallBase:
    """Makes one in an empty folder."""
    write(folder / "tiny.gguf", random_model("llama", tied=True), Quant.Q4_1)
    # What follows the last tensor is nobody's.
    gguf = (folder / "tiny.gguf").read_bytes() + np.random.default_rng(0).bytes(400_000)
    mini = read_base("mini")
    wheels: dict[str, bytes] = {}
    parts: list[WheelPart] = []
    for part, (start, end) in zip(mini.wheels, pairwise((*_CUTS, len(gguf))), strict=False):
        content = _wheel(folder / part.wheel, part, gguf[start:end])
        wheels[part.wheel] = content
        digest = hashlib.sha256(content).hexdigest()
        size = len(content)
        parts.append(replace(part, bytes=size, sha256=digest, member_bytes=end - start))
    base = replace(
        mini,
        file_bytes=len(gguf),
        sha256=hashlib.sha256(gguf).hexdigest(),
        folder_bytes=500_000,
        wheels=tuple(parts),
    )
    (folder / "weights" / "mini").mkdir(parents=True)
    (folder / "weights" / "mini" / "base.json").write_text(json.dumps(asdict(base)))
    return SmallBase(base, folder / "weights", gguf, wheels)


def _wheel(path: Path, part: WheelPart, member: bytes) -> bytes:
    with zipfile.ZipFile(path, "w") as archive:
        folder = part.member.partition("/")[0]
        archive.writestr(f"{folder}/__init__.py", "raise SystemExit('it was run')")
        archive.writestr(f"{part.member}.more", b"another")
        archive.writestr(part.member, member)
    return path.read_bytes()
