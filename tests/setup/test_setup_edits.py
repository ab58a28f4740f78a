"""Edits of configuration: made twice they are made once, taken back they were never made."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffgemma_lsp.setup.change import Change, change
from diffgemma_lsp.setup.edits import Block, OwnFile, Refused, signature
from diffgemma_lsp.setup.json_members import Members, get, put, take

NAMES = st.sampled_from(["a", "b", 'q"uote', "sl//ash", "star/*", "ü", ""])
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=8)
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=4)
INDENTS = st.sampled_from([None, 2, 4, "\t"])


def with_comments(text: str, draw: st.DrawFn) -> str:
    """The JSON as people keep it: comments between its lines, a comma behind the last member."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        is_last = number + 1 < len(lines) and lines[number + 1].strip() in ("}", "},")
        comma = "," if is_last and line[-1] not in "{," and draw(st.booleans()) else ""
        after = draw(
            st.sampled_from(["", ' // @note "not a string", no } here', " /* @note {\n, */"])
        )
        lines[number] = line + comma + after
    return "\n".join(lines)


@st.composite
def files(draw: st.DrawFn) -> tuple[dict[str, Any], str]:
    """An object, and a file that holds it."""
    value = draw(OBJECTS)
    text = json.dumps(value, indent=draw(INDENTS), ensure_ascii=draw(st.booleans()))
    if "\n" in text and draw(st.booleans()):
        text = with_comments(text, draw)
    if draw(st.booleans()):
        text = text.replace("\n", "\r\n")
    return value, draw(st.sampled_from(["", "\ufeff", "\n", "// first\n"])) + text + "\n"


@given(files(), st.lists(NAMES, min_size=1, max_size=3), VALUES)
def test_a_value_is_put_and_nothing_else_changes(
    file: tuple[dict[str, Any], str], names: list[str], value: Any
) -> None:
    before, text = file
    path = tuple(names)
    inner: Any = before
    for name in path[:-1]:
        inner = inner.get(name, {})
        if not isinstance(inner, dict):
            with pytest.raises(Refused):
                put(text, path, value)
            return
    changed = put(text, path, value)
    assert get(changed, path) == value
    expected = json.loads(json.dumps(before))
    place = expected
    for name in path[:-1]:
        place = place.setdefault(name, {})
    place[path[-1]] = value
    assert get(changed, ()) == expected
    if path[0] not in before:
        assert changed.count("@note") == text.count("@note")
    assert put(changed, path, value) == changed


@given(files(), st.sampled_from([("new",), ("new", "inner"), ("new", "inner", "more")]), VALUES)
def test_what_is_taken_back_leaves_no_trace(
    file: tuple[dict[str, Any], str], path: tuple[str, ...], value: Any
) -> None:
    before, text = file
    if not before:
        return
    assert take(put(text, path, value), path) == text


@given(files(), NAMES)
def test_a_member_is_taken_and_no_other(file: tuple[dict[str, Any], str], name: str) -> None:
    before, text = file
    after = get(take(text, (name,)), ())
    assert after == {other: value for other, value in before.items() if other != name}


@pytest.mark.parametrize(
    "text", ["[]", "nothing", "{", '{"a": 1', '{"a": {"b": 1}} {}', "// nothing but this\n", "3"]
)
def test_what_is_no_object_is_left_alone(text: str) -> None:
    with pytest.raises(Refused):
        Members({("a",): 1}).put(text)


def test_comments_and_the_look_of_the_file_stay() -> None:
    text = (
        '// Settings\n{\n  // how it looks\n  "editor.rulers": [80, 100], // two\n  "x": 1.10,\n}\n'
    )
    edit = Members({("server",): "/bin/it", ("deep", "er"): {"a": [1]}})
    assert edit.put(text) == (
        '// Settings\n{\n  "server": "/bin/it",\n  "deep": {\n    "er": {\n      "a": [\n'
        "        1\n      ]\n    }\n  },\n  // how it looks\n"
        '  "editor.rulers": [80, 100], // two\n  "x": 1.10,\n}\n'
    )
    assert edit.take(edit.put(text)) == text


def test_of_json_only_what_was_put_is_taken() -> None:
    edit = Members({("a", "b"): 1, ("c",): 2}, ours=(("d",),), without=(("e",),))
    assert get(edit.put('{"e": 1, "f": 2}'), ()) == {"a": {"b": 1}, "c": 2, "f": 2}
    assert edit.take('{"a": {"b": 5}, "c": 2, "d": "else"}') == '{"a": {"b": 5}}'
    assert edit.take(edit.put(None)) is None


