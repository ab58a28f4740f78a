"""Other files in a session: which of their text comes with a request, and which never does."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine
from hypothesis import given
from hypothesis import strategies as st
from in_process import InProcessClient
from lsp_client import completion, did_change, did_close, did_open, insertion

from diffgemma_lsp.context.chunks import ChunkPool, chunked
from diffgemma_lsp.context.neighbours import Neighbours
from diffgemma_lsp.context.ranking import CHARS, MOST, STAYS, Rankings
from diffgemma_lsp.session.suggestion_cache import SuggestionCache
from diffgemma_lsp.settings.effective import EffectiveSettings
from diffgemma_lsp.text.documents import Document
from diffgemma_lsp.text.snapshot import DocumentSnapshot
from diffgemma_lsp.text.text import Point, Text
from engine.types import Snippet
from tests.cases import cases

LIBRARY = "def weigh(apples, scale):\n    total = scale.read(apples)\n    return total\n"
USER = "from library import weigh\n\nscale, apples = 1, 2\nweigh(apples, "
KNOWN = {"info": {"model": "fake", "can": ["fill"], "neighbours": True}}


def snapshot(uri: str, text: str, line: int | None = None) -> DocumentSnapshot:
    whole = Text.of(text)
    cursor = whole.end if line is None else Point(line, 0)
    return DocumentSnapshot(uri, 1, "python", whole, cursor, cursor)


@dataclass
class Desk:
    """A session's neighbours without a session."""

    folder: Path
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    settings: EffectiveSettings = field(default_factory=EffectiveSettings)

    def __post_init__(self) -> None:
        self.neighbours = Neighbours(self.spawn, self.settings)
        self.neighbours.folders = lambda: [self.folder]
        self.neighbours.learn(KNOWN)

    def spawn(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def write(self, name: str, text: str) -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path.as_uri()

    def open(self, name: str, text: str, language: str = "python") -> str:
        uri = name if ":" in name else (self.folder / name).as_uri()
        self.neighbours.opened(Document(uri, language, 1, Text.of(text)))
        return uri

    async def around(self, uri: str, text: str) -> tuple[Snippet, ...]:
        """What a request gets when all that it started is done."""
        self.neighbours.around(snapshot(uri, text))
        for _ in range(2_000):
            task = self.neighbours._task
            if task is None or task.done():
                break
            await asyncio.sleep(0.01)
        return self.neighbours.around(snapshot(uri, text))

    async def until(self, uri: str, text: str, wanted: Callable[[str], bool]) -> str:
        """The texts of the snippets as soon as they are as wanted, or the last ones."""
        for _ in range(400):
            found = "".join(s.text for s in await self.around(uri, text))
            if wanted(found):
                break
            await asyncio.sleep(0.02)
        return found


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    for task in desk.tasks:
        task.cancel()
    if desk.tasks:
        await asyncio.wait(desk.tasks, timeout=5)


async def test_an_import_comes_with_the_request(desk: Desk) -> None:
    desk.write("library.py", LIBRARY)
    uri = desk.open("user.py", USER)
    assert await desk.around(uri, USER) == (Snippet("library.py", LIBRARY),)


async def test_what_is_passed_on_is_followed(desk: Desk) -> None:
    desk.write("library/__init__.py", "from .inner import weigh, other\n")
    desk.write("library/inner.py", LIBRARY)
    uri = desk.open("user.py", USER)
    assert Snippet("library/inner.py", LIBRARY) in await desk.around(uri, USER)


async def test_of_a_large_file_what_is_imported_comes(desk: Desk) -> None:
    others = "".join(f"def f{n}(a_{n}, b_{n}):\n    return c_{n} + d_{n}\n\n\n" for n in range(500))
    desk.write("library.py", others + LIBRARY)
    uri = desk.open("user.py", USER)
    (first, *_) = await desk.around(uri, USER)
    assert "def weigh" in first.text


async def test_what_holds_a_secret_is_not_shown(desk: Desk) -> None:
    uri = desk.open("user.py", USER)
    key = "".join(f"apples scale weigh total line_{n} of_the_key\n" for n in range(2_000))
    armoured = f"-----BEGIN RSA PRIVATE KEY-----\n{key}-----END RSA PRIVATE KEY-----\n"
    other = desk.open("notes.py", key)
    assert "of_the_key" in "".join(snippet.text for snippet in await desk.around(uri, USER))
    desk.neighbours.changed(other, Text.of(armoured), 1_000)
    assert await desk.around(uri, USER) == (), "nor is the middle of a key"
    desk.write("library.py", f"{LIBRARY}token = 'a1b2c3d4e5f6a7b8c9d0e1f2'\n")
    assert await desk.around(uri, USER + "\n") == ()


async def test_an_open_document_counts_as_it_is_there(desk: Desk) -> None:
    desk.write("library.py", LIBRARY)
    uri = desk.open("user.py", USER)
    await desk.around(uri, USER)
    other = desk.open("library.py", LIBRARY)
    changed = LIBRARY.replace("total", "heavy")
    desk.neighbours.changed(other, Text.of(changed), 1)
    assert await desk.around(uri, USER) == (Snippet("library.py", changed),)
    desk.neighbours.closed(other)
    found = await desk.until(uri, USER, lambda text: "total" in text)
    assert found == LIBRARY


async def test_the_edited_part_of_a_large_document_comes(desk: Desk) -> None:
    uri = desk.open("user.py", USER)
    filler = "".join(f"value_{n} = other_{n} + thing_{n}\n" for n in range(3000))
    text = filler + LIBRARY + filler
    other = desk.open("untitled:two", filler)
    desk.neighbours.changed(other, Text.of(text), 3001)
    assert "def weigh" in "".join(s.text for s in await desk.around(uri, USER))


async def test_positions_beyond_the_end(desk: Desk) -> None:
    uri, other = desk.open("user.py", USER), desk.open("other.py", LIBRARY)
    desk.neighbours.changed(other, Text.of(LIBRARY), 2**31)
    assert len(await desk.around(uri, USER)) == 1


@pytest.mark.parametrize(
    "name", [".env", "server.pem", "credentials.py", "ignored.py", "off.py", "scoped.py"]
)
async def test_what_stays_out(desk: Desk, name: str) -> None:
    desk.write(".gitignore", "ignored.py\n")
    off = {"scoped.py": {"enable": False}}
    desk.settings.initialize({"globs_off": ["off.py"], "globs": off})
    desk.write(name, LIBRARY)
    text = USER.replace("library", name.removesuffix(".py"))
    uri = desk.open("user.py", text)
    desk.open(name, LIBRARY)
    assert await desk.around(uri, text) == ()
    desk.neighbours.closed((desk.folder / name).as_uri())
    assert await desk.around(uri, text) == ()


async def test_what_the_settings_turn_off_is_not_read_from_disk(desk: Desk) -> None:
    off = {"scoped.py": {"enable": False}}
    desk.settings.initialize({"globs_off": ["off.py"], "globs": off})
    for name in ("off.py", "scoped.py", "library.py"):
        desk.write(name, LIBRARY.replace("total", name.removesuffix(".py")))
    text = "import off\nimport scoped\n" + USER
    uri = desk.open("user.py", text)
    shown = await desk.until(uri, text, lambda found: "library" in found)
    assert "scoped" not in shown
    assert "off" not in shown


@pytest.mark.parametrize("uri", ["git:/user.py?HEAD", "output:tasks", "vscode-terminal:/1"])
async def test_what_nobody_writes_stays_out(desk: Desk, uri: str) -> None:
    own = desk.open("user.py", USER)
    desk.open(uri, LIBRARY)
    assert await desk.around(own, USER) == ()


async def test_languages_that_are_off_stay_out(desk: Desk) -> None:
    desk.settings.initialize({"languages_off": ["diary"]})
    own = desk.open("user.py", USER)
    desk.open("untitled:a", LIBRARY, "diary")
    assert await desk.around(own, USER) == ()


async def test_outside_of_the_workspace_only_what_is_open_counts(desk: Desk) -> None:
    outside = desk.folder.parent / f"{desk.folder.name}-outside"
    outside.mkdir()
    (outside / "library.py").write_text(LIBRARY)
    (desk.folder / "library.py").symlink_to(outside / "library.py")
    own = desk.open("user.py", USER)
    assert await desk.around(own, USER) == ()
    other = desk.open((outside / "library.py").as_uri(), LIBRARY)
    assert await desk.around(own, USER) == (Snippet("library.py", LIBRARY),)
    desk.neighbours.closed(other)
    assert await desk.until(own, USER, lambda text: not text) == ""


async def test_files_that_change_on_disk(desk: Desk) -> None:
    desk.write("library.py", LIBRARY)
    own = desk.open("user.py", USER)
    await desk.around(own, USER)
    path = desk.folder / "library.py"
    (desk.folder / "new").write_text(LIBRARY.replace("total", "heavy"))
    (desk.folder / "new").replace(path)  # as editors save
    assert "heavy" in await desk.until(own, USER, lambda text: "heavy" in text)
    path.unlink()
    assert await desk.until(own, USER, lambda text: not text) == ""


async def test_rules_that_change_on_disk(desk: Desk) -> None:
    desk.write("library.py", LIBRARY)
    own = desk.open("user.py", USER)
    assert await desk.around(own, USER)
    desk.write(".gitignore", "library.py\n")
    assert await desk.until(own, USER, lambda text: not text) == ""


@pytest.mark.parametrize("status", [None, {"info": None}, {"info": {"neighbours": False}}])
async def test_nothing_is_read_unless_the_model_profits(
    desk: Desk, status: dict[str, Any] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.write("library.py", LIBRARY)
    neighbours = desk.neighbours = Neighbours(desk.spawn, desk.settings)
    neighbours.folders = lambda: pytest.fail("nothing is to be looked at")
    neighbours.learn(status)
    own = desk.open("user.py", USER)
    desk.open("untitled:a", LIBRARY)
    assert await desk.around(own, USER) == ()
    assert neighbours.useful is (None if status is None or status["info"] is None else False)
    desk.settings.initialize({"neighbours": False})
    neighbours.learn(KNOWN)
    assert await desk.around(own, USER) == ()
    assert desk.tasks == set()


async def test_a_failure_is_logged_without_text(
    desk: Desk, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError(USER)

    monkeypatch.setattr("diffgemma_lsp.context.neighbours.Reader.follow", fail)
    own = desk.open("user.py", USER)
    with caplog.at_level("WARNING"):
        assert await desk.around(own, USER) == ()
    assert "ValueError at test_neighbours.py" in caplog.text
    assert "weigh" not in caplog.text


# ---- the ranking ----

words = st.sampled_from([f"{stem}_{n}" for stem in ("load", "save", "draw") for n in range(9)])
code = st.lists(st.lists(words, min_size=1, max_size=6).map(" + ".join), min_size=1, max_size=150)
texts = code.map(lambda lines: "\n".join(lines) + "\n")


@cases(150)
@given(texts, st.dictionaries(st.sampled_from("abcdef"), texts), st.data())
def test_own_text_is_never_repeated(own: str, others: dict[str, str], data: st.DataObject) -> None:
    copy = data.draw(st.booleans())
    pool = ChunkPool()
    for name, text in {**others, "a": own, **({"copy": own} if copy else {})}.items():
        pool.put(name, chunked(name, name, text.splitlines(keepends=True)))
    line = data.draw(st.integers(0, own.count("\n") - 1))
    snippets = Rankings(pool).of(snapshot("a", own, line), "a")
    visible = set(own.split("\n")) - {""}
    for snippet in snippets:
        lines = set(snippet.text.split("\n")) - {""}
        assert snippet.path not in ("a", "copy")
        assert len(lines & visible) * 2 < len(lines)
    assert len(snippets) <= MOST
    assert sum(len(snippet.text) for snippet in snippets) <= CHARS


def test_a_ranking_holds_still_while_the_cursor_does() -> None:
    pool = ChunkPool()
    rankings = Rankings(pool)
    topics = ["alpha beta gamma delta", "epsilon zeta theta iota"]
    for n, topic in enumerate(topics):
        pool.put(str(n), chunked(str(n), str(n), [f"{topic} file_{n}\n"]))
    own = "".join(f"{topics[at // 100]} {'x' * at}\n" for at in range(200))

    def first(line: int) -> str:
        return rankings.of(snapshot("u", own, line), "u")[0].path

    assert first(90) == "0"
    assert first(90 + STAYS - 1) == "0"
    assert first(150) == "1"
    assert Rankings(pool).of(snapshot("u", own, 150), "u")[0].path == "1"


def test_small_changes_of_similarity_leave_the_order() -> None:
    pool = ChunkPool()
    rankings = Rankings(pool)
    pool.put("a", chunked("a", "a", ["one two three four alpha\n"]))
    pool.put("b", chunked("b", "b", ["one two three five beta\n"]))
    first = rankings.of(snapshot("u", "one two three four"), "u")
    pool.put("c", chunked("c", "c", ["seven eight nine ten\n"]))
    second = rankings.of(snapshot("u", "one two three five"), "u")
    assert [s.path for s in first] == [s.path for s in second] == ["a", "b"]
    fresh = Rankings(pool).of(snapshot("u", "one two three five"), "u")
    assert [s.path for s in fresh] == ["b", "a"]


# ---- the whole server ----


class Profiting(FakeEngine):
    async def status(self) -> dict[str, Any] | None:
        return {"state": "ready", **KNOWN}


async def anew(client: InProcessClient, uri: str) -> None:
    """Asks for a suggestion as if for the first time."""
    client.server.session.suggestions = SuggestionCache()
    await client.request(*completion(uri, 3, 14))


@pytest.mark.parametrize("wanted", [True, False])
async def test_the_server_sends_what_its_documents_have(tmp_path: Path, wanted: bool) -> None:
    engine = Profiting()
    client = InProcessClient()
    client.connect(lambda settings: engine)
    await client.initialize(neighbours=wanted, warm_up=False, look_ahead=False)
    own, other = (tmp_path / "user.py").as_uri(), (tmp_path / "library.py").as_uri()
    client.send(did_open(own, USER), did_open(other, LIBRARY))
    for _ in range(500 if wanted else 5):
        await anew(client, own)
        if engine.requests[-1].context:
            break
        await asyncio.sleep(0.05)
    assert engine.requests[0].context == ()  # nobody knew yet
    context = engine.requests[-1].context
    assert context == ((Snippet("library.py", LIBRARY),) if wanted else ())
    client.send(did_change(other, 2, insertion(1, 4, "heavy = 1\n    ")))
    client.notify("textDocument/didSave", {"textDocument": {"uri": other}})
    await anew(client, own)
    assert ("heavy" in "".join(s.text for s in engine.requests[-1].context)) == wanted
    client.send(did_close(other))
    await anew(client, own)
    assert engine.requests[-1].context == ()
    await client.request("shutdown")


async def test_the_workspace_is_what_the_client_says(tmp_path: Path) -> None:
    (tmp_path / "library.py").write_text(LIBRARY)
    engine = Profiting()
    client = InProcessClient()
    client.connect(lambda settings: engine)
    folder = {"uri": tmp_path.as_uri(), "name": "work"}
    await client.request("initialize", {"capabilities": {}, "workspaceFolders": [folder]})
    client.notify("initialized", {})
    own = (tmp_path / "user.py").as_uri()
    client.send(did_open(own, USER))
    for _ in range(1_000):
        await anew(client, own)
        if engine.requests[-1].context:
            break
        await asyncio.sleep(0.02)
    assert engine.requests[-1].context == (Snippet("library.py", LIBRARY),)
    await client.request("shutdown")


def test_a_server_that_starts_has_not_loaded_what_watches_and_matches() -> None:
    script = (
        "import sys\nfrom diffgemma_lsp.server import build_server\nbuild_server()\n"
        "print(*({'watchfiles', 'pathspec', 'anyio'} & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parents[2]
    env = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.returncode) == ("", 0)
