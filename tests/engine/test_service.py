"""The service as a real process behind a real socket, with a fake engine (fake_service.py)."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import engine
from engine.errors import EngineUnavailable
from engine.paths import (
    RUNTIME_DIR_VARIABLE,
    VERSION_HEADER,
    engine_paths,
    identity,
    local_model,
    lock_is_held,
    make_private,
)
from engine.serve.failures import of_a_watch, of_the_loop
from engine.serve.lifecycle import take_lock

FAKE = [sys.executable, "-P", str(Path(__file__).with_name("fake_service.py"))]
REAL = [sys.executable, "-P", "-m", "engine.serve.service"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(engine.__file__ or "").parent.parent)}


class Service:
    """One service process and a way to talk to it."""

    def __init__(self, folder: Path, *flags: str, command: list[str] = FAKE, **env: str) -> None:
        self.paths = engine_paths(runtime_dir=folder)
        self.http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(self.paths.socket)), base_url="http://engine"
        )
        self.process = subprocess.Popen(
            [*command, "--socket", str(self.paths.socket), *flags],
            env={**ENVIRONMENT, **env},
            stderr=subprocess.PIPE,
            text=True,
        )

    def status(self) -> dict[str, Any]:
        return self.http.get("/status").json()

    def ready(self, state: str = "ready") -> Service:
        until(lambda: self.paths.socket.exists() and self.answers() and self.state() == state)
        return self

    def answers(self) -> bool:
        try:
            return bool(self.status())
        except httpx.TransportError:
            return False

    def state(self) -> str:
        return self.status()["state"]

    def infill(self, script: str = "", seed: int = 0, **fields: Any) -> list[dict[str, Any]]:
        return lines(self.http.post("/infill", content=body(script, seed, **fields), timeout=20))

    def events(self) -> list[str]:
        file = self.paths.socket.with_name("events.txt")
        return file.read_text().splitlines() if file.exists() else []

    def end(self) -> tuple[int, str]:
        errors = self.process.communicate(timeout=10)[1]
        return self.process.returncode, errors

    def kill(self) -> None:
        self.http.close()
        self.process.kill()
        self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()


def body(script: str = "", seed: int = 0, **fields: Any) -> str:
    return json.dumps({"template": [{"fixed": script}, {"hole": {}}], "seed": seed, **fields})


def lines(response: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line) for line in response.text.splitlines()]


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "it did not come true in time"
        time.sleep(0.01)


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="dg-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., Service]]:
    running: list[Service] = []

    def run(*flags: str, **options: Any) -> Service:
        running.append(Service(folder, *flags, **options))
        return running[-1]

    yield run
    for service in running:
        service.kill()


def test_status_is_answered_while_the_model_loads(start: Callable[..., Service]) -> None:
    service = start(FAKE_LOAD_S="1").ready("loading")
    status = service.status()
    assert status["pid"] == service.process.pid
    assert status["loading"] == "reading"
    assert 0 <= status["fraction"] < 1
    assert f"{status['protocol']}/{status['version']}" == identity()
    service.ready()
    assert service.status()["info"]["model"] == "fake"


def test_the_real_service_answers_without_torch(start: Callable[..., Service]) -> None:
    service = start("--no-load", command=REAL).ready("unloaded")
    assert service.status()["memory_bytes"] > 1_000_000
    if sys.platform == "linux":
        assert "libtorch" not in Path(f"/proc/{service.process.pid}/maps").read_text()


def test_frames_then_the_infill(start: Callable[..., Service]) -> None:
    service = start().ready()
    answer = service.infill("passes=4 delay=0.01")
    assert list(answer[-1]) == ["infill"]
    assert [line["frame"]["step"] for line in answer[:-1]] == [1, 2, 3, 4]
    response = service.http.post("/infill", params={"frames": 0}, content=body("passes=4"))
    assert [list(line) for line in lines(response)] == [["infill"]]
    assert service.status()["jobs"] == 0


def test_wrong_requests(start: Callable[..., Service]) -> None:
    service = start().ready()
    for wrong in (
        "{",
        "[]",
        "{}",
        body(budget_s="soon"),
        '{"template": [{"fixed": 3}]}',
        body()[:-1],
    ):
        response = service.http.post("/infill", content=wrong)
        assert response.status_code == 400
        assert lines(response)[0]["error"]["code"] == "bad_request"
    response = service.http.post("/infill", content=body(), headers={VERSION_HEADER: "0/0.0"})
    assert response.status_code == 409
    assert "infill" in service.infill()[-1]


def test_what_fails_is_told_but_no_document_text_is_logged(start: Callable[..., Service]) -> None:
    service = start().ready()
    answer = service.infill("fail=1 hush-hush")
    assert answer[-1]["error"]["code"] == "engine_error"
    service.http.post("/infill", content='{"hush-hush": ')
    service.http.post("/infill", content='{"template": [{"hole": {"hush-hush": 1}}]}')
    service.http.post("/stop")
    code, log = service.end()
    assert code == 0
    assert "ValueError at fake_service.py" in log
    assert "hush-hush" not in log
    assert "secret" not in log.replace('f"a secret', "")


def test_a_lost_device_is_told_to_all_and_ends_the_process(start: Callable[..., Service]) -> None:
    service = start().ready()
    with service.http.stream("POST", "/infill", content=body("passes=900 delay=0.01", 7)) as other:
        read = other.iter_lines()
        next(read)
        answer = service.infill("passes=9 lose=3 hush-hush")
        *_, last = read
    for line in (answer[-1], json.loads(last)):
        assert line["error"]["code"] == "engine_unavailable"
        assert "the device failed (RuntimeError at fake_service.py" in line["error"]["message"]
    code, log = service.end()
    assert code == 70
    assert "the device is lost" in log
    assert "hush-hush" not in log
    assert not service.paths.socket.exists()
    assert "infill" in start().ready().infill()[-1], "another one begins anew"


def test_a_reader_that_leaves_cancels_within_one_pass(start: Callable[..., Service]) -> None:
    service = start().ready()
    with service.http.stream("POST", "/infill", content=body("passes=500 delay=0.02", 7)) as answer:
        next(answer.iter_lines())
        passes = service.events().count("pass 7")
    until(lambda: "left 7" in service.events(), 2)
    assert service.events().count("pass 7") <= passes + 2
    assert "infill" in service.infill()[-1]


def test_a_short_request_overtakes_a_long_one(start: Callable[..., Service]) -> None:
    service = start().ready()
    with service.http.stream("POST", "/infill", content=body("passes=500 delay=0.01", 7)):
        assert "infill" in service.infill("passes=3")[-1]
        assert "left 7" not in service.events()


def test_a_slow_reader_misses_frames_but_not_the_end(start: Callable[..., Service]) -> None:
    service = start().ready()
    script = "passes=60 delay=0.001 size=100000"
    with service.http.stream("POST", "/infill", content=body(script, 7), timeout=20) as answer:
        until(lambda: "left 7" in service.events())
        read = [json.loads(line) for line in answer.iter_lines()]
    assert "infill" in read[-1]
    steps = [line["frame"]["step"] for line in read[:-1]]
    assert 0 < len(steps) < 60
    assert steps == sorted(set(steps))


def test_a_deadline_while_the_model_loads(start: Callable[..., Service]) -> None:
    service = start(FAKE_LOAD_S="60").ready("loading")
    asked = time.monotonic()
    answer = service.infill(budget_s=0.2)
    assert answer[-1]["error"]["code"] == "deadline_exceeded"
    assert time.monotonic() - asked >= 0.2
    assert service.state() == "loading", "it did not wait for the model"


def test_a_deadline_while_it_runs(start: Callable[..., Service]) -> None:
    answer = start().ready().infill("passes=900 delay=0.01", budget_s=1.0)
    assert answer[-1]["infill"]["stop_reason"] == "deadline"


def test_a_model_that_cannot_be_loaded(folder: Path, start: Callable[..., Service]) -> None:
    (folder / "broken").touch()
    service = start().ready("unloaded")
    for _ in range(3):
        error = service.infill()[-1]["error"]
        assert error == {
            "code": "model_error",
            "message": "there is no model here: name one that exists",
        }
    assert service.events() == ["load"]
    assert "no model" in service.status()["last_error"]
    (folder / "broken").unlink()
    service.http.post("/load")
    assert "infill" in service.infill()[-1]
    assert service.status()["last_error"] is None


def test_without_a_model_it_ends_once_nobody_asks(
    folder: Path, start: Callable[..., Service]
) -> None:
    (folder / "broken").touch()
    service = start(FAKE_FAILED_EXIT_S="1.5").ready("unloaded")
    until_asked_in_vain = time.monotonic() + 3
    while time.monotonic() < until_asked_in_vain:  # who goes on asking is answered by the same one
        assert service.infill()[-1]["error"]["code"] == "model_error"
        time.sleep(0.05)
    assert service.events() == ["load"]
    code, log = service.end()
    assert code == 0
    assert "there is no model here: name one that exists" in log
    assert not service.paths.socket.exists()


def test_idle_unload_and_idle_exit(start: Callable[..., Service]) -> None:
    service = start("--idle-unload", "0.3", "--idle-exit", "4").ready()
    assert service.status()["idle_unload_s"] == 0.3
    service.ready("unloaded")
    assert "infill" in service.infill()[-1]
    assert service.events().count("load") == 2
    service.ready("unloaded")
    assert service.end()[0] == 0
    assert not service.paths.socket.exists()
    assert not lock_is_held(service.paths.lock)


def test_unload_on_demand(start: Callable[..., Service]) -> None:
    service = start().ready()
    assert service.http.post("/unload").json()["state"] == "unloaded"
    assert "infill" in service.infill()[-1]


@pytest.mark.parametrize("way", ["request", "signal"])
def test_stop_ends_what_runs(start: Callable[..., Service], way: str) -> None:
    service = start().ready()
    with service.http.stream("POST", "/infill", content=body("passes=900 delay=0.01")) as answer:
        read = answer.iter_lines()
        next(read)
        if way == "request":
            service.http.post("/stop")
        else:
            service.process.send_signal(signal.SIGTERM)
        *_, last = read
    assert json.loads(last)["error"]["code"] == "engine_unavailable"
    assert service.end()[0] == 0
    assert not service.paths.socket.exists()


def test_stop_does_not_wait_for_a_load(start: Callable[..., Service]) -> None:
    service = start(FAKE_LOAD_S="60").ready("loading")
    service.process.send_signal(signal.SIGTERM)
    assert service.end()[0] == 0
    assert not service.paths.socket.exists()


def test_a_client_that_leaves_in_the_middle_of_its_request(start: Callable[..., Service]) -> None:
    service = start().ready()
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(service.paths.socket))
        caller.send(b"POST /infill HTTP/1.1\r\nhost: x\r\ncontent-length: 999\r\n\r\n{")
        time.sleep(0.1)
    assert "infill" in service.infill()[-1]
    service.http.post("/stop")
    assert "Traceback" not in service.end()[1]


def test_a_second_service_leaves_quietly(start: Callable[..., Service]) -> None:
    first = start().ready()
    assert start().end() == (0, "")
    assert first.status()["pid"] == first.process.pid


def test_a_stale_socket_is_replaced(folder: Path, start: Callable[..., Service]) -> None:
    path = engine_paths(runtime_dir=folder).socket
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    engine_paths(runtime_dir=folder).lock.write_text("1\n")
    assert "infill" in start().ready().infill()[-1]


def test_what_it_makes_is_private(folder: Path, start: Callable[..., Service]) -> None:
    service = start().ready()
    for file in (service.paths.socket, service.paths.lock):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    service.kill()
    folder.chmod(0o755)
    code, log = start().end()
    folder.chmod(0o700)
    assert code == 1
    said = f"others can enter {folder}: chmod 700 it or set DIFFGEMMA_LSP_RUNTIME_DIR"
    assert log.splitlines()[-1] == said


def test_without_its_socket_it_ends(start: Callable[..., Service]) -> None:
    service = start("--idle-unload", "1").ready()
    service.paths.socket.unlink()
    assert service.end()[0] == 0


def test_it_ends_when_it_is_out_of_date_and_idle(
    folder: Path, start: Callable[..., Service]
) -> None:
    model = folder / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    service = start("--model", str(model), FAKE_REPLACED_EXIT_S="0.2").ready()
    (model / "notes.txt").write_text("what no model is read from")
    time.sleep(0.8)
    assert "infill" in service.infill("passes=60 delay=0.02")[-1]
    assert service.process.poll() is None
    (model / "config.json").write_text('{"another": 1}')
    assert "infill" in service.infill("passes=60 delay=0.02")[-1], "it is at work"
    assert service.end()[0] == 0


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