OWN = OwnFile(signature("thing", "#") + "x = 1\n", signature("thing", "#"))


def test_a_file_of_someone_else_is_left_alone() -> None:
    assert OWN.put(None) == OWN.put("") == OWN.put(signature("thing", "#") + "x = 0\n")
    assert OWN.take(OWN.put(None)) is None
    for done in (OWN.put, OWN.take):
        with pytest.raises(Refused, match="not from diffgemma-lsp setup"):
            done("x = 2\n")


@given(st.text(alphabet="ab#\n ", max_size=30), st.text(alphabet="xy\n", max_size=10))
def test_a_block_is_put_once_and_taken_whole(text: str, lines: str) -> None:
    edit = Block("#", lambda _: lines + "\n")
    changed = edit.put(text)
    assert edit.put(changed) == changed
    assert edit.put(changed + "more\n").count(">>> diffgemma") == 1
    taken = edit.take(changed)
    if text.strip():
        assert taken in (text, text + "\n")
    else:
        assert taken is None


def test_a_block_that_was_cut_in_two_is_left_alone() -> None:
    edit = Block("#", lambda _: "x\n")
    half = edit.put("a\n").rsplit("# <<<", 1)[0]
    for done in (edit.put, edit.take):
        with pytest.raises(Refused, match="lost its other half"):
            done(half)


EDIT = Block("#", lambda _: "new\n")


def test_a_file_is_written_with_its_folder_and_kept_beside(tmp_path: Path) -> None:
    path = tmp_path / "some" / "where" / "file"
    first = change(path, EDIT)
    assert first.before is None
    assert first.write() is None
    assert path.read_text() == EDIT.put(None)
    path.write_text("old\n")
    path.chmod(0o640)
    for number, name in enumerate(("file.bak", "file.bak1", "file.bak1")):
        text = f"old {min(number, 1)}\n"
        path.write_text(text)
        assert change(path, EDIT).write() == path.with_name(name)
        assert path.with_name(name).read_text() == text
        assert path.read_text() == EDIT.put(text)
        assert path.stat().st_mode & 0o777 == 0o640
    assert not change(path, EDIT).is_needed
    assert sorted(os.listdir(path.parent)) == ["file", "file.bak", "file.bak1"]


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "dotfiles").mkdir()
    real, link = tmp_path / "dotfiles" / "settings", tmp_path / "settings"
    real.write_text("old\n")
    link.symlink_to("dotfiles/settings")
    kept = change(link, EDIT).write()
    assert link.is_symlink()
    assert real.read_text() == EDIT.put("old\n")
    assert kept == tmp_path / "settings.bak"
    assert not kept.is_symlink()
    change(link, EDIT, remove=True).write()
    assert real.read_text() == "old\n"
    real.write_text(EDIT.put(None))
    change(link, EDIT, remove=True).write()
    assert link.is_symlink()
    assert real.read_text() == ""
    dangling = tmp_path / "dangling"
    dangling.symlink_to("dotfiles/new")
    change(dangling, EDIT).write()
    assert (tmp_path / "dotfiles" / "new").read_text() == EDIT.put(None)


def test_a_file_that_changed_meanwhile_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old\n")
    planned = change(path, EDIT)
    path.write_text("newer\n")
    with pytest.raises(Refused, match="changed meanwhile"):
        planned.write()
    assert os.listdir(tmp_path) == ["file"]


def test_nothing_is_left_behind_where_a_write_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    (tmp_path / "file").write_text("old\n")
    with pytest.raises(OSError, match="No space left"):
        Change(tmp_path / "file", "old\n", "new\n", keep=False).write()
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "old\n"


def test_a_diff_says_what_comes_and_goes() -> None:
    made = Change(Path("/x"), None, "a\n")
    assert list(made.diff()) == ["--- /dev/null", "+++ /x", "@@ -0,0 +1 @@", "+a"]
    gone = Change(Path("/x"), "a\n", None)
    assert list(gone.diff()) == ["--- /x", "+++ /dev/null", "@@ -1 +0,0 @@", "-a"]


def test_what_is_not_utf8_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xff")
    with pytest.raises(Refused, match="not UTF-8"):
        change(tmp_path / "file", EDIT)
