"""`diffgemma-lsp bench`: a rehearsal of it on a CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def bench(*flags: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "diffgemma_lsp", "bench", *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_rehearsal(tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    done = bench(
        "--small",
        "--device",
        "cpu",
        "--formats",
        "plain,int8",
        "--out",
        out,
        "--kernels",
        tmp_path / "kernels",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == out.read_text(encoding="utf-8")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row for row in rows if "failed" in row["what"]] == []
    fills = [(row["of"], row["at once"]) for row in rows if row["what"] == "fill"]
    about = ["diffusiongemma", "diffusiongemma int8", "dream", "dream int8"]
    assert fills == [(one, many) for one in about for many in (1, 8)]
    assert all(row["ms"] > 0 for row in rows if "ms" in row)
    # 8 bits are about half of the bytes, of what is rounded.
    weights = {row["of"]: row["GB"] for row in rows if row["what"] == "weights"}
    assert weights["diffusiongemma int8"] < weights["diffusiongemma"]
    assert "milliseconds" in done.stderr
    tables = sorted(path.name for path in (tmp_path / "kernels").iterdir())
    assert len(tables) == 4
    assert "aten::" in (tmp_path / "kernels" / tables[0]).read_text(encoding="utf-8")


def test_what_is_not_known_is_said_in_a_line() -> None:
    done = bench("--models", "gpt")
    assert done.returncode == 2
    assert "'gpt' is none of diffusiongemma, dream" in done.stderr
    assert "--stock" in bench("--help").stdout


def test_no_time_is_no_question(tmp_path: Path) -> None:
    done = bench("--small", "--device", "cpu", "--seconds", "0")
    assert (done.returncode, done.stdout) == (0, "")
