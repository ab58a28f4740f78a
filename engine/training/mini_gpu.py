"""Training of mini's adapter on a GPU machine that has no network and takes little at a time.

Here, once (GGUF is the file that engine/weights/mini/base.json names; DIR is a corpus as mini.toml
says):

    python -m engine.training.mini_gpu prepare --base GGUF --data DIR --out PARCEL

PARCEL then holds folders of at most --mib each: base-0, base-1 ... are parts of the base, `rest` is
a packed share of the corpus, and the adapter is where there is room. Bring them there side by side,
one after the other, with this repository, and there:

    python -m engine.training.mini_gpu train PARCEL --out OUT --minutes 8

OUT then holds adapter.safetensors (put it into engine/weights/mini; if it is large, as pieces for
`cat`), log.jsonl, loss.svg and sums.json. It takes torch, tokenizers, safetensors, numpy and rich
there; a wheel of what is missing (such as gguf) is brought by --with FILE.whl, and read as it is.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import random
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from engine.bases import load_base, sha256
from engine.errors import EngineError, TrainingError, complaint
from engine.models import MODELS_VARIABLE, WEIGHTS, base_of, models_folder, note_source
from engine.program import INTERRUPTED, take_interrupts

RECIPE = Path(__file__).with_name("mini.toml")
MIB = 1 << 20
LARGEST = 12 * MIB
COMPANIONS = ("base.json", "infill.json", "adapter.safetensors")
FAILED = 2


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m engine.training.mini_gpu", description=__doc__)
    commands = parser.add_subparsers(required=True)
    here = commands.add_parser("prepare")
    here.add_argument("--base", type=Path, required=True, metavar="GGUF")
    here.add_argument("--data", type=Path, required=True)
    here.add_argument("--out", type=Path, required=True)
    here.add_argument("--model", type=Path, default=WEIGHTS / "mini", help="with the adapter")
    here.add_argument("--mib", type=float, default=24.0, help="the most that a folder may hold")
    here.add_argument("--with", type=Path, action="append", default=[], dest="wheels")
    here.set_defaults(run=_prepare)
    there = commands.add_parser("train")
    there.add_argument("parcel", type=Path)
    there.add_argument("--out", type=Path, required=True)
    there.add_argument("--minutes", type=float, default=8.0)
    there.add_argument("--steps", type=int)
    there.add_argument("--windows", type=int, default=16)
    there.add_argument("--workers", type=int, default=12)
    there.add_argument("--rate", type=float, default=0.001)
    there.add_argument("--device", default="cuda")
    there.add_argument("--config", type=Path, default=RECIPE)
    there.set_defaults(run=_train)
    options = parser.parse_args(argv)
    try:
        return options.run(options)
    except EngineError as error:
        print(complaint(error), file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


def split(path: Path, out: Path, most: int, spare: range = range(0)) -> list[Path]:
    """Cuts a file into parts of at most so many bytes, each in a folder of its own, base-0 and up.

    spare: bytes that nobody will read, and that are left out. Each folder has beside its part what
    that is: its sum, its places in the file, and of the whole the sum, the length and how many
    parts there are.
    """
    size = path.stat().st_size
    places = list(_places(size, most, spare))
    about = {"whole": sha256(path), "bytes": size, "spare": len(spare), "parts": len(places)}
    folders: list[Path] = []
    with path.open("rb") as file:
        for number, own in enumerate(places):
            folder = out / f"base-{number}"
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / "part").open("wb") as part:
                for begin, end in own:
                    file.seek(begin)
                    part.write(file.read(end - begin))
            more = {"part": sha256(folder / "part"), "places": own, "number": number}
            (folder / "part.json").write_text(json.dumps(about | more), encoding="utf-8")
            folders.append(folder)
    return folders


def _places(size: int, most: int, spare: range) -> Iterator[list[tuple[int, int]]]:
    """Where in a file the bytes of each part are: in one place, or before and behind `spare`."""
    gap = len(spare)
    cut, kept = spare.start if gap else size, size - gap
    for start in range(0, kept, most):
        end = min(start + most, kept)
        both = (start, min(end, cut)), (max(start, cut) + gap, end + gap)
        yield [(first, last) for first, last in both if first < last]


def join(parcel: Path, out: Path) -> None:
    """Makes the file again of which `split` made parts, zeros where bytes were left out. Raises
    TrainingError if a part is missing or is not what it was."""
    abouts: dict[int, dict[str, Any]] = {}
    for path in parcel.glob("base-*/part.json"):
        about = json.loads(path.read_text(encoding="utf-8"))
        abouts[about["number"]] = about | {"path": path.with_name("part")}
    count = max((about["parts"] for about in abouts.values()), default=1)
    with out.open("wb") as file:
        for number in range(count):
            about = abouts.get(number)
            if about is None or sha256(about["path"]) != about["part"]:
                raise TrainingError(
                    f"{parcel / f'base-{number}'} is missing or broken: bring it again"
                )
            with about["path"].open("rb") as part:
                for begin, end in about["places"]:
                    file.seek(begin)
                    file.write(part.read(end - begin))
        file.truncate(abouts[0]["bytes"])
    alike = len({about["whole"] for about in abouts.values()}) == 1
    # With bytes left out the sums of the parts have to do.
    if not alike or (not abouts[0]["spare"] and sha256(out) != abouts[0]["whole"]):
        raise TrainingError(f"the parts in {parcel} are not of one file: bring all of them again")


def pack_texts(texts: list[dict[str, str]], path: Path, most: int) -> int:
    """Writes documents in any order until the file has nearly `most` bytes; returns how many."""
    random.Random(1).shuffle(texts)
    count = 0
    with path.open("wb") as raw, lzma.open(raw, "wb", preset=6) as file:
        for row in texts:
            count += 1
            file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
            # What the packer holds back is a few MiB of text, packed about a fifth of it.
            if raw.tell() > most - min(2 * MIB, most // 2):
                break
    return count


def _prepare(options: argparse.Namespace) -> int:
    from engine.training.infill import read_texts
    from engine.weights.gguf import spare

    out, most = options.out, int(options.mib * MIB)
    base = load_base(options.model / "base.json")
    if sha256(options.base) != base.sha256:
        raise TrainingError(f"{options.base} is not {base.file}: its sha256 is another one")
    rest = out / "rest"
    shutil.rmtree(out, ignore_errors=True)
    rest.mkdir(parents=True)
    last = split(options.base, out, most, spare(options.base))[-1]
    brought = [*(options.model / name for name in COMPANIONS), *options.wheels]
    # Texts get what room there is: beside them stands only what finds none with the last part.
    beside = last if _size(last) + sum(path.stat().st_size for path in brought) <= most else rest
    for path in brought:
        shutil.copyfile(path, beside / path.name)

    def rows(name: str) -> list[dict[str, str]]:
        return [
            {"language": text.language, "name": text.name, "text": text.text}
            for text in read_texts(options.data, name)
        ]

    held = pack_texts(rows("heldout"), rest / "heldout.jsonl.xz", most // 16)
    room = most - _size(rest)
    if room <= 0:
        raise TrainingError(f"{options.mib} MiB leave no room for texts: say more with --mib")
    all_texts = rows("texts")
    texts = pack_texts(all_texts, rest / "texts.jsonl.xz", room)
    if not texts:
        raise TrainingError(f"{options.data} has no texts.jsonl")
    print(f"{texts} of {len(all_texts)} texts and {held} held back; bring one after the other:")
    for folder in sorted(path for path in out.iterdir() if path.is_dir()):
        print(f"  {folder}  {_size(folder) / MIB:.1f} MiB")
    return 0


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _train(options: argparse.Namespace) -> int:
    began = time.monotonic()

    def told(what: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {what}", flush=True)

    take_interrupts()
    parcel, out = options.parcel.resolve(), options.out
    # Wheels of pure Python are read as they are; nothing is installed.
    sys.path += [str(path) for path in sorted(parcel.glob("*/*.whl"))]
    from engine.training.adapter_run import AdapterRun
    from engine.training.journal import Journal
    from engine.training.loop import Team
    from engine.training.recipe import read_recipe
    from engine.weights.gguf import convert

    told("modules are read")
    model = parcel / "model"
    model.mkdir(exist_ok=True)
    for folder in (*parcel.glob("base-*"), parcel / "rest"):
        for path in (folder / name for name in COMPANIONS if (folder / name).is_file()):
            shutil.copyfile(path, model / path.name)
    os.environ[MODELS_VARIABLE] = str(parcel / "models")
    base = load_base(model / "base.json")
    # Unpacking lets the other thread work.
    with ThreadPoolExecutor(1) as pool:
        texts = pool.submit(_unpack, parcel / "rest", parcel / "texts")
        if base_of(model) is None:
            gguf = parcel / "base.gguf"
            join(parcel, gguf)
            told("the base is whole")
            convert(gguf, models_folder() / base.folder, finish=partial(note_source, base))
            gguf.unlink()
            told("the base is a model")
    told("texts are unpacked")
    length = {
        "out": parcel / "run",
        "minutes": options.minutes,
        "save_every": max(0.5, options.minutes / 3),
        "workers": options.workers,
        "device": options.device,
    }
    length |= {} if options.steps is None else {"steps": options.steps}
    recipe = read_recipe(
        options.config,
        {
            "run": length,
            "data": {"folder": texts.result()},
            "model": {"start_from": model},
            "step": {"windows": options.windows},
            "rates": {"adam": options.rate},
        },
    )

    class Taken(AdapterRun):
        """Leaves each state that it saves in `out` too, since nobody knows when it is ended."""

        def save(self, journal: Journal | None = None, last: bool = True) -> None:
            super().save(journal, last)
            brought = ("model/adapter.safetensors", "log.jsonl", "loss.svg")
            _take([recipe.run.out / name for name in brought], out)
            told(f"step {self.steps} is in {out}")

    made = Taken(recipe, Team(0, 1))
    told("training begins")
    return 0 if made.train() else INTERRUPTED


def _unpack(packed: Path, folder: Path) -> Path:
    """Makes plain files of the packed ones in a folder."""
    folder.mkdir(exist_ok=True)
    for path in packed.glob("*.xz"):
        with lzma.open(path) as file, (folder / path.stem).open("wb") as plain:
            shutil.copyfileobj(file, plain, MIB)
    return folder


def _take(paths: Sequence[Path], out: Path) -> None:
    """Copies files, one that is too large in pieces of LARGEST bytes: NAME.0, NAME.1 ... and the
    sums of all."""
    out.mkdir(parents=True, exist_ok=True)
    for path in paths:
        data = path.read_bytes()
        pieces = range(0, len(data), LARGEST)
        for number, start in enumerate(pieces):
            name = path.name if len(pieces) == 1 else f"{path.name}.{number}"
            (out / name).write_bytes(data[start : start + LARGEST])
    sums = {path.name: sha256(path) for path in paths}
    (out / "sums.json").write_text(json.dumps(sums, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
