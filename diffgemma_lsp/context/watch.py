"""Tells of files that change on disk. Costs nothing until there is something to watch."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

from diffgemma_lsp.lsp.log import describe

logger = logging.getLogger(__name__)

# A save is several changes: so many milliseconds without another one end it.
_REST_MS = 200
_LONGEST_MS = 1_000
# So often the watching thread wakes up to see whether it is to end.
_QUIET_MS = 2_000

Spawn = Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]


class Watch:
    """Watches folders, not what is below them. Lives on the event loop; ends with its task.

    at_change: gets the paths that changed, or None when any may have: soon after the beginning,
        since a file may have changed before its folder was watched.
    """

    def __init__(self, spawn: Spawn, at_change: Callable[[frozenset[Path] | None], None]) -> None:
        self._spawn = spawn
        self._at_change = at_change
        self._folders: frozenset[Path] = frozenset()
        self._task: asyncio.Task[Any] | None = None

    def add(self, folders: frozenset[Path]) -> None:
        """Watches these folders, too."""
        if folders <= self._folders:
            return
        self.stop()
        self._folders |= folders
        self._task = self._spawn(self._run(self._folders))

    def stop(self) -> None:
        """Watches nothing; what was watched is remembered."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def clear(self) -> None:
        """Watches nothing, and forgets what was watched."""
        self.stop()
        self._folders = frozenset()

    async def _run(self, folders: frozenset[Path]) -> None:
        try:
            # In a thread: importing what watches takes longer than an event loop may stand still.
            changes = await asyncio.to_thread(_changes_in, folders)
            settled = False
            async for found in changes:
                if found:
                    self._at_change(frozenset(Path(path) for _, path in found))
                elif not settled:
                    settled = True
                    self._at_change(None)
        except Exception as error:
            # A system has a limit to what can be watched. Files may then be a little behind.
            logger.warning("files on disk are not watched: %s", describe(error))


def _changes_in(folders: frozenset[Path]) -> AsyncIterator[set[tuple[Any, str]]]:
    """What changes in the folders that exist, or nothing after a while in which nothing did."""
    import watchfiles

    return watchfiles.awatch(  # pyright: ignore[reportUnknownMemberType]
        *(folder for folder in folders if os.path.isdir(folder)),
        watch_filter=None,
        debounce=_LONGEST_MS,
        step=_REST_MS,
        rust_timeout=_QUIET_MS,
        yield_on_timeout=True,
        recursive=False,  # a workspace may hold very many folders
    )
