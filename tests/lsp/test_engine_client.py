"""The engine client against real service processes with a fake engine (fake_service.py)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import diffgemma_lsp.engine_client as module
from diffgemma_lsp.commands.streaming import follow
from diffgemma_lsp.engine_client import EngineClient
from diffgemma_lsp.engine_process import EngineOptions, service_command
from engine.errors import BadRequest, DeadlineExceeded, EngineUnavailable, ModelError
from engine.paths import EnginePaths, lock_is_held
from engine.types import Fixed, Frame, Hole, Infill, InfillRequest

ROOT = Path(module.__file__).parent.parent
FAKE = ROOT / "tests" / "engine" / "fake_service.py"

CLIENT_PROCESS = """
import asyncio, sys
from pathlib import Path
from diffgemma_lsp.engine_client import EngineClient
from diffgemma_lsp.engine_process import EngineOptions
from engine.types import Fixed, Hole, InfillRequest

def fake(options, paths):
    return [sys.executable, "-P", sys.argv[1], "--socket", str(paths.socket)]

def client():
    return EngineClient(EngineOptions(runtime_dir=Path(sys.argv[2])), fake)

async def one(script, seed):
    mine = client()
    async for event in mine.stream(InfillRequest((Fixed(script), Hole()), seed=seed)):
        print(type(event).__name__, flush=True)
    print((await mine.status())["pid"], flush=True)
    await mine.aclose()

async def main():
    await asyncio.gather(*(one(script, seed) for seed, script in enumerate(sys.argv[3:], 90)))

