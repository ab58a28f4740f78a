"""Settings: tolerant, and clear about what they don't tolerate."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffgemma_lsp.settings import Settings, parse

NAMES = [f.name for f in fields(Settings)]
json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def test_nothing_said_means_the_defaults() -> None:
    assert parse(None) == parse({}) == (Settings(), [])
    assert Settings().automatic_budget_ms == 550


@pytest.mark.parametrize("raw", [[], "x", 3, True])
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
        "max_tokens": None,
        "max_lines": 3,
        "min_confidence": 0.5,
        "neighbours": False,
        "model": "/models/mine",
        "device": "cpu",
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
        assert getattr(read, name) == (tuple(value) if isinstance(value, list) else value)


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


@settings(max_examples=1_000, deadline=None)
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
    ],
)
def test_globs(globs: tuple[str, ...], uri: str, off: bool) -> None:
    assert (Settings(globs_off=globs).off(uri, "python") is not None) == off
