"""A part of a file as it will be after the next edit: by Zed's prompts, and with nano."""

from __future__ import annotations

import json

import httpx
import pytest
from edit_prompts import Place
from fake_engine import FakeEngine, filling
from hypothesis import given
from hypothesis import strategies as st
from serving import PATIENCE_S
from test_app import served

from diffgemma_lsp.next_edit.parts import Region
from diffgemma_lsp.serve.dialects.edits import rewriting
from diffgemma_lsp.serve.dialects.openai import OPENAI
from diffgemma_lsp.serve.rewriting import regions_of
from engine.types import Snippet

FORMATS = ("zeta2", "zeta21", "sweep")
OLD = """\
def area(width, height):
    print(width)
    return width * height
"""
NEW = OLD.replace("area(width", "area(w")
RENAMED = Place(NEW, 0, 3, 0, len("def area(w"), OLD)
TYPED = Place("x = 1\ny = \n", 0, 2, 1, len("y = "), "x = 1\ny \n")


def prompt(place: Place, name: str) -> str:
    return getattr(place, name)()


def read(place: Place, name: str, answer: str) -> str:
    return getattr(place, f"read_{name}")(answer)


async def asked(http: httpx.AsyncClient, place: Place, name: str) -> str:
    """The part that a client has after an answer."""
    body = {"model": "m", "prompt": prompt(place, name), "max_tokens": 64, "stop": ["w"]}
    found = await http.post("/v1/completions", json=body)
    assert found.status_code == 200, found.text
    return read(place, name, found.json()["choices"][0]["text"])


# ---- the prompts ----

LINES = st.lists(st.text("ab c.\t", max_size=5), min_size=1, max_size=12)


@given(LINES, st.data())
def test_the_part_and_the_cursor_are_found_where_zeta_has_them(
    lines: list[str], data: st.DataObject
) -> None:
    text = "\n".join(lines)
    first = data.draw(st.integers(0, len(lines) - 1))
    last = data.draw(st.integers(first, len(lines) - 1))
    line = data.draw(st.integers(first, last))
    column = data.draw(st.integers(0, len(lines[line])))
    place = Place(text, first, last, line, column)
    for name in ("zeta2", "zeta21"):
        if name == "zeta2" and place.part.endswith("\n"):
            continue  # who reads it can't tell its line end from that of the marks, nor need to
        split = rewriting(prompt(place, name))
        assert split is not None
        rewrite = split.rewrite
        assert rewrite is not None
        whole = split.prefix + split.suffix
        assert whole.rstrip("\n") == text.rstrip("\n")
        assert whole[rewrite.start : rewrite.end] == place.part
        assert split.prefix == "\n".join([*lines[:line], lines[line][:column]])
        assert split.context == (Snippet("lib.py", "def helper(): ..."),)


@pytest.mark.parametrize("name", FORMATS)
def test_edits_of_this_file_are_read(name: str) -> None:
    split = rewriting(prompt(RENAMED, name))
    assert split is not None
    assert split.rewrite is not None
    whole = split.prefix + split.suffix
    assert split.path == "shapes/area.py"
    assert whole.rstrip("\n") == NEW.rstrip("\n")
    assert split.prefix == "def area(w"
    assert regions_of(whole, split.rewrite.edits) == [Region("def area(width, height):\n", 0, 0)]


@pytest.mark.parametrize("rows", range(1, 40))
@pytest.mark.parametrize("end", ["", "\n"])
def test_sweep_s_part_ends_as_it_does_in_the_editor(rows: int, end: str) -> None:
    lines = [f"x{number} = {number}" for number in range(rows)]
    for line in range(rows):
        text = "\n".join(lines) + "\n"
        count = text.count("\n")
        first, last = max(0, line - 10), min(count, line + 10)
        if end and last == count - 1:
            continue
        old = "\n".join([*lines[:line], "x", *lines[line + 1 :]]) + "\n"
        place = Place(text, first, last, line, len(lines[line]), old)
        split = rewriting(place.sweep())
        assert split is not None
        assert split.prefix + split.suffix == place.part


@pytest.mark.parametrize(
    "other",
    [
        "",
        "<|file_sep|>original/a\nx\n<|file_sep|>current/b\nx\n<|file_sep|>updated/a\n",
        "<|file_sep|>a.py\nx\n<|file_sep|>b.py\n<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>",
        "<[fim-suffix]>b<[fim-prefix]>a<[fim-middle]>",
        "<[fim-suffix]>b<[fim-prefix]><filename>a.py\nx<[fim-middle]>",
    ],
)
def test_what_is_no_such_prompt_is_left_alone(other: str) -> None:
    assert rewriting(other) is None


