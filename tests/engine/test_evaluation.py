"""Evaluation: holes of held-out code, answers, and what a report says."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from engine.engine import InfillEngine
from engine.errors import BadRequest
from engine.evaluation import methods, run
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
from engine.evaluation.setup import names

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
