"""`diffgemma-lsp engine`, with services that have a fake model (engine/fake_service.py)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from diffgemma_lsp import cli, engine_client
from engine.paths import RUNTIME_DIR_VARIABLE, EnginePaths, engine_paths, lock_is_held

ROOT = Path(__file__).resolve().parents[2]
FAKE = [sys.executable, "-P", str(ROOT / "tests" / "engine" / "fake_service.py")]

Start = Callable[..., EnginePaths]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts the service of a model and waits until it listens."""
    folder = tempfile.mkdtemp(prefix="dg-")
    monkeypatch.setenv(RUNTIME_DIR_VARIABLE, folder)
    processes: list[subprocess.Popen[bytes]] = []

    def service(model: Path | None = None, device: str | None = None) -> EnginePaths:
        paths = engine_paths(None if model is None else str(model), device)
        command = [*FAKE, "--socket", str(paths.socket)]
        command += ["--model", str(model)] if model is not None else []
        command += ["--device", device] if device is not None else []
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL))
        give_up = time.monotonic() + 60
        while not paths.socket.exists():
            assert time.monotonic() < give_up
            time.sleep(0.02)
        return paths

    yield service
    for process in processes:
        process.kill()
        process.wait()
    shutil.rmtree(folder)


def run(*arguments: object) -> int:
    return cli.main(["engine", *map(str, arguments)])


def test_without_an_engine(start: Start, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("status") == 1
    assert run("status", "--json") == 1
    assert run("stop") == 0
    assert run("stop", "--all") == 0
    assert run("unload") == 0
    told = "not running\n"
    assert capfd.readouterr() == (f"{told}[]\n{told * 3}", "")


def test_all_engines_are_listed_a_line_each(
    start: Start, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    places = {"nano": start(device="cpu"), str(own): start(own)}
    assert run("status") == 0
    head, *lines = capfd.readouterr().out.splitlines()
    assert head.split() == ["model", "pid", "device", "memory", "idle", "state"]
    assert sorted(line.split()[0] for line in lines) == sorted(places)
    assert all(places[line.split()[0]].holder in line for line in lines)
    assert all("MiB" in line for line in lines)
    assert run("status", "--json", "--model", "nano") == 0
    (told,) = json.loads(capfd.readouterr().out)
    assert str(told["pid"]) == places["nano"].holder
    assert run("status", "--model", "nano", "--device", "mps") == 1


def test_one_is_stopped_although_its_model_is_gone(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own").mkdir()
    nano, own = start(), start(tmp_path / "own")
    (tmp_path / "own").rmdir()
    assert run("stop") == 2
    assert "there are several: " in capfd.readouterr().err
    assert run("unload", "--all") == 0
    assert len(capfd.readouterr().out.splitlines()) == 2
    pid = own.holder
    monkeypatch.chdir(tmp_path)
    assert run("stop", "--model", "own") == 0
    assert capfd.readouterr().out == f"stopped {tmp_path / 'own'}, pid {pid}\n"
    assert lock_is_held(nano.lock)
    assert not lock_is_held(own.lock)
    assert run("stop") == 0  # the only one
    assert not lock_is_held(nano.lock)


def test_stop_all_ends_what_it_can_and_names_what_hangs(
    start: Start,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    nano, hung = start(), start(tmp_path)
    os.kill(int(hung.holder), signal.SIGSTOP)
    monkeypatch.setattr(engine_client, "ANSWER_WAIT_S", 3.0)
    assert run("status", "--model", tmp_path) == 0
    assert "does not answer" in capfd.readouterr().out
    assert run("stop", "--all") == 2
    out, err = capfd.readouterr()
    assert out.startswith("stopped nano, pid ")
    assert f"kill process {hung.holder}" in err
    assert not lock_is_held(nano.lock)
