"""`diffgemma-lsp train`: trains a model, most often on a user's own folder.

This side chooses the files, by the rules for what may be shown to a model; training itself is a
program of the engine, run as a child on the same terminal.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

import engine
from diffgemma_lsp.commands import UsageError
from diffgemma_lsp.commands.child import run_program
from diffgemma_lsp.context.secrets import holds_a_secret
from diffgemma_lsp.context.visibility import Files
from engine.models import SHIPPED, local_model

if TYPE_CHECKING:
    from diffgemma_lsp.commands import Subparsers

TRAINING = Path(engine.__file__).parent / "training"
FINETUNE, FINETUNE_ADAPTER = TRAINING / "finetune.toml", TRAINING / "finetune_mini.toml"

PASSED_ON = ("minutes", "steps", "save_every", "seed", "device", "processes")


def add_parser(subparsers: Subparsers) -> None:
    """Adds `train` to the command line."""
    parser = subparsers.add_parser(
        "train",
        help="train a model on your own files",
        description="Trains the model on the files of a folder, five minutes unless told "
        "otherwise, and leaves a folder that --model takes. Secret and ignored files stay out. "
        "The same command goes on with a run that was stopped. A config file describes any "
        "other run; see engine/training/recipe.py.",
    )
    add = parser.add_argument
    add("config", type=Path, nargs="?", metavar="CONFIG.toml", help="what a run is like")
    add("--folder", type=Path, action="append", metavar="DIR", help="with files to train on")
    add("--suffix", action="append", metavar="S", help="of those files (default: .py)")
    add("--model", metavar="MODEL", help="what to begin with (default: the best one here)")
    add("--data", type=Path, metavar="DIR", help="with a corpus, for a config that wants one")
    add("--out", type=Path, metavar="DIR", help="where it works, and leaves the model")
    add("--full", action="store_true", help="train all weights, not only adapters")
    add("--rank", type=int, metavar="N", help="of new adapters (default: 16)")
    add("--minutes", type=float, metavar="N", help="how long (default: 5)")
    add("--steps", type=int, metavar="N", help="the most steps")
    add("--save-every", type=float, metavar="N", help="minutes between saves (default: 1)")
    add("--seed", type=int, metavar="N")
    add("--device", metavar="DEVICE", help="cuda, mps or cpu (default: the best there is)")
    add("--processes", type=int, metavar="N", help="share the work among so many (default: 1)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Chooses the files, trains, and says how the model is used; returns the child's exit code."""
    if arguments.full and arguments.rank is not None:
        raise UsageError("--full trains all weights; leave --rank out")
    if arguments.config is None and not arguments.folder:
        raise UsageError("name a folder with --folder, or a config file")
    model = local_model(arguments.model, Path.cwd())
    own = model is not None and (Path(model) / "base.json").is_file()
    if own and arguments.config is None and (arguments.full or arguments.rank is not None):
        raise UsageError(
            "what is trained of this model is the adapter that it has: leave --full and --rank "
            "out, or say --model nano"
        )
    words: list[str] = [str(arguments.config or (FINETUNE_ADAPTER if own else FINETUNE))]
    words += ["--data", str(arguments.data)] if arguments.data else []
    out: Path | None = arguments.out
    if arguments.folder:
        folders = [_folder(each) for each in arguments.folder]
        out = out or default_out(folders)
        words += ["--files", str(_listed(folders, arguments.suffix or [".py"], out))]
    words += ["--out", str(out)] if out is not None else []
    if arguments.model or arguments.config is None:
        words += ["--start-from", model or SHIPPED[0]]
    rank = 0 if arguments.full else arguments.rank
    words += ["--rank", str(rank)] if rank is not None else []
    for name in PASSED_ON:
        value = getattr(arguments, name)
        words += [f"--{name.replace('_', '-')}", str(value)] if value is not None else []
    code = run_program("engine.training.train", words)
    if code == 0 and out is not None:
        print(f"use it: diffgemma-lsp fill FILE --at LINE:COL --model {out / 'model'}")
    return code


def default_out(folders: list[Path]) -> Path:
    """Where the run of these folders works if nothing is said: among the user's own data."""
    key = "\n".join(sorted(map(str, folders)))
    name = f"{folders[0].name}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
    return platformdirs.user_data_path("diffgemma-lsp") / "training" / name


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise UsageError(f"{path} is not a folder")
    return path.resolve()


def _is_secret(path: Path) -> bool:
    try:
        return holds_a_secret(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return False  # who reads it says so


def _listed(folders: list[Path], suffixes: list[str], out: Path) -> Path:
    """Writes down which files it may train on. Raises UsageError if there is none."""
    files = Files(folders)
    found = (path for path in files.walk(tuple(suffixes)) if path.is_file())
    names = [str(path) for path in found if "\n" not in str(path) and not _is_secret(path)]
    if not names:
        raise UsageError(f"there are no {' or '.join(suffixes)} files to train on")
    try:
        out.mkdir(parents=True, exist_ok=True)
        listed = out / "files.txt"
        listed.write_text("\n".join(names) + "\n", encoding="utf-8")
    except OSError as error:
        why = error.strerror or error
        raise UsageError(f"can't write to {out} ({why}): --out takes another folder") from error
    return listed
