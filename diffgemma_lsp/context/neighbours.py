"""What a session knows of other files, and what of it belongs to a request.

Open documents give their text; of the workspace, what the current document imports is read from
disk. Nothing is read before the engine has said that its model makes something of it, and nothing
here waits: a file that has to be read is there for a later request.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffgemma_lsp.context.chunks import Chunk, ChunkPool, chunked, words_of
from diffgemma_lsp.context.python_imports import HEAD_CHARS, Import, imports_of
from diffgemma_lsp.context.ranking import Rankings
from diffgemma_lsp.context.reader import Identity, Read, Reader
from diffgemma_lsp.context.secrets import holds_a_secret
from diffgemma_lsp.context.visibility import LARGEST, Stamp
from diffgemma_lsp.context.watch import Spawn, Watch
from diffgemma_lsp.context.window import plain, prefix_of
from diffgemma_lsp.lsp.log import describe
from diffgemma_lsp.lsp.positions import to_path
from diffgemma_lsp.settings.effective import EffectiveSettings
from diffgemma_lsp.text.documents import Document
from diffgemma_lsp.text.snapshot import DocumentSnapshot
from diffgemma_lsp.text.text import Point, Text
from engine.types import Snippet

logger = logging.getLogger(__name__)

# Lines around the last edit of a document that go into the pool.
REACH = 256
# Documents whose text is taken in for one request; the others wait for the next.
AT_ONCE = 4


@dataclass(slots=True)
class _Open:
    """An open document. line: where it was last edited. fresh: the pool has not got its text."""

    language_id: str
    text: Text
    line: int = 0
    fresh: bool = True
    identity: Identity | None = None


class Neighbours:
    """Lives on one event loop.

    settings: whether this is wanted, and for which files. folders: the workspace folders, as they
    are when it is called. useful: whether an engine says that its model makes something of them;
    None until one has said anything.
    """

    def __init__(self, spawn: Spawn, settings: EffectiveSettings) -> None:
        self._settings = settings
        self.useful: bool | None = None
        self._useful: dict[str, bool] = {}
        self.folders: Callable[[], Sequence[Path]] = list
        self._spawn = spawn
        self._open: OrderedDict[str, _Open] = OrderedDict()  # the last to be worked on comes last
        self._pool = ChunkPool()
        self._from_disk: dict[Path, Stamp] = {}
        self._rankings = Rankings(self._pool)
        self._reader: tuple[tuple[Path, ...], Reader] | None = None
        self._followed: tuple[str, tuple[Import, ...]] | None = None
        self._epoch = 0  # what was begun in another one is of no use any more
        self._task: asyncio.Task[None] | None = None
        self._watch = Watch(spawn, self._at_change)

    # ---- what the engine and the client say ----

    def learn(self, status: dict[str, Any] | None, engine: str = "") -> None:
        """Takes from an engine's status what it says of its model, if one is loaded. engine: which
        of the session's that is."""
        info: dict[str, Any] = (status or {}).get("info") or {}
        if "neighbours" in info:
            self._useful[engine] = bool(info["neighbours"])
            self.useful = any(self._useful.values())
            if not self.useful:
                self._start_over()
                self._watch.clear()

    def opened(self, document: Document) -> None:
        """A document was opened, or opened anew."""
        self._open[document.uri] = _Open(document.language_id, document.text)
        self._open.move_to_end(document.uri)

    def changed(self, uri: str, text: Text, line: int) -> None:
        """A document has this text now; the last change was in `line`."""
        if (document := self._open.get(uri)) is not None:
            document.text, document.fresh = text, True
            document.line = min(line, text.line_count - 1)
            self._open.move_to_end(uri)

    def saved(self, uri: str) -> None:
        """A document was saved: it is being worked on."""
        if (document := self._open.get(uri)) is not None:
            document.fresh = True
            self._open.move_to_end(uri)

    def closed(self, uri: str) -> None:
        """A document was closed: what its file says counts from here on."""
        document = self._open.pop(uri, None)
        self._rankings.drop(uri)
        if document is not None and document.identity is not None:
            source = document.identity.source
            if source in self._pool.sources:
                self._pool.drop(source)
                if to_path(uri) is not None:
                    self._do(self._refresh({Path(source): None}))

    # ---- requests ----

    def around(self, snapshot: DocumentSnapshot) -> tuple[Snippet, ...]:
        """What of other files belongs to the cursor, the most useful first. Never waits."""
        if not (self._settings.everywhere.neighbours and self.useful):
            return ()
        self._look_up(snapshot)
        document = self._open.get(snapshot.uri)
        if document is None or document.identity is None:
            return ()  # as long as it is not known which text is its own
        self._take_in(snapshot.uri)
        return self._rankings.of(snapshot, document.identity.source)

    def _take_in(self, current: str) -> None:
        """Puts what has changed in the other documents into the pool."""
        due = [
            (uri, document, document.identity)
            for uri, document in reversed(self._open.items())
            if uri != current and document.fresh and document.identity is not None
        ]
        for uri, document, identity in reversed(due[:AT_ONCE]):
            document.fresh = False
            if identity.shown and self._settings.off(uri, document.language_id) is None:
                self._pool.put(identity.source, _chunks_of(document, identity))
            else:
                self._pool.drop(identity.source)

    # ---- what is read ----

    def _look_up(self, snapshot: DocumentSnapshot) -> None:
        """Has it found out in the background what is not known yet."""
        if self._task is not None and not self._task.done():
            return
        folders = tuple(self.folders())
        if self._reader is None or self._reader[0] != folders:
            self._start_over()
            self._watch.clear()
            self._reader = (folders, Reader(folders))
        unknown = [uri for uri, document in self._open.items() if document.identity is None]
        imports = ()
        if snapshot.language_id == "python":
            imports = imports_of(_head(snapshot.text))
        follow = (snapshot.uri, imports) != self._followed
        if unknown or follow:
            self._followed = (snapshot.uri, imports)
            self._task = self._do(self._find_out(unknown, snapshot, imports, self._reader[1]))

    async def _find_out(
        self,
        unknown: Sequence[str],
        snapshot: DocumentSnapshot,
        imports: Sequence[Import],
        reader: Reader,
    ) -> None:
        epoch, path = self._epoch, to_path(snapshot.uri)

        def read() -> tuple[dict[str, Identity], list[Read]]:
            identities = {uri: _identity(uri, reader) for uri in unknown}
            if path is None or not imports:
                return identities, []
            words = words_of(prefix_of(snapshot))
            return identities, reader.follow(path, imports, words)

        identities, found = await asyncio.to_thread(read)
        if epoch != self._epoch:
            return
        for uri, identity in identities.items():
            if (document := self._open.get(uri)) is not None:
                document.identity = identity
        # The first import is put in last: what leaves first is what came first.
        self._shelve({each.path: each for each in reversed(found)})

    async def _refresh(self, known: Mapping[Path, Stamp | None]) -> None:
        """Reads again what on disk is not as it was known."""
        if self._reader is not None:
            epoch, reader = self._epoch, self._reader[1]
            found = await asyncio.to_thread(reader.changed, known)
            if epoch == self._epoch:
                self._shelve(found)

    def _shelve(self, found: Mapping[Path, Read | None]) -> None:
        """Takes over what was read, and has it watched; what is open counts as it is there."""
        mine = {d.identity.source for d in self._open.values() if d.identity is not None}
        for path, read in found.items():
            source = str(path)
            self._from_disk.pop(path, None)
            if source in mine:
                continue
            if read is None or self._settings.off(path.as_uri(), "python") is not None:
                self._pool.drop(source)
            else:
                self._pool.put(source, read.chunks)
                self._from_disk[path] = read.stamp
        kept = self._pool.sources
        self._from_disk = {p: stamp for p, stamp in self._from_disk.items() if str(p) in kept}
        if self._reader is not None:
            open_files = [Path(source) for source in mine if Path(source).is_absolute()]
            self._watch.add(self._reader[1].watched([*self._from_disk, *open_files]))

    def _at_change(self, paths: frozenset[Path] | None) -> None:
        """Something has changed on disk; None: perhaps anything."""
        if paths is not None and any(path.name == ".gitignore" for path in paths):
            self._start_over()
        elif paths is None or not paths.isdisjoint(self._from_disk):
            self._do(self._refresh(dict(self._from_disk)))

    def _start_over(self) -> None:
        """Forgets everything but which documents are open."""
        self._pool.clear()
        self._from_disk.clear()
        self._rankings.clear()
        self._followed = None
        self._epoch += 1
        for document in self._open.values():
            document.fresh, document.identity = True, None

    def _do(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self._spawn(_logged(work))


async def _logged(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Exception as error:
        logger.warning("other files could not be looked at: %s", describe(error))


def _identity(uri: str, reader: Reader) -> Identity:
    """What a document is to others, whether it is in a file or not."""
    path = to_path(uri)
    if path is not None:
        return reader.identify(path)
    # Only what a person writes: neither git's old versions nor what a terminal shows.
    scheme, _, name = uri.partition(":")
    return Identity(uri, name.rpartition("/")[2], shown=scheme == "untitled")


def _chunks_of(document: _Open, identity: Identity) -> Iterable[Chunk]:
    """The chunks around the last edit, the nearest first; none where anywhere in it is a secret:
    what is around the edit may be the middle of a key."""
    text = document.text
    if len(text) > LARGEST or holds_a_secret(str(text)):
        return []
    first = max(0, document.line - REACH)
    stop = min(text.line_count, document.line + REACH)
    lines = plain(text.between(Point(first, 0), _start_of(text, stop))).splitlines(keepends=True)
    chunks = chunked(identity.source, identity.name, lines)
    middle = (document.line - first) / max(1, stop - first) * len(chunks)
    return [
        chunk
        for _, chunk in sorted(enumerate(chunks), key=lambda pair: abs(pair[0] + 0.5 - middle))
    ]


def _head(text: Text) -> str:
    return text.between(Point(0, 0), text.point(min(len(text), HEAD_CHARS)))


def _start_of(text: Text, line: int) -> Point:
    """Where `line` begins, or the text ends if it has no such line."""
    return Point(line, 0) if line < text.line_count else text.end
