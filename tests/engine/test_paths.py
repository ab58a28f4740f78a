"""Where the service lies and whose it is: sockets, locks, identities."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import engine
from engine.errors import EngineUnavailable
from engine.models import local_model
from engine.paths import RUNTIME_DIR_VARIABLE, engine_paths, lock_is_held, make_private
from engine.serve.failures import of_a_watch, of_the_loop
from engine.serve.lifecycle import take_lock

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(engine.__file__ or "").parent.parent)}


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="dg-"))
    yield made
    shutil.rmtree(made)


def test_private_directories(folder: Path) -> None:
    make_private(folder / "new" / "place")
    assert stat.S_IMODE((folder / "new" / "place").stat().st_mode) == 0o700
    (folder / "link").symlink_to(folder / "new" / "place")
    (folder / "file").touch()
    (folder / "open").mkdir(mode=0o700)
    (folder / "open").chmod(0o750)
    for wrong in ("link", "file", "open"):
        with pytest.raises(EngineUnavailable):
            make_private(folder / wrong)
    if os.geteuid() == 0:
        os.chown(folder / "new" / "place", 1, 1)
        with pytest.raises(EngineUnavailable, match="not a directory of yours"):
            make_private(folder / "new" / "place")


def test_socket_paths(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUNTIME_DIR_VARIABLE, str(folder))
    usual = engine_paths().socket
    assert usual.parent == folder
    assert engine_paths(device="cpu").socket != usual != engine_paths("org/model").socket
    monkeypatch.chdir(folder)
    here = local_model(".", folder)
    assert engine_paths(here) == engine_paths(str(folder)), "one model, however it is named"
    deep = [engine_paths(runtime_dir=folder / ("d" * 120) / name).socket for name in "ab"]
    assert deep[0] != deep[1]
    assert all(len(os.fsencode(path)) <= 103 for path in deep)
    monkeypatch.delenv(RUNTIME_DIR_VARIABLE)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    if sys.platform == "linux":
        assert engine_paths().socket.parent == folder / "diffgemma-lsp"


def test_an_engine_is_of_its_code_its_version_and_its_weights(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUNTIME_DIR_VARIABLE, str(folder))
    model = folder / "model"
    model.mkdir()
    (model / "adapter.safetensors").write_bytes(b"1")
    (model / "readme.md").write_text("1")
    known = [engine_paths(str(model)), engine_paths()]
    (model / "readme.md").write_text("2")
    assert known == [engine_paths(str(model)), engine_paths()]
    (model / "adapter.safetensors").write_bytes(b"22")
    known.append(engine_paths(str(model)))
    with monkeypatch.context() as patch:
        patch.setattr("engine.paths.CODE", "another checkout")
        known += [engine_paths(str(model)), engine_paths()]
    with monkeypatch.context() as patch:
        patch.setattr("engine.paths.package_version", lambda: "9.9.9")
        known += [engine_paths(str(model)), engine_paths()]
    assert len({paths.socket for paths in known}) == len(known)


def test_a_folder_of_the_workspace_is_no_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUNTIME_DIR_VARIABLE, str(folder))
    name = "google/diffusiongemma-26B-A4B-it"
    usual = engine_paths(name)
    (folder / name).mkdir(parents=True)
    (folder / name / "config.json").write_text("{}")
    monkeypatch.chdir(folder)  # as editors start their servers
    assert engine_paths(name) == usual
    assert local_model(name) == name
    assert local_model(name, folder) == str((folder / name).resolve())
    assert local_model("~nobody-at-all/model") == "~nobody-at-all/model"


def test_a_watch_that_fails_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> None:
        raise ZeroDivisionError("what it was about")

    async def serve() -> None:
        asyncio.get_running_loop().set_exception_handler(of_the_loop)
        watch = asyncio.create_task(fails())
        watch.add_done_callback(of_a_watch)
        await asyncio.wait({watch})
        await asyncio.sleep(0)
        assert [record.getMessage() for record in caplog.records] == [
            f"unhandled: a watch has ended: ZeroDivisionError at {Path(__file__).name}:{line}"
        ]

    line = fails.__code__.co_firstlineno + 1
    asyncio.run(serve())


def test_code_is_known_by_its_place_and_its_changes(tmp_path: Path) -> None:
    def prints(name: str) -> str:
        code = f"import sys; sys.path.insert(0, {str(tmp_path / name)!r}); import engine.identity"
        code += "; print(engine.identity.CODE)"
        return subprocess.check_output([sys.executable, "-P", "-c", code], text=True, env={})

    source = Path(engine.__file__ or "").parent
    for name in ("one", "two"):
        (tmp_path / name / "engine" / "text").mkdir(parents=True)
        for file in ("__init__.py", "identity.py", "text/__init__.py"):
            shutil.copy2(source / file, tmp_path / name / "engine" / file)
    first = prints("one")
    assert first == prints("one") != prints("two")
    with (tmp_path / "one" / "engine" / "text" / "__init__.py").open("a") as file:
        file.write("# upgraded\n")
    assert prints("one") != first


def test_a_runtime_directory_that_is_no_use_is_passed_over(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(RUNTIME_DIR_VARIABLE, raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    own = folder / f"diffgemma-lsp-{os.geteuid()}"
    (folder / "file").touch()
    for stale in (folder / "gone", folder / "file", Path("/proc/sys"), Path("a\0b")):
        monkeypatch.setattr("os.environ", {**os.environ, "XDG_RUNTIME_DIR": str(stale)})
        if stale == Path("/proc/sys"):
            monkeypatch.setattr("os.access", lambda path, mode: False)  # read-only, even for root
        assert engine_paths().socket.parent == own
    make_private(own)


def test_without_any_place_for_a_socket_the_variable_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "file").touch()
    with pytest.raises(EngineUnavailable, match=f"set {RUNTIME_DIR_VARIABLE}"):
        make_private(folder / "file" / "below")

    def nowhere() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.delenv(RUNTIME_DIR_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder / "gone"))
    monkeypatch.setattr("tempfile.gettempdir", nowhere)
    with pytest.raises(EngineUnavailable, match=f"set {RUNTIME_DIR_VARIABLE}"):
        engine_paths()


def test_a_disk_without_locks_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: int, flags: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    lock = engine_paths(runtime_dir=folder).lock
    for look in (take_lock, lock_is_held):
        with pytest.raises(EngineUnavailable, match=f"No locks .*set {RUNTIME_DIR_VARIABLE}") as it:
            look(lock)
        assert "\n" not in str(it.value)
        lock.touch()


def test_who_looks_at_a_lock_leaves_what_its_holder_wrote(folder: Path) -> None:
    paths = engine_paths(runtime_dir=folder)
    held = take_lock(paths.lock)
    assert held is not None
    code = "import sys; from pathlib import Path; from engine.paths import lock_is_held; "
    code += "print(lock_is_held(Path(sys.argv[1])))"
    look = [sys.executable, "-P", "-c", code, str(paths.lock)]
    assert subprocess.check_output(look, env=ENVIRONMENT, text=True) == "True\n"
    assert paths.holder == str(os.getpid())
    held.release()
    assert subprocess.check_output(look, env=ENVIRONMENT, text=True) == "False\n"
    assert paths.holder == str(os.getpid())
