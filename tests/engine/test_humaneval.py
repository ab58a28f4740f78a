"""HumanEval-Infilling: programs that are run, apart from everything."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import pytest

from engine.evaluation import humaneval
from engine.evaluation.answers import Answer
from engine.evaluation.sandbox import Sandbox

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere memory has no limit")


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox(timeout_s=2.0, memory_mib=512)


def test_a_program_passes_if_nothing_is_raised(sandbox: Sandbox) -> None:
    assert "audit hook" in sandbox.isolation
    assert sandbox.run("import math, typing\nassert math.sqrt(4) == 2").outcome == "passed"


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("assert 1 == 2, 'wrong'", "AssertionError: wrong"),
        ("def", "SyntaxError"),
        ("raise SystemExit(0)", "SystemExit"),
        ("import os; os._exit(0)", ""),
        pytest.param("x = bytearray(2**31)", "MemoryError", marks=LINUX),
        pytest.param("x = [0] * 2**31", "MemoryError", marks=LINUX),
        ("import socket; socket.create_connection(('127.0.0.1', 9))", "PermissionError"),
        ("import socket; socket.socket()", "PermissionError"),
        ("import os; os.remove('/tmp/nothing-of-that-name')", "PermissionError"),
        ("import subprocess; subprocess.run(['true'])", "PermissionError"),
        ("import os; os.fork()", "PermissionError"),
        ("import ctypes", "PermissionError"),
    ],
)
def test_what_fails_or_is_refused(sandbox: Sandbox, program: str, error: str) -> None:
    result = sandbox.run(program)
    assert result.outcome == "failed"
    assert result.error.startswith(error)


def test_no_file_is_written(sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    for program in (f"open({str(path)!r}, 'w')", f"import os; os.open({str(path)!r}, os.O_CREAT)"):
        assert sandbox.run(program).outcome == "failed"
    assert not path.exists()


@pytest.mark.parametrize("program", ["while True: pass", "import time; time.sleep(60)"])
def test_what_does_not_end_is_ended(program: str) -> None:
    assert Sandbox(timeout_s=0.8).run(program).outcome == "timeout"


PROBLEM = {
    "task_id": "SingleLineInfilling/Test/0/L0",
    "prompt": "def double(x):\n",
    "suffix": "    return y\n",
    "canonical_solution": "    y = 2 * x\n",
    "test": "\ndef check(candidate):\n    assert candidate(4) == 8\n",
    "entry_point": "double",
}


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    path = tmp_path / "problems.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write(json.dumps(PROBLEM) + "\n")
    return path


def test_a_filled_program_is_run_with_its_tests(problems: Path, sandbox: Sandbox) -> None:
    (problem,) = humaneval.read_problems(problems)
    outcomes = {
        text: humaneval.judge(problem, Answer(text), sandbox)["outcome"]
        for text in (
            "    y = 2 * x\n",
            "    y = x + x\n",
            "    y = x\n",
            "",
            "    while x: y = 1\n",
        )
    }
    assert list(outcomes.values()) == ["passed", "passed", "failed", "failed", "timeout"]


def test_nothing_is_run_without_the_flag(problems: Path, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    flags = [str(problems), "--out", str(out), "--methods", "reference"]
    assert humaneval.main(flags) == 0
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["settings"]["isolation"] == "nothing was run"
    assert found["methods"]["reference"]["pass_at_1"]["n"] == 0
    assert found["methods"]["reference"]["exact"]["value"] == 1


def test_the_benchmarks_own_solutions_pass_and_baselines_are_compared(
    problems: Path, tmp_path: Path
) -> None:
    out = tmp_path / "result.json"
    methods = ["--methods", "denoiser,causal,reference", "--steps", "2", "--whole-lines"]
    assert humaneval.main([str(problems), "--run-code", "--out", str(out), *methods]) == 0
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["methods"]["reference"]["pass_at_1"]["value"] == 1
    assert "denoiser - causal" in found["pass_at_1"]
    assert "audit hook" in found["settings"]["isolation"]


def test_a_file_that_is_something_else_is_named(tmp_path: Path) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text('{"text": 1}\n')
    assert humaneval.main([str(path), "--out", str(tmp_path / "o.json")]) == 2
