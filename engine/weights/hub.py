"""A model of the hub: fetched once, called by its name, and known by the revision that it has.

The hub's own cache is where it lives (models--owner--name/snapshots/<commit>). What is whole there
is used without asking anybody; what is not, such as a download that was cut off, is completed.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

from engine.errors import ModelError
from engine.known import known
from engine.models import source_of

log = logging.getLogger(__name__)

Progress = Callable[[str, float], None]

HUB_NAME = re.compile(r"(?P<name>[\w-][\w.-]*/[\w.-]+)(@(?P<revision>[\w./-]+))?")
"""`owner/name`, or `owner/name@revision` for a branch, a tag or a commit."""

_SNAPSHOT = re.compile(r"models--(?P<owner>.+?)--(?P<name>.+)")
WANTED = ["*.json", "*.safetensors", "*.jinja", "merges.txt"]


def fetch(model: str, progress: Progress | None = None) -> Path:
    """The folder of a model by its hub name, downloaded unless it is on disk and whole.

    progress: told "downloading" and how much of it is done, from 0 to 1.
    Raises ModelError if it can't be fetched or completed, or if there is no room for it.
    """
    match = HUB_NAME.fullmatch(model)
    if match is None:
        raise ModelError(f"{model} is no name of a model on the hub, such as owner/name")
    name, revision = match["name"], match["revision"]
    folder = _on_disk(name, revision)
    if folder is None or missing(folder):
        folder = _download(name, revision, folder, progress)
    log.info("%s is at revision %s", name, revision_of(folder))
    return folder


def name_of(folder: Path) -> str:
    """What a user calls the model in `folder`: if it came from the hub, its name here or there."""
    source = source_of(folder) or {}
    if "name" in source:
        return source["name"]
    match = _SNAPSHOT.fullmatch(folder.parent.parent.name)
    if match is None or folder.parent.name != "snapshots":
        return folder.name
    name = f"{match['owner']}/{match['name']}"
    found = known(name)
    return found.name if found else name


def revision_of(folder: Path) -> str | None:
    """The commit that a model from the hub was resolved to; None for any other folder."""
    source = source_of(folder) or {}
    if "name" in source:
        return source["hub"]["revision"]
    return None if name_of(folder) == folder.name else folder.name


def missing(folder: Path) -> list[str]:
    """The files that a whole model would have and this one lacks, those of its index among them."""
    bpe = (folder / "merges.txt").exists() and not (folder / "tokenizer.json").exists()
    needed = ["config.json", "vocab.json" if bpe else "tokenizer.json"]
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            data: Any = json.loads(index.read_text(encoding="utf-8"))
            needed += sorted(set(data["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            needed.append(index.name)
            return [name for name in needed if name == index.name or not _there(folder / name)]
    else:
        needed.append("model.safetensors")
    return [name for name in needed if not _there(folder / name)]


def _there(path: Path) -> bool:
    # In the cache a file is a link; one into nothing is a download that was cut off.
    return path.is_file() and path.stat().st_size > 0


def _on_disk(name: str, revision: str | None) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        found = snapshot_download(
            name, revision=revision, allow_patterns=WANTED, local_files_only=True
        )
        return Path(found)
    except LocalEntryNotFoundError:  # an incomplete snapshot is one of these
        return None
    except Exception as error:
        raise refused(name, error) from error


def _download(
    name: str, revision: str | None, partial: Path | None, progress: Progress | None
) -> Path:
    from huggingface_hub import snapshot_download

    try:
        planned = snapshot_download(name, revision=revision, allow_patterns=WANTED, dry_run=True)
        size = sum(file.file_size or 0 for file in planned if file.will_download)
        _check_room(name, size)
        bar = _bar_class(size, progress)
        found = snapshot_download(name, revision=revision, allow_patterns=WANTED, tqdm_class=bar)
    except ModelError:
        raise
    except Exception as error:  # of the hub, of HTTP, of the disk: all mean the same here
        raise refused(name, error, partial) from error
    folder = Path(found)
    if lacks := missing(folder):
        raise ModelError(f"{name} on the hub lacks {lacks[0]}; choose another model or revision")
    return folder


def _check_room(name: str, size: int) -> None:
    """Says so before 50 GB are fetched that the disk has no room for."""
    from huggingface_hub.constants import HF_HUB_CACHE

    place = Path(HF_HUB_CACHE)
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if size > free:
        raise ModelError(
            f"{name} takes {size / 1e9:.1f} GB, and {place} has {free / 1e9:.1f} GB free: make "
            "room, or set HF_HOME to another disk"
        )


def _bar_class(size: int, progress: Progress | None) -> Any:
    """The class of the hub's progress bars: draws nothing, and tells `progress`."""
    from tqdm import tqdm

    told = 0.0

    class Bar(tqdm):  # pyright: ignore[reportMissingTypeArgument, reportUntypedBaseClass]
        """Several of these may run; those that count bytes say how far it is."""

        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)
            super().__init__(*args, **{**options, "disable": False, "file": StringIO()})

        def update(self, n: float | None = 1) -> bool | None:
            nonlocal told
            shown = super().update(n)
            if progress is not None and self.unit == "B" and size:
                told = max(told, min(1.0, self.n / size))
                progress("downloading", told)
            return shown

    return Bar


def refused(name: str, error: Exception, partial: Path | None = None) -> ModelError:
    """The first line of what the hub's library, the connection or the disk says."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
    if partial is not None:
        return ModelError(
            f"{name} is on disk in part ({missing(partial)[0]} is missing) and can't be "
            f"completed: {reason}"
        )
    return ModelError(f"{name} can't be fetched: {reason}")
