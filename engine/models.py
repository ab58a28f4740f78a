"""Which models there are on this machine: those that ship, those that were fetched, where they lie,
and which one serves when nothing is said. Imports nothing heavy.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.bases import Base, load_base
from engine.errors import ModelError
from engine.identity import weights_on_disk
from engine.known import NAMES, folder_name

WEIGHTS = Path(__file__).resolve().parent / "weights"

SHIPPED = ("nano", "sudoku", "mini")
"""The models that come with the package, by name; the first is whole in it. `./nano` is a
folder."""

BEST = "mini"
"""The one to use when nothing is said, wherever its base has been fetched."""

MODELS_VARIABLE = "DIFFGEMMA_MODELS"
"""Names the folder for models that were fetched, in place of the one in the user's data."""

SOURCE = "source.json"
"""Beside the weights of what was fetched: where they come from, and how long each file is, in
bytes."""


def local_model(model: str | None, here: Path | None = None) -> str | None:
    """The model as the service shall get it: a folder that exists as an absolute path, None for the
    one that is whole in the package. Without a name it is `default_model`.

    A name of the hub stays as it is, unless that model was pulled. here: where relative paths
    begin. Without it there are none: an editor starts its server in the folder that it opens, where
    one could be called like a model of the hub.
    """
    model = default_model() if model is None else model
    if model == SHIPPED[0]:
        return None
    folder = WEIGHTS / model if model in SHIPPED else Path(os.path.expanduser(model))
    if here is not None and model not in NAMES:
        folder = here / folder
    if folder.is_absolute() and folder.exists():
        return str(folder.resolve())
    return str(found.resolve()) if (found := pulled(model)) else model


def weights_of(model: str | None) -> str:
    """The fingerprint of the files of a model, as `local_model` gives it, and of its base."""
    folder = WEIGHTS / SHIPPED[0] if model is None else Path(model)
    # What a training run leaves is a folder with the model in it.
    folders = [folder, folder / "model"] if folder.is_absolute() else []
    try:
        bases = [base_of(each) for each in folders if (each / "base.json").is_file()]
    except ModelError:
        bases = []
    return weights_on_disk([*folders, *bases])


def default_model() -> str:
    """The model to use when nothing is said: the best one that is here."""
    trained = (WEIGHTS / BEST / "adapter.safetensors").is_file()
    return BEST if trained and base_folder(BEST) is not None else SHIPPED[0]


def languages_of(model: str | None) -> tuple[str, ...] | None:
    """The languages that a model has learned, as far as its files say so; None where they don't.

    model: as an editor's settings name it.
    """
    local = local_model(model)
    folder = WEIGHTS / SHIPPED[0] if local is None else Path(local)
    # What a training run leaves is a folder with the model in it.
    for place in (folder, folder / "model") if folder.is_absolute() else ():
        try:
            said = json.loads((place / "infill.json").read_text(encoding="utf-8"))["languages"]
            return tuple(map(str, said))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def models_folder() -> Path:
    """Where models lie that were fetched: what DIFFGEMMA_MODELS names, or among the user's own
    data. Creates nothing."""
    chosen = os.environ.get(MODELS_VARIABLE)
    if chosen:
        return Path(os.path.expanduser(chosen)).absolute()
    import platformdirs

    return platformdirs.user_data_path("diffgemma-lsp") / "models"


def models_with_a_base() -> tuple[str, ...]:
    """The names of the models that ship without their base."""
    return tuple(sorted(path.parent.name for path in WEIGHTS.glob("*/base.json")))


def read_base(name: str) -> Base:
    """What the model called `name` needs. Raises ModelError if it needs nothing, or is unknown, or
    what it needs can't be read."""
    known = models_with_a_base()
    if name not in known:
        raise ModelError(f"{name} has no base that could be fetched: name {' or '.join(known)}")
    return load_base(WEIGHTS / name / "base.json")


def base_folder(name: str) -> Path | None:
    """The folder with the base of the model called `name`; None if it is not there, or not whole.

    Looks at sizes, not into the weights. Raises ModelError as `read_base` does.
    """
    return _whole(read_base(name))


def base_of(folder: Path) -> Path | None:
    """The same for a folder with a base.json of its own, whatever it is called.

    Raises ModelError if that can't be read.
    """
    return _whole(load_base(folder / "base.json"))


def note_source(base: Base, folder: Path) -> None:
    """Writes beside what was made of a base's file where it comes from: then it is whole."""
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    source = {key: getattr(base, key) for key in ("title", "licence", "file", "sha256")}
    source |= {"hub": asdict(base.hub), "files": files}
    (folder / SOURCE).write_text(json.dumps(source, indent=2) + "\n", encoding="utf-8")


def _whole(base: Base) -> Path | None:
    folder = models_folder() / base.folder
    source = source_of(folder)
    return folder if source is not None and source.get("sha256") == base.sha256 else None


def pulled(model: str) -> Path | None:
    """The folder of a model of the hub that `pull` brought, by its name here or owner/name, perhaps
    with @revision; None if it is not there, or not whole, or of another revision."""
    name, _, revision = model.partition("@")
    folder = models_folder() / folder_name(name)
    source = source_of(folder)
    if source is None or "name" not in source:
        return None  # that of a base
    return folder if not revision or source["hub"]["revision"].startswith(revision) else None


def source_of(folder: Path) -> dict[str, Any] | None:
    """What SOURCE says in a folder whose files are all there, by their sizes; None elsewhere."""
    try:
        source: dict[str, Any] = json.loads((folder / SOURCE).read_text(encoding="utf-8"))
        files: dict[str, int] = source["files"]
        whole = all((folder / file).stat().st_size == size for file, size in files.items())
        return source if whole else None
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