asyncio.run(main())
"""


def fake_command(options: EngineOptions, paths: EnginePaths) -> list[str]:
    return [
        *(sys.executable, "-P", str(FAKE), "--socket", str(paths.socket)),
        *("--idle-exit", str(options.idle_exit_s)),
    ]


def request(script: str = "", seed: int = 0, budget_s: float | None = None) -> InfillRequest:
    return InfillRequest((Fixed(script), Hole()), seed=seed, budget_s=budget_s)


def client_process(folder: Path, *scripts: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", CLIENT_PROCESS, str(FAKE), str(folder), *scripts],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def events(folder: Path) -> list[str]:
    file = folder / "events.txt"
    return file.read_text().splitlines() if file.exists() else []


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "it did not come true in time"
        await asyncio.sleep(0.01)


async def pid_of(client: EngineClient) -> int:
    status = await client.status()
    assert status is not None
    return status["pid"]


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="dg-"))
    yield made
    for lock in made.glob("*.lock"):
        if lock_is_held(lock):
            os.kill(int(lock.read_text()), signal.SIGKILL)
    shutil.rmtree(made)


@pytest.fixture
def options(folder: Path) -> EngineOptions:
    return EngineOptions(runtime_dir=folder, idle_exit_s=60.0)


@pytest.fixture
async def client(options: EngineOptions) -> AsyncIterator[EngineClient]:
    made = EngineClient(options, fake_command)
    yield made
    await made.aclose()


def test_it_imports_no_torch() -> None:
    code = (
        "import sys, diffgemma_lsp.engine_client; print({'torch', 'transformers'} & {*sys.modules})"
    )
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "set()\n"


async def test_start_stream_and_stop(client: EngineClient, folder: Path) -> None:
    assert await client.status() is None
    assert not await client.unload()
    assert not await client.stop()
    assert list(folder.iterdir()) == [], "none of these starts it"
    read = [event async for event in client.stream(request("passes=3 delay=0.02"))]
    assert [type(event) for event in read] == [Frame, Frame, Frame, Infill]
    assert (await follow(client, request())).text == "done"
    assert await client.unload()
    status = await client.status()
    assert status is not None
    assert status["state"] == "unloaded"
    assert await client.stop()
    assert await client.status() is None
    assert not lock_is_held(client.paths.lock)
    assert not client.paths.socket.exists()
    assert stat.S_IMODE(client.paths.log.stat().st_mode) == 0o600


async def test_any_text_arrives(client: EngineClient) -> None:
    await follow(client, request("\x00 \ud800 \u2028 \x0c é 🎈 \x85"))


async def test_hundreds_of_streams_keep_no_other_request_waiting(client: EngineClient) -> None:
    await follow(client, request())
    streams = [
        asyncio.create_task(follow(client, request("passes=900 delay=0.02", seed)))
        for seed in range(150)
    ]
    await asyncio.sleep(0.5)
    try:
        assert await pid_of(client)
    finally:
        for stream in streams:
            stream.cancel()
        await asyncio.gather(*streams, return_exceptions=True)


async def test_many_starters_get_one_engine(folder: Path) -> None:
    processes = [client_process(folder, *["passes=2"] * count) for count in (2, 2, 1)]
    printed = [(await asyncio.to_thread(p.communicate, timeout=20))[0] for p in processes]
    assert all(process.returncode == 0 for process in processes)
    pids = [line for line in "".join(printed).split() if line.isdigit()]
    assert len(pids) == 5
    assert len(set(pids)) == 1
    assert events(folder).count("load") == 1


async def test_an_engine_killed_before_is_replaced(client: EngineClient) -> None:
    await follow(client, request())
    first = await pid_of(client)
    os.kill(first, signal.SIGKILL)
    assert (await follow(client, request())).text == "done"
    assert await pid_of(client) != first


async def test_an_engine_that_dies_in_the_middle(client: EngineClient) -> None:
    read: list[Frame | Infill] = []

    async def read_all() -> None:
        async for event in client.stream(request("passes=9 delay=0.05 die=3")):
            read.append(event)  # noqa: PERF401 (what came before the end counts)

    with pytest.raises(EngineUnavailable) as raised:
        await read_all()
    assert len(read) == 2
    assert str(client.paths.log) in str(raised.value)
    assert "\n" not in str(raised.value)
    with pytest.raises(EngineUnavailable):
        await follow(client, request("passes=9 delay=0.05 die=3"))
    assert (await follow(client, request())).text == "done"


async def test_a_stale_socket(client: EngineClient) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(client.paths.socket))
    assert await client.status() is None
    assert (await follow(client, request())).text == "done"


async def test_the_package_is_replaced_under_a_client(
    client: EngineClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await follow(client, request())
    await client.stop()
    # The next engine starts from what is on disk by now.
    monkeypatch.setenv("FAKE_VERSION", "0.0.2")
    assert (await follow(client, request())).text == "done"
    status = await client.status()
    assert status is not None
    assert status["version"] == "0.0.2"


@pytest.mark.parametrize("met", ["at the start", "in the middle"])
async def test_an_engine_of_another_protocol_is_left_alone_and_named(
    client: EngineClient, monkeypatch: pytest.MonkeyPatch, met: str
) -> None:
    if met == "in the middle":
        await follow(client, request())
        await client.stop()
        client._known_good = True  # as if someone else had started the next one
    monkeypatch.setenv("FAKE_PROTOCOL", "99")
    monkeypatch.setenv("FAKE_VERSION", "9.9.9")
    other = subprocess.Popen(
        fake_command(client.options, client.paths),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    await until(client.paths.socket.exists)
    for _ in range(2):
        with pytest.raises(EngineUnavailable, match=r"the engine 99/9\.9\.9\): restart the editor"):
            await follow(client, request())
    assert other.poll() is None
    assert await client.stop()
    assert other.wait(30) == 0


async def test_two_versions_at_a_time_have_an_engine_each(
    options: EngineOptions, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = [EngineClient(options, fake_command)]
    with monkeypatch.context() as patch:
        patch.setattr("engine.paths.package_version", lambda: "0.0.1")
        clients.append(EngineClient(options, fake_command))
    for _ in range(3):
        for one in clients:
            assert (await follow(one, request())).text == "done"
    assert events(folder).count("load") == 2
    assert await pid_of(clients[0]) != await pid_of(clients[1])
    for one in clients:
        await one.aclose()


async def test_a_client_killed_in_the_middle(client: EngineClient, folder: Path) -> None:
    victim = client_process(folder, "passes=900 delay=0.02")
    assert victim.stdout is not None
    assert await asyncio.to_thread(victim.stdout.readline) == "Frame\n"
    engine = await pid_of(client)
    victim.kill()
    passes = events(folder).count("pass 90")
    await until(lambda: "left 90" in events(folder), 2)
    victim.communicate()
    assert events(folder).count("pass 90") <= passes + 2
    assert (await follow(client, request())).text == "done"
    assert await pid_of(client) == engine


@pytest.mark.parametrize("way", ["cancel the task", "close the stream", "cancel a fill"])
async def test_leaving_cancels_in_the_engine(client: EngineClient, folder: Path, way: str) -> None:
    long = request("passes=900 delay=0.02", seed=7)

    async def read() -> None:
        async with contextlib.aclosing(client.stream(long)) as stream:
            async for _ in stream:
                if way == "close the stream":
                    break

    async def fill() -> None:
        await follow(client, long)

    task = asyncio.create_task(fill() if way == "cancel a fill" else read())
    await until(lambda: "pass 7" in events(folder))
    if way != "close the stream":
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    passes = events(folder).count("pass 7")
    await until(lambda: "left 7" in events(folder), 2)
    assert events(folder).count("pass 7") <= passes + 2
    assert (await follow(client, request())).text == "done"


async def test_a_model_that_cannot_be_loaded(client: EngineClient, folder: Path) -> None:
    (folder / "broken").touch()
    for _ in range(2):
        with pytest.raises(ModelError, match="there is no model here: name one that exists"):
            await follow(client, request())
    (folder / "broken").unlink()
    await client.warm_up()
    assert (await follow(client, request())).text == "done"
    assert events(folder).count("load") == 2


async def test_the_engine_refuses_nonsense(client: EngineClient) -> None:
    with pytest.raises(BadRequest):
        await follow(client, request(3))  # type: ignore[arg-type]
    assert await client.status() is not None


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([sys.executable, "-c", "raise SystemExit('first line\\nno libcuda here')"], "no libcuda"),
        ([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], "ended with code -9"),
        (["/nowhere/python"], "No such file"),
    ],
)
async def test_an_engine_that_dies_at_once(
    options: EngineOptions, command: list[str], words: str
) -> None:
    client = EngineClient(options, lambda options, paths: command)
    client.paths.log.write_text("of an earlier time\n")
    for _ in range(2):
        with pytest.raises(EngineUnavailable, match=words) as raised:
            await follow(client, request())
        assert "\n" not in str(raised.value)
    await client.aclose()


async def test_the_budget_counts_the_start_of_the_engine(client: EngineClient) -> None:
    with pytest.raises(DeadlineExceeded):
        await follow(client, request(budget_s=0.02))
    # The start goes on for whoever comes next.
    assert (await follow(client, request(budget_s=60.0))).text == "done"
    with pytest.raises(DeadlineExceeded, match="before the engine was ready"):
        await follow(client, request(budget_s=0.0))  # and so it never got there
    stopped = await follow(client, request("passes=900 delay=0.01", budget_s=1.0))
    assert stopped.stop_reason == "deadline"


async def test_an_engine_that_hangs(
    options: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_WAIT_S", 0.7)
    client = EngineClient(options, fake_command)
    await client.ensure_started()
    monkeypatch.setattr(module, "START_WAIT_S", 0.5)
    pid = await pid_of(client)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(EngineUnavailable, match=f"kill process {pid}"):
        await client.status()
    with pytest.raises(EngineUnavailable, match=f"kill process {pid}"):
        await client.ensure_started()
    monkeypatch.undo()
    os.kill(pid, signal.SIGCONT)
    assert (await follow(client, request())).text == "done"
    await client.aclose()


async def test_the_engine_exits_when_idle_and_comes_back(options: EngineOptions) -> None:
    client = EngineClient(replace(options, idle_exit_s=0.3), fake_command)
    await follow(client, request())
    await until(lambda: not lock_is_held(client.paths.lock))
    assert not client.paths.socket.exists()
    assert (await follow(client, request())).text == "done"
    await client.aclose()


async def test_nothing_is_imported_from_the_working_directory(
    options: EngineOptions, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = folder / "project"
    (trap / "engine").mkdir(parents=True)
    for name in ("engine/__init__.py", "torch.py", "uvicorn.py", "json.py"):
        (trap / name).write_text("raise SystemExit('trapped')")
    monkeypatch.chdir(trap)
    monkeypatch.setenv("PYTHONPATH", f".{os.pathsep}{os.pathsep}../project")
    client = EngineClient(options, lambda o, p: [*service_command(o, p), "--no-load"])
    await client.ensure_started()
    if sys.platform == "linux":
        assert os.readlink(f"/proc/{await pid_of(client)}/cwd") == "/"
    await client.stop()
    await client.aclose()


async def test_a_public_directory_is_refused(folder: Path, options: EngineOptions) -> None:
    client = EngineClient(options, fake_command)
    await client.ensure_started()
    await client.stop()
    folder.chmod(0o755)
    for ask in (client.ensure_started, client.warm_up, lambda: follow(client, request())):
        with pytest.raises(EngineUnavailable, match="chmod 700"):
            await ask()
    with socket.socket(socket.AF_UNIX) as planted:
        planted.bind(str(client.paths.socket))
        planted.listen()
        with pytest.raises(EngineUnavailable, match="chmod 700"):
            await client.status()
    await client.aclose()


def test_the_command_line(options: EngineOptions, tmp_path: Path) -> None:
    chosen = replace(options, model=str(tmp_path / ".." / tmp_path.name), device="cpu")
    command = service_command(chosen, EnginePaths(Path("/run/e.sock")))
    assert command[:2] == [sys.executable, "-P"]
    assert command[command.index("--model") + 1] == str(tmp_path.resolve())
    assert command[command.index("--idle-exit") + 1] == "60.0"
    assert "--model" not in service_command(options, EnginePaths(Path("/run/e.sock")))
