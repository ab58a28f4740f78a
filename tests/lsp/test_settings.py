"""Settings: tolerant, clear about what they don't tolerate, and in the right order."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffgemma_lsp.settings.effective import EffectiveSettings
from diffgemma_lsp.settings.globs import fits_uri, problem
from diffgemma_lsp.settings.schema import Settings
from diffgemma_lsp.settings.sources import Source, read_own, read_shared, section
from tests.cases import cases

NAMES = [f.name for f in fields(Settings)]
leaf = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)


def around(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """Lists and objects of these, or one of these."""
    named = st.dictionaries(st.text(max_size=5), inner, max_size=3)
    return inner | st.lists(inner, max_size=3) | named


# Not st.recursive, which draws anew what has too many leaves: most of the time would go there.
json = around(around(leaf))


def parse(raw: object) -> tuple[Settings, list[str]]:
    """What initializationOptions alone come to."""
    settings = EffectiveSettings()
    settings.initialize(raw)
    return settings.everywhere, settings.complaints


@pytest.mark.parametrize("raw", [None, {}, []])
def test_nothing_said_means_the_defaults(raw: object) -> None:
    assert parse(raw) == (Settings(), [])
    assert Settings().automatic_budget_ms == 550


@pytest.mark.parametrize("raw", [[1], "x", 3, True])
def test_something_else_altogether(raw: object) -> None:
    read, messages = parse(raw)
    assert read == Settings()
    assert len(messages) == 1


def test_every_setting_can_be_set_in_both_spellings() -> None:
    values = {
        "enable": False,
        "languages_off": ["text"],
        "globs_off": ["*.md"],
        "warm_up": False,
        "automatic_budget_ms": 400,
        "invoked_budget_ms": 4_000,
        "action_budget_ms": 9_000,
        "rewrite_strength": 0.25,
        "markers": ["FILL ME"],
        "candidates": 2,
        "look_ahead": False,
        "next_edits": False,
        "max_tokens": None,
        "max_lines": 3,
        "min_confidence": 0.5,
        "neighbours": False,
        "stats": False,
        "model": "/models/mine",
        "models": {"rust": "mini", "~/work/**": "/models/mine"},
        "device": "cpu",
        "engine_url": "https://gpu.example.org:8443/lent",
        "engine_token_file": "~/token",
        "idle_unload_s": None,
        "idle_exit_s": 120.5,
        "seed": 7,
    }
    assert list(values) == NAMES
    camel = {n[0] + n.title().replace("_", "")[1:]: value for n, value in values.items()}
    read, messages = parse(values)
    assert (read, messages) == parse(camel)
    assert messages == []
    for name, value in values.items():
        told = [*value.items()] if isinstance(value, dict) else value
        assert getattr(read, name) == (tuple(told) if isinstance(told, list) else told)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("enable", 1),
        ("enable", None),
        ("max_tokens", 0),
        ("max_tokens", True),
        ("max_tokens", 1.5),
        ("min_confidence", 1.1),
        ("min_confidence", False),
        ("languages_off", "python"),
        ("languages_off", [1]),
        ("model", ""),
        ("model", "./nano"),
        ("model", "../other/model"),
        ("model", 3),
        ("seed", -1),
        ("seed", 2**63),
        ("idle_exit_s", 0),
    ],
)
def test_a_wrong_value_is_named_and_its_default_used(name: str, value: object) -> None:
    read, messages = parse({name: value, "max_lines": 2})
    assert read == Settings(max_lines=2)
    (message,) = messages
    assert message.startswith(f"{name}: expected ")
    assert "; using " in message


def test_an_unknown_key_is_named() -> None:
    assert parse({"colour": 1})[1] == ['"colour": there is no such setting; it is ignored']


@cases(1_000)
@given(json | st.dictionaries(st.sampled_from([*NAMES, "maxTokens", "x"]), json))
def test_anything_at_all(raw: object) -> None:
    read, messages = parse(raw)
    assert isinstance(read, Settings)
    assert all("\n" not in message and len(message) < 300 for message in messages)
    hash(read)


@pytest.mark.parametrize(
    ("globs", "uri", "off"),
    [
        (("*.env",), "file:///home/me/.env", True),
        (("*.env",), "file:///home/me/a.envx", False),
        (("secret/*",), "file:///home/secret/deep/a.py", True),
        (("secret/*",), "file:///home/nosecret/a.py", False),
        (("/home/*",), "file:///home/a.py", True),
        (("a b.py",), "file:///x/a%20b.py", True),
        (("*.py",), "untitled:Untitled-1", False),
        (("Untitled-*",), "untitled:Untitled-1", True),
        (("[",), "file:///x", False),
        (("tests/**",), "file:///work/tests/deep/a.py", True),
        (("tests/**",), "file:///work/mytests/a.py", False),
        (("src/**/a.py",), "file:///work/src/a.py", True),
        (("src/**/a.py",), "file:///work/src/x/y/a.py", True),
        (("src/**/a.py",), "file:///work/src/ba.py", False),
        # A folder is all that is in it.
        (("build/",), "file:///work/build/deep/a.py", True),
        (("build/",), "file:///work/build", False),
        (("build/",), "file:///work/mybuild/a.py", False),
        (("build",), "file:///work/build/deep/a.py", True),
        (("**/build",), "file:///work/build/a.py", True),
        (("/work/secret",), "file:///work/secret/deep/a.py", True),
        (("/work/secret/",), "file:///work/secret/a.py", True),
        (("/work/secret",), "file:///home/work/secret/a.py", False),
        (("~/secret",), "file:///home/me/secret/a.py", True),
        (("~/*.py",), "file:///home/me/a.py", True),
        (("~",), "file:///home/you/a.py", False),
        (("./src/*.py",), "file:///work/src/a.py", True),
        # A name is no path.
        (("src/*.py",), "file:///work/src/deep/a.py", False),
        (("src/**/*.py",), "file:///work/src/deep/er/a.py", True),
        (("a?c",), "file:///work/a/c", False),
        (("**",), "file:///work/a/c", True),
        (("/work/**/c",), "file:///work/c", True),
        (("a**c",), "file:///work/abbc", True),
        # Braces and sets.
        (("*.{js,ts}",), "file:///work/a.ts", True),
        (("*.{js,ts}",), "file:///work/a.tsx", False),
        (("{a,b{c,d}}.py",), "file:///work/bd.py", True),
        (("{src,tests}/**/*.py",), "file:///work/tests/x/a.py", True),
        (("a.{,x}py",), "file:///work/a.py", True),
        (("[ab].py",), "file:///work/b.py", True),
        (("[!ab].py",), "file:///work/b.py", False),
        (("[!ab].py",), "file:///work/c.py", True),
        (("[z-a].py",), "file:///work/c.py", False),
        (("a+b(c).py",), "file:///work/a+b(c).py", True),
        (("A.py",), "file:///work/a.py", False),
    ],
)
def test_globs(
    globs: tuple[str, ...], uri: str, off: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert any(fits_uri(uri, glob) for glob in globs) == off


@pytest.mark.parametrize(
    ("glob", "said"),
    [
        ("!a.py", "no `!`"),
        ("src\\*.py", "separated by `/`"),
        ("../x/*", "`..`"),
        ("a/./b", "`..`"),
        ("*.{js,ts", "braces"),
        ("*.js}", "braces"),
        ("{a,b}" * 20, "too many"),
    ],
)
def test_globs_that_can_not_mean_anything_are_named(glob: str, said: str) -> None:
    read, (message,) = parse({"globs_off": ["a.py", glob]})
    assert read.globs_off == ("a.py",), "what else is turned off stays off"
    assert said in message
    _, (message,) = parse({"globs": {glob: {"seed": 1}, "b.py": {"seed": 2}}})
    assert message.startswith("globs: ")
    assert said in message


@cases(500)
@given(st.text("ab*?{},[]!-/.~\\\n^", max_size=15), st.text("ab/.-{", max_size=8))
def test_any_glob_has_an_answer(glob: str, path: str) -> None:
    assert fits_uri(f"file:///{path}", glob) in (True, False)
    assert isinstance(problem(glob), str | None)


# ---- what a workspace may have had a say in ----

MACHINE = {"model": "/evil", "device": "cuda:7", "idle_unload_s": 1, "idle_exit_s": None}


def test_only_the_users_own_configuration_chooses_what_is_run() -> None:
    own = Settings(model="/mine", device="cpu", idle_unload_s=5.0, idle_exit_s=6.0)
    source = read_shared({**MACHINE, "max_lines": 3}, own)
    assert source.values == {"max_lines": 3}
    named = [complaint.partition(":")[0] for complaint in source.complaints]
    assert named == ["model", "device", "idle_unload_s"]  # null is what nobody has set
    assert all("only initializationOptions" in complaint for complaint in source.complaints)


def test_what_holds_anyway_is_no_reason_to_complain() -> None:
    same = {"model": "/mine", "device": None, "idle_exit_s": 3_600}
    assert read_shared(same, Settings(model="/mine")) == Source()
    assert len(read_shared(same, Settings(model="/other")).complaints) == 1


@pytest.mark.parametrize("scope", ["languages", "globs"])
@pytest.mark.parametrize("name", ["model", "warm_up", "globsOff"])
def test_what_is_not_for_single_documents(scope: str, name: str) -> None:
    value = {"model": "/m", "warm_up": False, "globsOff": ["*"]}[name]
    source = read_own({scope: {"x": {name: value, "seed": 3}}})
    assert getattr(source, scope) == {"x": {"seed": 3}}
    (complaint,) = source.complaints
    assert complaint.startswith(f'{scope}["x"].{"globs_off" if name == "globsOff" else name}: ')


def test_null_is_not_set_where_it_has_no_meaning() -> None:
    raw = {"enable": None, "rewrite_strength": None, "max_tokens": None, "languages": None}
    assert read_shared(raw, Settings()) == Source({"max_tokens": None})


def test_a_wrong_value_gives_way_to_what_is_below() -> None:
    source = read_shared({"seed": "x"}, Settings(seed=9))
    assert source.values == {}
    assert source.complaints[0].endswith('got "x"; using 9')


@pytest.mark.parametrize(
    ("raw", "part"),
    [
        ({"diffgemma": {"seed": 1}, "pylsp": {"seed": 2}}, {"seed": 1}),
        ({"diffgemma": None}, None),
        ({"diffgemma": 3, "seed": 1}, 3),
        (
            {"seed": 1, "globs": {"*": {}}, "pylsp": {"seed": 2}, "gopls": []},
            {"seed": 1, "globs": {"*": {}}},
        ),
        ({"seeed": 1, "pylsp": {}}, {"seeed": 1}),
        ({}, {}),
        ([], []),
        ("x", "x"),
    ],
)
def test_the_section_of_what_is_pushed(raw: object, part: object) -> None:
    assert section(raw) == part


def test_what_clients_keep_in_the_section() -> None:
    assert read_shared({"trace": {"server": "off"}}, Settings()) == Source()
    assert len(read_own({"trace": "off"}).complaints) == 1


# ---- what goes before what ----

FOLDER = "file:///work/app"
INSIDE = f"{FOLDER}/tests/a.py"
SOURCES = ("own", "pushed", "pulled", "folder")


def said(sources: dict[str, dict]) -> EffectiveSettings:
    settings = EffectiveSettings()
    settings.initialize(sources.get("own"))
    settings.push(sources.get("pushed"))
    settings.pull(sources.get("pulled"), {FOLDER: sources.get("folder")})
    return settings


@given(st.dictionaries(st.tuples(st.integers(0, 2), st.integers(0, 3)), st.integers(1, 999)))
def test_the_narrower_scope_then_the_later_source(said_where: dict[tuple[int, int], int]) -> None:
    sources: dict[str, dict] = {name: {} for name in SOURCES}
    for (scope, source), lines in said_where.items():
        setting = {"max_lines": lines}
        inner = [setting, {"languages": {"python": setting}}, {"globs": {"tests/*": setting}}]
        sources[SOURCES[source]] |= inner[scope]
    settings = said(sources)
    assert settings.complaints == []
    winner = said_where[max(said_where)] if said_where else None
    assert settings.for_document(INSIDE, "python").max_lines == winner
    outside = [where for where in said_where if where[0] == 0 and where[1] < 3]
    elsewhere = said_where[max(outside)] if outside else None
    assert settings.for_document("file:///work/apple/a.lua", "lua").max_lines == elsewhere
    assert settings.everywhere.max_lines == elsewhere


def test_later_globs_go_first_and_inner_folders_count() -> None:
    settings = EffectiveSettings()
    settings.initialize({"globs": {"*.py": {"seed": 1, "maxLines": 4}, "tests/*": {"seed": 2}}})
    read = settings.for_document(INSIDE, "python")
    assert (read.seed, read.max_lines) == (2, 4)
    settings.pull(None, {"file:///work": {"max_lines": 6}, f"{FOLDER}/": {"max_tokens": 5}})
    read = settings.for_document("file:///work/app/b.txt", "text")
    assert (read.max_tokens, read.max_lines) == (5, None)
    assert settings.for_document("file:///work/b.txt", "text").max_lines == 6


def test_a_source_says_all_that_it_has_each_time() -> None:
    settings = said({"own": {"seed": 1}, "pushed": {"seed": 2}, "pulled": {"seed": 3, "x": 1}})
    assert settings.everywhere.seed == 3
    settings.pull(None, {})
    assert (settings.everywhere.seed, settings.complaints) == (2, [])
    settings.push(None)
    assert settings.everywhere.seed == 1


@pytest.mark.parametrize(
    ("sources", "off"),
    [
        ({"own": {"enable": False}}, True),
        ({"own": {"enable": True}, "pushed": {"enable": False}}, True),
        ({"own": {"enable": False, "languages": {"python": {"enable": True}}}}, False),
        ({"own": {"enable": False}, "folder": {"enable": True}}, False),
        ({"own": {"enable": False}, "pulled": {"globs": {"*": {"seed": 1}}}}, True),
        ({"pulled": {"globs": {"*": {"enable": False}}}}, False),
    ],
)
def test_off_everywhere(sources: dict[str, dict], off: bool) -> None:
    assert said(sources).off_everywhere == off


@pytest.mark.parametrize(
    ("url", "taken"),
    [
        ("https://gpu.example.org", True),
        ("https://gpu:8443/lent/", True),
        ("http://localhost:8012", True),
        ("http://127.0.0.1", True),
        ("http://[::1]:8012", True),
        ("http://gpu:8012", False),  # code and token for all to read
        ("http://localhost.example.org", False),
        ("http://localhost@gpu:8012", False),
        ("https://me:secret@gpu", False),
        ("https://gpu?x=1", False),
        ("ftp://localhost", False),
        ("gpu:8012", False),
        ("https://[", False),
        ("https://gpu:99999", False),
        ("", False),
        (1, False),
    ],
)
def test_an_engines_url_is_one_that_nobody_else_reads(url: object, taken: bool) -> None:
    read, messages = parse({"engine_url": url})
    assert (read.engine_url == url) == taken
    assert (not messages) == taken


def or_json(usual: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """Half of the time this, else anything: `usual | json` would take it as one of json's many."""
    return st.booleans().flatmap(lambda chosen: usual if chosen else json)


