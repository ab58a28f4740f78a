"""Brings a model of the hub onto this machine, file by file, into a folder that bears its name.

    <models>/<name>.part/   what is being loaded, and its plan: the same command goes on with the
                            same commit, whatever the hub has by then
    <models>/<name>/        the whole model; source.json has its commit, sizes and hashes

The hub's library names the files and their hashes, and who asks. They are loaded by
engine.weights.download, since the library keeps nothing of a file that was cut off. safetensors,
configs and the tokenizer only: no code, no pickle.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import GatedRepoError
from huggingface_hub.utils import build_hf_headers
from rich.console import Console

from engine.errors import ModelError
from engine.known import folder_name, known
from engine.models import SOURCE, models_folder, pulled
from engine.weights.bars import bar
from engine.weights.check import check
from engine.weights.disk import alone, check_room, mb, writing
from engine.weights.download import length, load
from engine.weights.families import family_of
from engine.weights.hub import HUB_NAME, WANTED, missing, refused
from engine.weights.index import host
from engine.weights.machine import Machine, machine
from engine.weights.sources import hub_client, hub_endpoint

PLAN = "plan.json"
BESIDE = 1.15
"""The memory that a model which nobody knows here takes, by the size of its weights."""

_RATE = 100e6 / 8  # bytes a second of a usual line, for what is told of the time that it takes
_WEIGHTS = ".safetensors"


@dataclass(frozen=True, slots=True)
class File:
    """A file of the hub. hash: hexadecimal; a sha256, or that of a git blob (sha1), which is
    shorter."""

    name: str
    size: int
    hash: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What is loaded: all wanted files of a commit."""

    repo: str
    revision: str
    files: tuple[File, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def weights(self) -> int:
        return sum(file.size for file in self.files if file.name.endswith(_WEIGHTS))


def pull_model(model: str, console: Console, *, anyway: bool = False) -> Path:
    """The folder with a model of the hub, by its name here or there, perhaps with @revision; loaded
    unless it is here.

    anyway: also if this machine has too little memory to run it.
    Raises ModelError if it can't be had, written or used; what was loaded is kept then, except for
    a file of another hash.
    """
    name, _, asked = model.partition("@")
    found = known(name)
    name, repo = (found.name, found.repo) if found else (name, name)
    if HUB_NAME.fullmatch(f"{repo}@{asked}" if "@" in model else repo) is None:
        raise ModelError(f"{model} is no name of a model: diffgemma-lsp models lists them")
    if there := pulled(model):
        console.print(f"{name} is here already: {there}", markup=False)
        return there
    models = models_folder()
    folder = models / folder_name(name)
    part = folder.with_name(f"{folder.name}.part")
    started = time.perf_counter()
    with writing(models), alone(models):
        plan = _plan(part, repo, asked)
        if there := pulled(f"{name}@{plan.revision}"):
            shutil.rmtree(part)
            console.print(f"{name} is here already: {there}", markup=False)
            return there
        _announce(console, name, plan, folder, part)
        check_room(models, plan.size - _loaded(plan, part))
        if not anyway:
            _check_memory(name, plan.weights, machine())
        _load(console, plan, part)
        _check(name, part)
        _finish(name, plan, part, folder)
    console.print(
        f"Ready after {time.perf_counter() - started:.0f} s: --model {name}", markup=False
    )
    return folder


def _plan(part: Path, repo: str, asked: str) -> Plan:
    """The one that was begun, if it is of the revision that was asked for; else the hub's."""
    begun = read_plan(part)
    if begun is not None and begun.repo == repo and begun.revision.startswith(asked):
        return begun
    plan = _listed(repo, asked or None)
    if begun is not None and begun.revision != plan.revision:
        shutil.rmtree(part)
    part.mkdir(exist_ok=True)
    beside = part / f"{PLAN}.tmp"
    beside.write_text(json.dumps(asdict(plan), indent=2) + "\n", encoding="utf-8")
    beside.replace(part / PLAN)
    return plan


def read_plan(part: Path) -> Plan | None:
    """What is being loaded into a folder; None if nothing is, or its plan was cut off."""
    try:
        data: dict[str, Any] = json.loads((part / PLAN).read_text(encoding="utf-8"))
        files = tuple(File(**file) for file in data["files"])
        return Plan(data["repo"], data["revision"], files)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _listed(repo: str, revision: str | None) -> Plan:
    """What the hub has of a model. Raises ModelError."""
    try:
        info = HfApi(endpoint=hub_endpoint()).model_info(
            repo, revision=revision, files_metadata=True, timeout=30
        )
    except GatedRepoError as error:
        raise ModelError(
            f"{repo} asks who you are: accept its licence at https://huggingface.co/{repo} and run "
            "hf auth login"
        ) from error
    except Exception as error:  # of the hub, of HTTP: all mean the same here
        raise refused(repo, error) from error
    files = tuple(
        File(one.rfilename, one.size or 0, one.lfs.sha256 if one.lfs else one.blob_id or "")
        for one in info.siblings or ()
        if _wanted(one.rfilename)
    )
    sharded = any(file.name == f"model{_WEIGHTS}.index.json" for file in files)
    single = f"model{_WEIGHTS}"
    files = tuple(
        file
        for file in files
        if not file.name.endswith(_WEIGHTS)
        or (file.name.startswith("model-") if sharded else file.name == single)
    )
    if info.sha is None or not any(file.name.endswith(_WEIGHTS) for file in files):
        raise ModelError(f"{repo} on the hub has no {single}: name another model or revision")
    # What is small comes first: it tells whether the rest is worth it.
    return Plan(repo, info.sha, tuple(sorted(files, key=lambda file: (file.size, file.name))))


def _wanted(name: str) -> bool:
    """Whether it is a file that is loaded: one at the top, of a kind that holds no code."""
    if "/" in name or name in (PLAN, SOURCE):
        return False
    return any(fnmatch.fnmatchcase(name, kind) for kind in WANTED)


def _announce(console: Console, name: str, plan: Plan, folder: Path, part: Path) -> None:
    have = _loaded(plan, part)
    rest = plan.size - have
    begun = f", {mb(have)} are here already" if have else ""
    minutes = max(1, round(rest / _RATE / 60))
    about = f"about {minutes} min at 100 Mbit/s"
    found = known(name)
    licence = f", licence {found.licence}" if found else ""
    title = name if name == plan.repo else f"{name} is {plan.repo}"
    console.print(f"{title}{licence}", markup=False)
    console.print(f"  at   {plan.revision}", markup=False)
    console.print(f"  to   {folder}", markup=False)
    console.print(f"  size {mb(plan.size)}{begun}; {about}", markup=False)


def _check_memory(name: str, weights: int, here: Machine) -> None:
    """Raises ModelError before anything is loaded that can't run here."""
    found = known(name)
    needs = found.least if found else int(weights * BESIDE)
    if found and not found.on_cpu and here.device == "cpu":
        raise ModelError(
            f"{name} needs a GPU with {mb(needs)}, and PyTorch finds none here: --anyway loads it"
        )
    if needs > here.memory:
        raise ModelError(
            f"{name} needs {mb(needs)} of memory, and {here.name} has {mb(here.memory)}: --anyway "
            "loads it"
        )


def _load(console: Console, plan: Plan, part: Path) -> None:
    """Loads what is missing and checks its hash."""
    done = 0
    with (
        hub_client() as client,
        bar(console, "loading", plan.size, _loaded(plan, part), bytes_too=True) as progress,
    ):
        if who := build_hf_headers().get("authorization"):
            client.headers["authorization"] = who
        for file in plan.files:
            if file.name.endswith(_WEIGHTS) and done and (part / "config.json").is_file():
                family_of(part)  # before 15 GB are loaded that nobody here can read
            url = hf_hub_url(plan.repo, file.name, revision=plan.revision, endpoint=hub_endpoint())
            if length(part / file.name) != file.size or file.size == 0:
                _load_file(client, url, file, part, _further(progress, done))
            done += file.size
            progress(done)


def _further(progress: Callable[[int], None], done: int) -> Callable[[int], None]:
    return lambda of_file: progress(done + of_file)


def _load_file(
    client: Any, url: str, file: File, part: Path, progress: Callable[[int], None]
) -> None:
    """Loads a file to its end and gives it its name, if its hash is right."""
    loading = part / f"{file.name}.part"
    if file.size == 0:
        loading.touch()
    load(client, url, loading, file.size, progress)
    if _hash(loading, file) != file.hash:
        loading.unlink()
        raise ModelError(
            f"what {host(url)} gave is not {file.name} (its hash is another one) and was thrown "
            "away: run it again"
        )
    loading.replace(part / file.name)


def _hash(path: Path, file: File) -> str:
    """Of a file, in the way that the hub knows it by."""
    is_sha256 = len(file.hash) == hashlib.sha256().digest_size * 2
    digest = hashlib.sha256() if is_sha256 else hashlib.sha1(b"blob %d\0" % file.size)
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _check(name: str, part: Path) -> None:
    """Raises ModelError if what was loaded could not run."""
    if lacks := missing(part):
        raise ModelError(f"{name} on the hub lacks {lacks[0]}: name another model or revision")
    check(part)


def _finish(name: str, plan: Plan, part: Path, folder: Path) -> None:
    """Gives the folder its name; what was there before is gone then."""
    source: Mapping[str, Any] = {
        "name": name,
        "hub": {"repo": plan.repo, "revision": plan.revision},
        "files": {file.name: file.size for file in plan.files},
        "hashes": {file.name: file.hash for file in plan.files},
    }
    (part / SOURCE).write_text(json.dumps(source, indent=2) + "\n", encoding="utf-8")
    (part / PLAN).unlink()
    if folder.exists():
        shutil.rmtree(folder)
    part.rename(folder)


def _loaded(plan: Plan, part: Path) -> int:
    """How many bytes of it are here."""
    return sum(
        length(part / file.name) or length(part / f"{file.name}.part") for file in plan.files
    )
