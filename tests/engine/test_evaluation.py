"""Evaluation: how holes are drawn, what answers are worth, and the fences around programs."""

from __future__ import annotations

import argparse
import gzip
import json
import math
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.engine import InfillEngine
from engine.errors import BadRequest
from engine.evaluation import humaneval, methods, run
from engine.evaluation.answers import Answer, Causal, Reference
from engine.evaluation.holes import (
    LONGEST_SPAN,
    PER_FILE,
    Cut,
    Source,
    code_lines,
    held_out_folders,
    most_frequent,
    population,
    read_sources,
)
from engine.evaluation.journal import Journal
from engine.evaluation.metrics import (
    compiles,
    edit_similarity,
    exact,
    mean,
    paired_difference,
    percentile,
    proportion,
    token_accuracy,
)
from engine.evaluation.sandbox import Sandbox
from engine.evaluation.setup import names

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere memory has no limit")

MODULE = '''"""What this module does.

It spans lines.
"""

import os  # kept

# A comment.
NAMES = """
one
""".split()


class Cake:
    """Sweet."""

    def bake(self, oven):
        "Only a string"
        total = sum(
            # inside
            oven.heat,
            1,
        )
\treturn_it = total
        return f"{total} °C"
'''.replace("\treturn_it", "        return_it")


BLOCKS = """def bake(oven):
    "Bakes."
    total = 0
    if oven:
        total += 1
        oven.open()


def shelf(oven):
    @cached
    def inner():
        pass


try: oven(1, [2, 3])
except OSError: pass
if a:
    total = {1: 2}
elif b:
        total = 2
        total = 3
else: total = 4
"""


@pytest.fixture(scope="module")
def engine() -> InfillEngine:
    return InfillEngine.load(device="cpu")


# ---- holes ----


def test_code_lines_leave_out_comments_docstrings_and_text_in_strings() -> None:
    lines = MODULE.split("\n")
    code = [lines[row - 1].strip() for row in sorted(code_lines(MODULE))]
    assert code == [
        "import os  # kept",
        'NAMES = """',
        "class Cake:",
        "def bake(self, oven):",
        "total = sum(",
        "oven.heat,",
        "1,",
        ")",
        "return_it = total",
        'return f"{total} °C"',
    ]


@pytest.mark.parametrize("kind", ["line", "any", "rest"])
def test_a_hole_ends_with_its_line_and_its_parts_make_the_file(kind: run.Kind) -> None:
    cuts = population([Source("cake.py", MODULE)], kind, seed=0)
    assert cuts
    for cut in cuts:
        assert cut.prefix + cut.reference + cut.suffix == MODULE
        assert cut.reference.strip()
        assert "\n" not in cut.reference
        assert cut.suffix.startswith("\n")
        indentation = cut.prefix.rpartition("\n")[2]
        assert bool(indentation.strip()) == (kind == "rest")
        if kind == "rest":
            assert not (cut.prefix[-1].isidentifier() and cut.reference[0].isidentifier())


def test_any_line_also_takes_comments_and_docstrings() -> None:
    cuts = population([Source("cake.py", MODULE)], "any", seed=0)
    references = {cut.reference for cut in cuts}
    assert {"# A comment.", '"""Sweet."""', "It spans lines."} <= references
    assert len(cuts) == sum(bool(line.strip()) for line in MODULE.split("\n"))


def test_the_seed_alone_decides_what_is_drawn() -> None:
    sources = [Source(f"{i}.py", MODULE.replace("Cake", f"Cake{i}")) for i in range(5)]
    first = [cut.key for cut in population(sources, "rest", 3)]
    assert first == [cut.key for cut in population(sources, "rest", 3)]
    assert first != [cut.key for cut in population(sources, "rest", 4)]
    assert len(set(first)) == len(first)


def test_no_file_has_more_than_its_share() -> None:
    table = Source("table.py", "".join(f"a{i} = {i}\n" for i in range(4 * PER_FILE)))
    cuts = population([table, Source("cake.py", MODULE)], "line", 0)
    assert sum(cut.source is table for cut in cuts) == PER_FILE


def test_what_is_not_python_has_no_holes() -> None:
    assert population([Source("a.py", "x = (\n"), Source("b.py", "  x\n y\n")], "any", 0) == []


