"""Training of mini's adapter on a GPU machine that has no network and takes little at a time.

Here, once (GGUF is the file that engine/weights/mini/base.json names; DIR is a corpus as mini.toml
says):

    python -m engine.training.mini_gpu prepare --base GGUF --data DIR --out PARCEL

PARCEL then holds folders of at most --mib each: base-0, base-1 ... are parts of the base, `rest` is
a packed share of the corpus with all that goes with it. Bring them there side by side, one after
the other, with this repository, and there:

    python -m engine.training.mini_gpu train PARCEL --out OUT --minutes 8

OUT then holds adapter.safetensors (put it into engine/weights/mini; if it is large, as pieces for
`cat`), log.jsonl, loss.svg and sums.json. It takes torch, tokenizers, safetensors, numpy and rich
there; a wheel of what is missing (such as gguf) is brought by --with FILE.whl, and read as it is.
"""

from __future__ import annotations

import argparse
import json
import lzma
import random
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from engine.bases import load_base, sha256
from engine.errors import EngineError, TrainingError, complaint
from engine.models import WEIGHTS

RECIPE = Path(__file__).with_name("mini.toml")
MIB = 1 << 20
LARGEST = 12 * MIB
COMPANIONS = ("infill.json", "adapter.safetensors")
FAILED, INTERRUPTED = 2, 130


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


def split(path: Path, out: Path, most: int) -> list[Path]:
    """Cuts a file into parts of at most so many bytes, each in a folder of its own, base-0 and up.

    Each folder has the sums of the whole and of its part beside it.
    """
    whole, parts = sha256(path), []
    count = max(1, -(-path.stat().st_size // most))
    with path.open("rb") as file:
        for number in range(count):
            folder = out / f"base-{number}"
            folder.mkdir(parents=True, exist_ok=True)
            part = folder / "part"
            part.write_bytes(file.read(most))
            about = {"whole": whole, "part": sha256(part), "parts": count, "number": number}
            (folder / "part.json").write_text(json.dumps(about), encoding="utf-8")
            parts.append(folder)
    return parts


def join(parcel: Path, out: Path) -> None:
    """Makes the file again of which `split` made parts. Raises TrainingError if one is missing or
    is not what it was."""
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
                shutil.copyfileobj(part, file, MIB)
    if sha256(out) != abouts[0]["whole"]:
        raise TrainingError(f"the parts in {parcel} are not of one file: bring all of them again")


def pack_texts(texts: list[dict[str, str]], path: Path, most: int) -> int:
    """Writes documents in any order until the file has nearly `most` bytes; returns how many."""
    random.Random(1).shuffle(texts)
    count = 0
    with path.open("wb") as raw, lzma.open(raw, "wb", preset=4) as file:
        for row in texts:
            count += 1
            file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
            # What the packer holds back is a few MiB of text, packed about a fifth of it.
            if raw.tell() > most - min(2 * MIB, most // 2):
                break
    return count


def _prepare(options: argparse.Namespace) -> int:
    from engine.training.infill import read_texts

    out, most = options.out, int(options.mib * MIB)
    base = load_base(options.model / "base.json")
    if sha256(options.base) != base.sha256:
        raise TrainingError(f"{options.base} is not {base.file}: its sha256 is another one")
    rest = out / "rest"
    shutil.rmtree(out, ignore_errors=True)
    rest.mkdir(parents=True)
    for name in COMPANIONS:
        shutil.copyfile(options.model / name, rest / name)
    for wheel in options.wheels:
        shutil.copyfile(wheel, rest / wheel.name)
    split(options.base, out, most)

    def rows(name: str) -> Iterator[dict[str, str]]:
        for text in read_texts(options.data, name):
            yield {"language": text.language, "name": text.name, "text": text.text}

    held = pack_texts(list(rows("heldout")), rest / "heldout.jsonl.xz", most // 16)
    room = most - sum(path.stat().st_size for path in rest.iterdir())
    if room <= 0:
        raise TrainingError(f"{options.mib} MiB leave no room for texts: say more with --mib")
    texts = pack_texts(list(rows("texts")), rest / "texts.jsonl.xz", room)
    if not texts:
        raise TrainingError(f"{options.data} has no texts.jsonl")
    print(f"{texts} texts and {held} held back; bring there, one after the other:")
    for folder in sorted(path for path in out.iterdir() if path.is_dir()):
        size = sum(path.stat().st_size for path in folder.iterdir())
        print(f"  {folder}  {size / MIB:.1f} MiB")
    return 0


def _train(options: argparse.Namespace) -> int:
    began = time.monotonic()
    parcel, out = options.parcel.resolve(), options.out
    rest = parcel / "rest"
    # Wheels of pure Python are read as they are; nothing is installed.
    sys.path += [str(path) for path in sorted(rest.glob("*.whl"))]
    from engine.training import train
    from engine.weights.gguf import convert

    model, gguf, run = parcel / "model", parcel / "base.gguf", parcel / "run"
    if not (model / "config.json").is_file():
        join(parcel, gguf)
        convert(gguf, model)
        gguf.unlink()
    for name in COMPANIONS:
        if (rest / name).is_file():
            shutil.copyfile(rest / name, model / name)
    words = [str(options.config), "--data", str(rest), "--out", str(run)]
    words += ["--start-from", str(model), "--minutes", str(options.minutes)]
    words += ["--save-every", str(max(0.5, options.minutes / 3))]
    words += ["--windows", str(options.windows), "--workers", str(options.workers)]
    words += ["--adam-lr", str(options.rate), "--device", options.device]
    words += [] if options.steps is None else ["--steps", str(options.steps)]
    print(f"{time.monotonic() - began:.0f} s until training begins", flush=True)
    code = train.main(words)
    if code not in (0, INTERRUPTED):
        return code
    out.mkdir(parents=True, exist_ok=True)
    brought = [run / "model" / "adapter.safetensors", run / "log.jsonl", run / "loss.svg"]
    sums = {path.name: sha256(path) for path in brought}
    for path in brought:
        _take(path, out)
    (out / "sums.json").write_text(json.dumps(sums, indent=2) + "\n", encoding="utf-8")
    print(f"{time.monotonic() - began:.0f} s in all; what to take with you is in {out}", flush=True)
    return code


def _take(path: Path, out: Path) -> None:
    """Copies a file, if it is too large for one in pieces of LARGEST bytes: NAME.0, NAME.1 ..."""
    data = path.read_bytes()
    pieces = range(0, len(data), LARGEST)
    for number, start in enumerate(pieces):
        name = path.name if len(pieces) == 1 else f"{path.name}.{number}"
        (out / name).write_bytes(data[start : start + LARGEST])


if __name__ == "__main__":
    sys.exit(main())
