"""The service as a real process behind a real socket, with a fake engine (fake_service.py)."""

from __future__ import annotations

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
from engine.paths import VERSION_HEADER, engine_paths, identity, lock_is_held

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