def test_sources_are_read_once_each_and_in_order(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name, data in {
        "b.py": b"b = 1\n",
        "a.py": b"a = 1\n",
        "sub/copy.py": b"a = 1\n",
        "dos.py": b"a = 1\r\n",
        "latin.py": b"a = '\xe9'\n",
        "notes.txt": b"a = 1\n",
    }.items():
        (tmp_path / name).write_bytes(data)
    found = read_sources([tmp_path])
    assert [source.name for source in found] == [f"{tmp_path.name}/a.py", f"{tmp_path.name}/b.py"]
    with pytest.raises(FileNotFoundError):
        read_sources([tmp_path / "missing"])


def test_held_out_packages_are_found_where_they_are_installed() -> None:
    assert {"rich", "httpx"} <= {folder.name for folder in held_out_folders()}


def test_the_most_frequent_reference() -> None:
    source = Source("a.py", "pass\nx = 1\npass \n")
    assert most_frequent(population([source], "line", 0)) == "pass"
    with pytest.raises(ValueError, match="no holes"):
        most_frequent([])


# ---- metrics ----


def test_exactness_looks_past_white_space_at_the_end_only() -> None:
    assert exact("x = 1 \n", "x = 1")
    assert not exact(" x = 1", "x = 1")


def test_token_accuracy_counts_places_from_the_start() -> None:
    assert token_accuracy([1, 2, 3], [1, 2, 3]) == 1
    assert token_accuracy([1, 9, 3, 4], [1, 2, 3]) == pytest.approx(2 / 3)
    assert token_accuracy([9, 1, 2, 3], [1, 2, 3]) == 0
    assert token_accuracy([], [1]) == 0
    assert token_accuracy([], []) == 1


def test_edit_similarity_of_known_pairs() -> None:
    assert edit_similarity("kitten", "sitting") == pytest.approx(1 - 3 / 7)
    assert edit_similarity("", "") == 1
    assert edit_similarity("", "abc") == 0


@given(st.text(max_size=12), st.text(max_size=12))
def test_edit_similarity_is_symmetric_and_1_for_equals_alone(a: str, b: str) -> None:
    assert edit_similarity(a, b) == edit_similarity(b, a)
    assert 0 <= edit_similarity(a, b) <= 1
    assert (edit_similarity(a, b) == 1) == (a == b)


def test_what_compiles() -> None:
    assert compiles("x = 1\n")
    assert not compiles("x = (\n")
    assert not compiles("x = '\0'\n")


def test_wilson_interval_of_a_known_case() -> None:
    found = proportion([True] * 10 + [False] * 90)
    assert (found.value, found.n) == (0.1, 100)
    assert (found.low, found.high) == pytest.approx((0.0552, 0.1744), abs=1e-4)
    assert found.error == pytest.approx(0.03)


@given(st.lists(st.booleans(), min_size=1, max_size=200))
def test_an_interval_holds_its_estimate(hits: list[bool]) -> None:
    found = proportion(hits)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_a_mean_with_its_error() -> None:
    found = mean([1.0, 2.0, 3.0, 4.0])
    assert found.value == 2.5
    assert found.error == pytest.approx(math.sqrt(5 / 3) / 2)
    assert math.isnan(mean([]).value)


def test_a_paired_difference_sees_what_the_pairs_have_in_common() -> None:
    noise = [float(i % 7) for i in range(200)]
    found = paired_difference([value + 0.1 for value in noise], noise)
    assert found.low == pytest.approx(0.1)
    assert found.high == pytest.approx(0.1)
    # By chance alone: the interval holds 0.
    coin = paired_difference([1.0, 0.0] * 50, [0.0, 1.0] * 50)
    assert coin.low < 0 < coin.high
    with pytest.raises(ValueError, match="pairs"):
        paired_difference([1.0, 2.0, 3.0], [1.0, 2.0])


def test_percentiles() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2
    assert math.isnan(percentile([], 0.5))


# ---- the journal ----


def test_a_journal_goes_on_behind_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with Journal(path, {"seed": 1}) as journal:
        journal.add("a", {"exact": True})
    with path.open("ab") as file:
        file.write(b'{"key": "b", "exa')
    with Journal(path, {"seed": 1}) as journal:
        assert journal.records == {"a": {"exact": True}}
        journal.add("c", {"exact": False})
    with Journal(path, {"seed": 1}) as journal:
        assert list(journal.records) == ["a", "c"]


def test_a_journal_of_other_settings_is_not_mixed_in(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    Journal(path, {"seed": 1, "model": {"name": "nano"}}).close()
    before = path.read_bytes()
    with pytest.raises(BadRequest, match="another seed"):
        Journal(path, {"seed": 2, "model": {"name": "nano"}})
    assert path.read_bytes() == before


# ---- programs ----


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


# ---- answers and reports ----


def test_causal_decoding_gives_one_line_that_is_not_empty(engine: InfillEngine) -> None:
    causal = Causal(engine, longest=12)
    for prefix in ("def f(x):\n    ", "import ", "x = [1, 2, 3]\nprint(", "\n"):
        answer = causal(prefix, "\n")
        assert answer.text.strip()
        assert "\n" not in answer.text
        assert 0 < answer.passes <= 12
        assert answer.text == causal(prefix, "something else").text  # it can't see the suffix


def test_what_was_asked_before_does_not_change_causal_decoding(engine: InfillEngine) -> None:
    prefix = "import os\n\ndef read(path):\n"
    causal = Causal(engine, longest=4)
    text = causal(prefix, "").text
    again = Causal(engine, longest=4)
    again(prefix + "    other = 1\n", "")  # leaves a longer prefix in its cache
    assert again(prefix, "").text == text


def test_a_judge_knows_the_right_answer(engine: InfillEngine) -> None:
    cut = next(
        cut for cut in population([Source("cake.py", MODULE)], "line", 0) if cut.reference == "1,"
    )
    right = run.judge(Answer("1, "), cut, engine.tokenizer.encode)
    assert (right["exact"], right["token_accuracy"], right["parses"]) == (True, 1, True)
    wrong = run.judge(Answer("(("), cut, engine.tokenizer.encode)
    assert (wrong["exact"], wrong["parses"], wrong["empty"]) == (False, False, False)
    assert run.judge(Answer(" "), cut, engine.tokenizer.encode)["empty"]
    broken = Cut("line", Source("b.py", "x = 1\ny = (\n"), 0, 5)
    assert run.judge(Answer("x = 1"), broken, engine.tokenizer.encode)["parses"] is None


def test_a_report_says_who_is_ahead(engine: InfillEngine) -> None:
    cuts = population([Source("cake.py", MODULE)], "line", 0)
    encode = engine.tokenizer.encode
    by_name = {
        methods.OURS: [run.judge(Answer(cut.reference), cut, encode) for cut in cuts],
        methods.CAUSAL: [run.judge(Answer("#"), cut, encode) for cut in cuts],
        methods.CONSTANT: [run.judge(Answer(cut.reference), cut, encode) for cut in cuts],
    }
    found = run.report(by_name)
    assert found["methods"]["denoiser"]["exact"]["value"] == 1
    assert found["differences"]["denoiser - causal"]["exact"]["ahead"] is True
    assert found["differences"]["denoiser - constant"]["exact"]["ahead"] is False
    assert found["gap_closed_by_slack"] == {}
    assert run.table("line", found).row_count == 5


def test_a_report_says_how_much_of_the_gap_slack_closes(engine: InfillEngine) -> None:
    cuts = population([Source("cake.py", MODULE)], "line", 0)
    right = [run.judge(Answer(cut.reference), cut, engine.tokenizer.encode) for cut in cuts]
    wrong = [run.judge(Answer("#"), cut, engine.tokenizer.encode) for cut in cuts]
    half = [*right[: len(cuts) // 2], *wrong[len(cuts) // 2 :]]
    found = run.report({methods.FIXED: wrong, methods.OURS: half, methods.TRUE: right})
    gap = found["gap_closed_by_slack"]["exact"]
    assert gap["value"] == pytest.approx(0.5)
    assert gap["low"] < 0.5 < gap["high"]
    assert run.table("line", found).row_count == 6
    assert run.report({methods.CAUSAL: wrong})["differences"] == {}


def test_blocks_spans_and_insides_of_brackets() -> None:
    source = Source("cake.py", BLOCKS)
    blocks = {cut.reference for cut in population([source], "block", 0)}
    assert blocks == {
        "total = 0\n    if oven:\n        total += 1\n        oven.open()",
        "total += 1\n        oven.open()",
        "@cached\n    def inner():\n        pass",
        "total = 2\n        total = 3",
    }
    for kind in ("block", "span", "bracket"):
        for cut in population([source], kind, 0):
            assert cut.prefix + cut.reference + cut.suffix == BLOCKS
            assert cut.reference.strip()
            assert (kind == "block") <= cut.suffix.startswith("\n")
            assert (kind == "span") <= (len(cut.reference) <= LONGEST_SPAN)
            if kind == "bracket":
                assert cut.prefix[-1] + cut.suffix[0] in ("()", "[]", "{}")


def test_an_evaluation_from_end_to_end_and_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "cake.py").write_text(MODULE, encoding="utf-8")
    out = tmp_path / "result.json"
    flags = ["--source", str(tmp_path / "src"), "--count", "2", "--steps", "2", "--out", str(out)]
    assert run.main(flags) == 0
    first = json.loads(out.read_text(encoding="utf-8"))
    assert first["kinds"]["line"]["holes"] == 2
    assert set(first["kinds"]["line"]["methods"]) == {"denoiser", "causal", "constant"}
    assert first["settings"]["model"]["sampling"]["max_steps"] == 2
    assert first["machine"]["cores"]
    assert run.main(flags) == 0  # all of it from the log, times included
    assert json.loads(out.read_text(encoding="utf-8"))["kinds"] == first["kinds"]
    assert run.main([*flags, "--steps", "3"]) == 2
    assert "another model" in capsys.readouterr().err
    # A further method: what is known stays, and only that one is asked.
    log = (tmp_path / "result.jsonl").read_bytes()
    assert run.main([*flags, "--methods", "denoiser,fixed,one-pass"]) == 0
    again = (tmp_path / "result.jsonl").read_bytes()
    assert again.startswith(log)
    added = [json.loads(line)["key"] for line in again[len(log) :].splitlines()]
    assert len(added) == 4
    assert all(key.startswith(("fixed=", "one-pass ")) for key in added)
    assert run.main([*flags, "--methods", "fixed", "--fixed-length", "3"]) == 0
    assert b"fixed=3 " in (tmp_path / "result.jsonl").read_bytes()[len(again) :]
    assert run.main([*flags, "--methods", "fixed", "--fixed-length", "-3"]) == 2
    assert "at least 1" in capsys.readouterr().err
    assert run.main([*flags, "--methods", "denoiser,fixed,one-pass"]) == 0
    report = json.loads(out.read_text(encoding="utf-8"))["kinds"]["line"]
    assert list(report["differences"]) == ["denoiser - fixed", "denoiser - one-pass"]


def test_parts_share_the_work_and_come_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "cake.py").write_text(MODULE, encoding="utf-8")
    out = tmp_path / "result.json"
    flags = ["--source", str(tmp_path / "src"), "--count", "5", "--methods", "reference"]
    flags += ["--out", str(out)]
    for part in ("1/2", "2/2"):
        assert run.main([*flags, "--part", part]) == 0
    parts = [tmp_path / f"result.{n}-of-2.json" for n in (1, 2)]
    holes = [json.loads(p.read_text())["kinds"]["line"]["holes"] for p in parts]
    assert holes == [3, 2]
    assert not out.exists()
    assert run.main(flags) == 0
    assert json.loads(out.read_text())["kinds"]["line"]["holes"] == 5
    assert len(out.with_suffix(".jsonl").read_text().splitlines()) == 1  # nothing left to do
    for wrong in ("3/2", "0/2", "x"):
        with pytest.raises(SystemExit):
            run.main([*flags, "--part", wrong])
    assert capsys.readouterr().err.count("expected K/N") == 3


def test_a_part_that_still_writes_is_read_up_to_its_last_whole_line(tmp_path: Path) -> None:
    other = tmp_path / "log.1-of-2.jsonl"
    other.write_bytes(b'{"settings": {"seed": 1}}\n{"key": "a", "x": 1}\n{"key": "b", "x')
    before = other.read_bytes()
    with Journal(tmp_path / "log.jsonl", {"seed": 1}, [other]) as journal:
        assert journal.records == {"a": {"x": 1}}
    assert other.read_bytes() == before
    with pytest.raises(BadRequest, match="1-of-2"):
        Journal(tmp_path / "new.jsonl", {"seed": 2}, [other])


def test_a_run_that_is_interrupted_loses_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "cake.py").write_text(MODULE, encoding="utf-8")
    out = tmp_path / "result.json"
    flags = ["--source", str(tmp_path / "src"), "--count", "4", "--methods", "reference"]
    asked: list[str] = []

    def answer(self: Reference, prefix: str, suffix: str, reference: str = "") -> Answer:
        asked.append(reference)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return Answer(reference)

    monkeypatch.setattr(Reference, "__call__", answer)
    assert run.main([*flags, "--out", str(out)]) == 130
    assert "goes on from here" in capsys.readouterr().err
    assert not out.exists()
    assert run.main([*flags, "--out", str(out)]) == 0
    assert len(asked) == 5  # the third one was asked twice
    assert json.loads(out.read_text())["kinds"]["line"]["methods"]["reference"]["exact"]["n"] == 4


def test_names_are_checked() -> None:
    assert names("b,a,b", ("a", "b")) == ("b", "a")
    with pytest.raises(argparse.ArgumentTypeError, match="'c'"):
        names("a,c", ("a", "b"))


# ---- HumanEval-Infilling ----

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
