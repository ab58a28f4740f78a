"""`diffgemma-lsp eval`: its flags, its exit codes, and where it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffgemma_lsp import cli
from diffgemma_lsp.commands import evaluate

pytestmark = pytest.mark.timeout(600)


def evaluated(*flags: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "diffgemma_lsp", "eval", *map(str, flags)]
    root = str(Path(cli.__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": root}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def test_evaluations_are_listed_and_have_their_own_flags(tmp_path: Path) -> None:
    listed = evaluated("--help", cwd=tmp_path)
    assert listed.returncode == 0
    assert [name for name in evaluate.EVALUATIONS if name not in listed.stdout] == []
    helped = evaluated("humaneval", "--help", cwd=tmp_path)
    assert helped.returncode == 0
    assert "usage: diffgemma-lsp eval humaneval" in helped.stdout
    assert "--run-code" in helped.stdout
    helped = evaluated("holes", "--help", cwd=tmp_path)
    assert "(default: denoiser,causal,constant)" in " ".join(helped.stdout.split())


def test_an_evaluation_runs_where_the_user_is_and_its_exit_code_comes_back(tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()  # the user's own, which must not be run in ours' stead
    (tmp_path / "engine" / "__init__.py").write_text("raise SystemExit(7)")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "cake.py").write_text("def f():\n    x = 1\n    return x\n")
    flags = ["--source", "src", "--count", 2, "--methods", "reference", "--device", "cpu"]
    done = evaluated("holes", *flags, "--out", "out/result.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
    assert found["kinds"]["line"]["methods"]["reference"]["exact"]["value"] == 1
    assert done.stderr.endswith("Written: out/result.json, out/result.jsonl\n")
    assert (tmp_path / "out" / "result.jsonl").is_file()
    assert "nan" not in done.stderr
    for wrong in (["--kinds", "circle"], ["--source", "nowhere"], ["--count", "0"]):
        failed = evaluated("holes", *wrong, "--out", "out/other.json", cwd=tmp_path)
        assert failed.returncode == 2
        assert failed.stderr.count("\n") == 1
        assert failed.stderr.startswith("diffgemma-lsp: ")


def test_what_can_not_be_evaluated(tmp_path: Path) -> None:
    failed = evaluated("taste", cwd=tmp_path)
    assert (failed.returncode, failed.stdout) == (2, "")
    assert "invalid choice: 'taste'" in failed.stderr
    assert failed.stderr.count("\n") == 1