@given(st.text("<|file_sep>orignal/cut:\nab[m]-=", max_size=80), st.sampled_from(FORMATS))
def test_no_text_is_too_odd(text: str, name: str) -> None:
    rewriting(text)
    whole = prompt(RENAMED, name)
    for at in range(0, len(whole), 17):
        broken = whole[:at] + text + whole[at:]
        ask = OPENAI.read({"prompt": broken})
        if (rewrite := ask.rewrite) is not None:
            assert 0 <= rewrite.start <= rewrite.end <= len(ask.prefix + ask.suffix)
            assert isinstance(regions_of(ask.prefix + ask.suffix, rewrite.edits), list)


def test_a_change_that_is_not_there_any_more_is_no_edit() -> None:
    assert regions_of("a\nb\nc", [("x", "y")]) == []
    assert regions_of("a\nb\na", [("x", "a")]) == [], "which of the two is it?"
    assert regions_of("a\nb\na", [("b\nx", "b\na")]) == [Region("x\n", 2, 2)]
    assert regions_of("a\nb", [("a\nx\nb", "a\nb")]) == [], "nothing is left of it"


# ---- the answers ----


@pytest.mark.parametrize("name", FORMATS)
async def test_what_must_follow_an_edit_comes_in_the_part(name: str) -> None:
    engine = FakeEngine()
    async with served(engine) as http:
        found = await asked(http, RENAMED, name)
    assert found == NEW.replace("print(width)", "print(w)")
    (request,) = engine.requests
    assert request.choices == ("    print(width)", "    print(w)")


@pytest.mark.parametrize("name", FORMATS)
async def test_else_what_belongs_at_the_cursor(name: str) -> None:
    engine = FakeEngine()
    async with served(engine) as http:
        found = await asked(http, TYPED, name)
    (request,) = engine.requests
    assert not request.choices
    (before, _, behind) = request.template
    assert found == f"x = 1\ny = {filling(before.text, behind.text)}\n"


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    "place",
    [
        Place("x = 1\ny = 2 + z\n", 0, 2, 1, 4, "x = 1\n2 + z\n"),
        Place("def f():\n    pass\n", 0, 2, 1, 8, "def f():\n    pas\n"),
        Place('# fake: {"text": " "}\ny = \n', 0, 2, 1, 4, '# fake: {"text": " "}\n\n'),
    ],
    ids=["code right of the cursor", "a whole line", "nothing to add"],
)
async def test_else_the_part_as_it_is(name: str, place: Place) -> None:
    async with served() as http:
        body = {"prompt": prompt(place, name)}
        found = await http.post("/v1/completions", json=body)
        answer = found.json()["choices"][0]["text"]
        assert read(place, name, answer) == place.text
        assert found.headers["x-diffgemma-reason"]


@pytest.mark.parametrize("gains", [-30.0, 9.0])
async def test_the_model_has_a_say(gains: float) -> None:
    plan = f"# fake: {json.dumps({'gains': gains})}\n"
    place = Place(plan + NEW, 0, 4, 1, len("def area(w"), plan + OLD)
    async with served() as http:
        found = await asked(http, place, "zeta2")
    expected = place.text.replace("print(width)", "print(w)") if gains > 0 else place.text
    assert found == expected


async def test_what_lies_outside_of_the_part_is_left_alone() -> None:
    place = Place(NEW, 0, 0, 0, len("def area(w"), OLD)
    engine = FakeEngine()
    async with served(engine) as http:
        assert await asked(http, place, "zeta21") == "def area(w, height):\n"
        assert engine.runs == 0


async def test_nothing_follows_in_a_language_that_the_model_does_not_know() -> None:
    engine = FakeEngine()
    engine.languages = ("rust",)
    async with served(engine, budget_ms=1_500) as http:
        assert await asked(http, RENAMED, "zeta2") == NEW
        assert engine.runs == 0


async def test_ollama_is_asked_the_same() -> None:
    async with served() as http:
        body = {"model": "zeta2", "prompt": RENAMED.zeta2(), "raw": True, "stream": False}
        found = (await http.post("/api/generate", json=body)).json()
        assert RENAMED.read_zeta2(found["response"]) == NEW.replace("print(width)", "print(w)")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", FORMATS)
def test_nano(url: str, name: str) -> None:
    """With a real model over a real port: a rename is followed use by use, then nothing more."""
    place = RENAMED
    for expected in (NEW.replace("print(width)", "print(w)"), NEW.replace("width", "w")):
        body = {"model": "m", "prompt": prompt(place, name), "max_tokens": 256}
        reply = httpx.post(f"{url}/v1/completions", json=body, timeout=PATIENCE_S).json()
        found = read(place, name, reply["choices"][0]["text"])
        assert found == expected
        place = Place(found, 0, 3, 0, len("def area(w"), OLD)