sensible = st.sampled_from([True, False, None, 0, 0.5, 1, 300, "x", ["python"], ["*.md"]])
some = st.dictionaries(st.sampled_from([*NAMES, "x"]), or_json(sensible), max_size=4)
scopes = {
    "languages": or_json(st.dictionaries(st.sampled_from(["python", "lua"]), some)),
    "globs": or_json(st.dictionaries(st.sampled_from(["*", "tests/*", "!a"]), some)),
    "diffgemma": or_json(some),
}
whole = st.builds(
    lambda bare, scoped: bare | scoped, some, st.fixed_dictionaries({}, optional=scopes)
)
source = or_json(whole)


@cases(500)
@given(source, source, source, source)
def test_anything_from_anywhere(
    own: object, pushed: object, pulled: object, folder: object
) -> None:
    settings = EffectiveSettings()
    settings.initialize(own)
    trusted = settings.everywhere
    settings.push(pushed)
    settings.pull(pulled, {FOLDER: folder})
    for read in (settings.everywhere, settings.for_document(INSIDE, "python")):
        assert {n: getattr(read, n) for n in MACHINE} == {n: getattr(trusted, n) for n in MACHINE}
    assert len(set(settings.complaints)) == len(settings.complaints)
    assert all("\n" not in line and len(line) < 350 for line in settings.complaints)
